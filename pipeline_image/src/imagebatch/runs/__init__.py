"""A run's files: where they are, what they say about each image, and the proof that none is lost."""

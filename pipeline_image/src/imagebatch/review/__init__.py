"""What the model is unsure of: handed to people, and what they say read back (docs/how-to/review.md)."""

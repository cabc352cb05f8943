"""What a stage shows while it works: metrics, times, progress."""

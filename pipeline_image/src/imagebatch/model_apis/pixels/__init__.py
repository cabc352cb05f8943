"""Pixels made here, for models whose servers take tensors and no image files."""

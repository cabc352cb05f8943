"""Training: a linear probe and a fine-tune on both splits, assessed, tracked and reported."""

"""Cross-validation by blocks: what a recipe reaches on blocks that it was not trained on."""

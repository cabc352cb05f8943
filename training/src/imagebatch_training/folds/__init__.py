"""Cross-validation by blocks: what a recipe reaches on blocks that nothing was chosen on."""

"""Weights, data, fine-tuning, evaluation and archiving of the model that imagebatch serves."""

"""Asking a model API about images, whatever happens on the way; shared by the stages that score."""

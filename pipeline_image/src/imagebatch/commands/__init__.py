"""The commands that are no stage: one module each, called by the command line."""

"""The stages of a run, in their order. They hand files to each other and do not know each other."""

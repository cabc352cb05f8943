"""What stays of every run, and what has changed over them."""

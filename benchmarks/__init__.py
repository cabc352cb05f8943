"""Every published figure: what measures it, what measuring takes, and whom it is held against."""

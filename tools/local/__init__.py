"""The stack without containers: its services, start, stop, and the demo."""

"""Everything that is done with a checkout: set-up, tests, the stack without containers, the stack in them.

Run by the system's Python before any environment exists: standard library only.
"""

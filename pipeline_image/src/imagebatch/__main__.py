"""`python -m imagebatch` is `imagebatch`."""

from imagebatch.cli import main

main()

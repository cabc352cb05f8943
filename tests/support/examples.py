"""How many random examples hypothesis tries: `make test` the same 100 of each test, `make fuzz` 500.

Importing this sets the profile. `EXAMPLES` gives `make fuzz` another number.
"""

import os

from hypothesis import settings

# The machine is shared: a slow example is no failure.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=100)
settings.register_profile(
    "thorough", deadline=None, print_blob=True, max_examples=int(os.environ.get("EXAMPLES") or 500)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

"""`python -m imagebatch_kserve.health`: exits 0 when this container's server has a model that is ready.

Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request


def main() -> int:
    """Ask the server for its models, and each of them whether it is ready.

    Returns:
        0 or 1.
    """
    # The container's own: KServe's default port, unless the variable says another.
    root = f"http://127.0.0.1:{os.environ.get('IMAGEBATCH_HTTP_PORT', '8080')}/v2/models"
    try:
        models = json.loads(_ask(root))["models"]
        ready = [json.loads(_ask(f"{root}/{model}/ready"))["ready"] for model in models]
    except (OSError, ValueError, KeyError) as error:
        print(f"not ready: {error}")  # noqa: T201 - the engine keeps it with the container's health
        return 1
    return 0 if ready and all(ready) else 1


def _ask(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - http, from above
        content: bytes = answer.read()
    return content


if __name__ == "__main__":
    sys.exit(main())

"""Tell people that a service has died, by the receivers of missed deadlines (docs/how-to/monitoring.md).

The supervisor runs it, with `dags/` on PYTHONPATH and two arguments: the service, and how it ended.
"""

import sys
import time

from imagebatch_dags.notifiers import Notice, notify

from tools.paths import VAR, say

PAGE = "docs/how-to/embedded.md#when-a-service-dies"


def main(service: str, how: str) -> int:
    """Tell it, of each service once an hour: one that dies again and again would bury its first message.

    Args:
        service: its name.
        how: it ended.

    Returns:
        0; 1 if a receiver could not be told.
    """
    text = f"{service} of the imagebatch stack in {VAR} {how}, and is started again"
    key = f"{VAR} {service} {time.strftime('%Y-%m-%dT%H', time.gmtime())}"
    try:
        notify(Notice(text=text, severity="warn", state="restarted", run=service, key=key, page=PAGE))
    except (OSError, ValueError) as error:
        say(f"nobody was told that {service} {how}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

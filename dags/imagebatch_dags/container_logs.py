"""A container's output, line by line while it runs, across every break of the connection to the engine.

The engine keeps the output in a bounded file. It is read from there with the engine's timestamps, which tell
after a break (a proxy that closes quiet connections, an engine that restarts) where to go on.
"""

import codecs
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

KEPT = 20  # last lines: the result or the complaint is among them
LONGEST_LINE = 65_536  # characters; the rest of a longer one becomes the next line
AWAY_SECONDS = 180.0  # an engine that restarts is back by then
PAUSE_SECONDS = 1.0


class EngineAwayError(Exception):
    """The engine has not answered for `AWAY_SECONDS`."""


class ContainerLogs:
    """The output of one container.

    Args:
        client: of the engine.
        container_id: whose output.
        emit: called with each line, without its end.

    Attributes:
        last: the last lines.
    """

    def __init__(self, client: APIClient, container_id: str, emit: Callable[[str], None]) -> None:
        self.last: deque[str] = deque(maxlen=KEPT)
        self._client = client
        self._id = container_id
        self._emit = emit
        self._partial = ""
        # The engine cuts a long line after so many bytes, also in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stamp = ""  # of the newest piece, RFC 3339 with nine digits: sorts as text
        self._same = 0  # pieces so far that carry it

    def follow(self) -> dict[str, Any]:
        """Hand on every line until the container has ended.

        Returns:
            Its final state, as the engine's `State`.

        Raises:
            EngineAwayError: the engine does not come back.
            docker.errors.NotFound: somebody removed the container.
        """
        heard = time.monotonic()
        while True:
            try:
                for piece in self._pieces():
                    self._take(piece)
                state: dict[str, Any] = self._client.inspect_container(self._id)["State"]
            except NotFound:
                raise
            except (APIError, RequestException, HTTPError, OSError) as error:
                if isinstance(error, APIError) and not error.is_server_error():
                    raise
                if time.monotonic() - heard > AWAY_SECONDS:
                    raise EngineAwayError(f"the engine is away for {AWAY_SECONDS:.0f} s: {error}") from error
            else:
                heard = time.monotonic()
                if not state["Running"]:
                    self._partial += self._decoder.decode(b"", final=True)
                    self._line_ends()
                    return state
            time.sleep(PAUSE_SECONDS)

    def _pieces(self) -> Iterator[bytes]:
        since = (
            int(datetime.fromisoformat(self._stamp[:19]).replace(tzinfo=UTC).timestamp())
            if self._stamp
            else None
        )
        seen, resumed_at, known = 0, self._stamp, self._same
        for raw in self._client.logs(self._id, stream=True, follow=True, timestamps=True, since=since):
            head, _, piece = raw.partition(b" ")
            stamp = head.decode("ascii", "replace")
            if stamp < resumed_at:
                continue
            if stamp == resumed_at and seen < known:
                seen += 1
                continue
            self._same = self._same + 1 if stamp == self._stamp else 1
            self._stamp = stamp
            yield piece

    def _take(self, piece: bytes) -> None:
        # One piece is one line, or 16 KiB of a longer one.
        ends = piece.endswith(b"\n")
        self._partial += self._decoder.decode(piece, final=ends)
        if ends or len(self._partial) > LONGEST_LINE:
            self._line_ends()

    def _line_ends(self) -> None:
        line, self._partial = self._partial.rstrip(), ""
        if line:
            self.last.append(line)
            self._emit(line)

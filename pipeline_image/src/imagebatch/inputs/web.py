"""Images on web servers: off unless a root names the server, and then only what lies below that root.

Every redirect is held to the same roots. A public name that leads to a private address is refused before
anything is sent: whoever owns the name could point it at a service of this network.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import ClassVar, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import requests
from typing_extensions import override
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, RequestError

from imagebatch.contracts.addresses import public_name
from imagebatch.contracts.records import Reason
from imagebatch.deadline import BoundedAdapter, BoundedRetry, BoundedSession, Clock, Http, Https, within
from imagebatch.errors import StorageError
from imagebatch.inputs.unavailable import ImageUnavailableError

_CONNECT_SECONDS, _READ_SECONDS, _WHOLE_SECONDS = 10.0, 60.0, 300.0
_MOST_REDIRECTS = 5
_TRIES = 5
_BLOCK = 1 << 16
_PORTS = {"http": 80, "https": 443}
# Names that can only be meant for a private network: RFC 6761, 6762 (appendix G), 8375, ICANN's `internal`.
_PRIVATE_NAMES = tuple(
    f".{name}"
    for name in ("localhost", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa")
)
_GONE = {requests.codes.not_found, requests.codes.gone}
# The server, or what stands before it, is in trouble; a 500 may be about this one image.
_AWAY = {429, 502, 503, 504}


class _Place(NamedTuple):
    """What a URL is compared by."""

    scheme: str
    host: str
    port: int
    path: str


class WebSource:
    """Reads images from web servers. Safe to use from several threads.

    Args:
        roots: `https://host[:port]/prefix`: what lies below may be read, nothing else.
        max_bytes: Larger images are refused.
    """

    def __init__(self, roots: list[str], max_bytes: int) -> None:
        self._roots = [place for root in roots if (place := _place(root))]
        self._max_bytes = max_bytes
        self._local = threading.local()

    def allows(self, url: str) -> bool:
        """Tell whether a URL is an allowed root or lies below one."""
        place = _place(url)
        return place is not None and any(
            place[:3] == root[:3] and f"{place.path.rstrip('/')}/".startswith(f"{root.path.rstrip('/')}/")
            for root in self._roots
        )

    def read(self, url: str) -> bytes:
        """Return an image's bytes.

        Raises:
            ImageUnavailableError: This image cannot be had; others may.
            StorageError: The server does not answer; trying again may help.
        """
        with within(_WHOLE_SECONDS) as clock:
            return self._followed(url, clock)

    def _followed(self, url: str, clock: Clock) -> bytes:
        here = url
        for _ in range(_MOST_REDIRECTS + 1):
            prepared = _prepared(here)
            if prepared is None or not self.allows(prepared.url or ""):  # what is compared is what is sent
                detail = "see --allowed-roots"
                if here != url:
                    detail = f"redirected to {public_name(here)}; {detail}"
                raise ImageUnavailableError(Reason.OUTSIDE_ALLOWED_ROOTS, detail)
            try:
                with self._session().send(
                    prepared, stream=True, allow_redirects=False, timeout=(_CONNECT_SECONDS, _READ_SECONDS)
                ) as response:
                    if not response.is_redirect:
                        return self._body(response)
                    here = urljoin(here, response.headers["Location"])
            except requests.RequestException as error:
                if clock.over:  # of a server that does send, if slowly: another image may be faster
                    raise ImageUnavailableError(
                        Reason.UNREADABLE, f"not sent within {_WHOLE_SECONDS:g} s"
                    ) from error
                raise StorageError(
                    f"cannot read {public_name(here)}: {_said(error)}; run the same command again"
                ) from error
        raise ImageUnavailableError(Reason.UNREADABLE, f"more than {_MOST_REDIRECTS} redirects")

    def _body(self, response: requests.Response) -> bytes:
        status = response.status_code
        if status in _GONE:
            raise ImageUnavailableError(Reason.NOT_FOUND, f"HTTP {status}")
        if status in _AWAY:
            raise StorageError(
                f"cannot read {public_name(response.url)}: HTTP {status}; run the same command again"
            )
        if status != requests.codes.ok:
            raise ImageUnavailableError(Reason.UNREADABLE, f"HTTP {status}")
        data = bytearray()
        for block in response.iter_content(_BLOCK):
            data += block
            if len(data) > self._max_bytes:
                raise ImageUnavailableError(
                    Reason.TOO_MANY_BYTES, f"more than the {self._max_bytes} bytes that are taken"
                )
        return bytes(data)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = BoundedSession(_Adapter())
        return session


def _said(error: requests.RequestException) -> str:
    """Return what went wrong without the address, which urllib3 writes out with all its parameters."""
    told = error.args[0] if error.args else None
    if isinstance(told, RequestError):  # it alone writes the address; its reason does not
        told = getattr(told, "reason", None)
    return str(told) if isinstance(told, HTTPError | OSError) else type(error).__name__


def _prepared(url: str) -> requests.PreparedRequest | None:
    try:
        return requests.Request("GET", url, headers={"Accept-Encoding": "identity"}).prepare()
    except (requests.RequestException, ValueError):
        return None


def _place(url: str) -> _Place | None:
    """Return the parts by which a URL is compared; None if servers and clients may read it differently."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    path = unquote(parts.path)
    odd = "\\" in path or "@" in parts.netloc or ".." in path.split("/") or not url.isprintable()
    return None if odd or not parts.hostname else _Place(parts.scheme, parts.hostname, port, path)


def _require_public(host: str, sock: socket.socket) -> None:
    """Refuse a private address, unless the root itself names that address or a private name."""
    peer = ipaddress.ip_address(sock.getpeername()[0])
    address = getattr(peer, "ipv4_mapped", None) or peer
    if address.is_global and not address.is_multicast:
        return
    name = host.strip("[]").rstrip(".").lower()
    if not ("." not in name or name.endswith(_PRIVATE_NAMES) or _is_address(name)):
        sock.close()
        raise ImageUnavailableError(
            Reason.OUTSIDE_ALLOWED_ROOTS, f"{name} leads to the private address {address}"
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Http(Http):
    @override
    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        _require_public(self.host, sock)
        return sock


class _Https(Https):
    @override
    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        _require_public(self.host, sock)
        return sock


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(BoundedAdapter):
    """An adapter that retries with pauses of its own: a server's Retry-After could hold a run for hours."""

    pools: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": _HttpPool, "https": _HttpsPool}

    def __init__(self) -> None:
        again = BoundedRetry(
            _TRIES - 1,
            redirect=False,
            backoff_factor=0.2,
            backoff_jitter=0.2,
            status_forcelist=sorted({*_AWAY, 500}),
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        super().__init__(again)

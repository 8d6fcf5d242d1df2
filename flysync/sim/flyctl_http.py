"""
How the stand-in for flyctl speaks HTTP: the connections, retries and error texts of the real one.

Only light modules of the standard library are imported: a call of the stand-in is to take less than 80 ms.
Sources: flyctl.md 3 and 4.1, and fly-go v0.9.6 http.go and flaps/flaps.go, unless a comment says measured.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

#: Pauses between the four attempts at a request that was answered with 502 or 503: the means of the real ones.
_RETRY_PAUSES_S = (0.05, 0.1, 0.2)
#: Pauses before a read is tried again whose connection was reset.
_RESET_PAUSES_S = (0.1, 0.15)

#: Go escapes these in JSON strings; they decode to the same text.
_ESCAPED = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


class Failure(Exception):
    """An error as flyctl prints it; wrapping adds to its text and keeps the rest."""

    def __init__(
        self,
        text: str,
        *,
        description: str = "",
        suggestion: str = "",
        status: int = 0,
        request_id: str = "",
        reset: bool = False,
        exit_code: int = 1,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.description = description
        self.suggestion = suggestion
        #: The HTTP status of the answer that is the cause; 0 where there was none.
        self.status = status
        self.request_id = request_id
        #: Whether the connection was reset.
        self.reset = reset
        self.exit_code = exit_code

    def wrapped(self, prefix: str) -> Failure:
        """Give this failure, with *prefix* before its text from now on."""
        self.text = prefix + self.text
        return self


class Prefixed:
    """A context that puts *prefix* before the text of a failure that leaves it."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Failure):
            error.wrapped(self._prefix)


class Cancelled(BaseException):
    """A signal, or another machine's failure, ended the work: flyctl prints nothing and exits with 127."""

    def __init__(self, *, by_signal: bool = False) -> None:
        super().__init__()
        self.by_signal = by_signal


class Response(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """A client that keeps its connections; *log* gets each line that the real one writes to its log file."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._idle: dict[tuple[str, int], tuple[socket.socket, BinaryIO]] = {}

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, deadline: float | None = None
    ) -> Response:
        """
        Send a request and give the answer; 502 and 503 are tried four times, whatever the method.

        Raises a failure where there is no answer, or none before the *deadline* of the monotonic clock.
        """
        self._log(f"--> {method} {url}\n")
        if body:
            self._log(_pretty(body))
        started = time.monotonic()
        response = self._once(method, url, headers, body, deadline)
        for pause_s in _RETRY_PAUSES_S:
            if response.status not in (502, 503):
                break
            time.sleep(pause_s)
            response = self._once(method, url, headers, body, deadline)
        self._log(f"<-- {response.status} {url} ({(time.monotonic() - started) * 1000:.2f}ms)\n")
        if response.body:
            self._log(f"  <-- {url}: {response.body.decode('utf-8', 'replace')}")
        return response

    def send_again(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, deadline: float | None = None
    ) -> Response:
        """Send a request that only reads: a reset connection is tried twice more."""
        for pause_s in _RESET_PAUSES_S:
            try:
                return self.send(method, url, headers, body, deadline=deadline)
            except Failure as failure:
                if not failure.reset:
                    raise
                time.sleep(pause_s)
        return self.send(method, url, headers, body, deadline=deadline)

    def forget(self) -> None:
        """Keep no connection: of an answer that nobody reads, Go does not use the connection again (measured)."""
        for sock, _ in self._idle.values():
            sock.close()
        self._idle.clear()

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes, deadline: float | None) -> Response:
        """Make one attempt; a GET moves on from a kept connection that turns out dead (measured)."""
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        host, _, port = authority.partition(":")
        lines = [f"{method} /{path.replace(' ', '%20')} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        request = "\r\n".join((*lines, "", "")).encode() + body
        key = (host, int(port or "80"))
        if scheme != "http":
            raise Failure(f'{method.capitalize()} "{url}": the stand-in for flyctl speaks plain HTTP only')
        try:
            while True:
                kept = self._idle.pop(key, None)
                connection = kept or self._dial(*key)
                try:
                    return self._exchange(key, connection, request, deadline)
                except _Broken as broken:
                    connection[0].close()
                    if kept is None or method != "GET" or broken.late:
                        raise
        except _Broken as broken:
            text = f'{method.capitalize()} "{url}": {broken}'
            raise Failure(text, reset="reset by peer" in text) from None

    def _dial(self, host: str, port: int) -> tuple[socket.socket, BinaryIO]:
        try:
            address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
        except OSError:
            raise _Broken(f"dial tcp: lookup {host}{_name_server()}: no such host") from None
        try:
            connection = socket.create_connection((str(address[0]), port), timeout=30)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise _Broken(f"dial tcp {address[0]}:{port}: connect: {reason}") from None
        return connection, connection.makefile("rb")

    def _exchange(
        self, key: tuple[str, int], connection: tuple[socket.socket, BinaryIO], request: bytes, deadline: float | None
    ) -> Response:
        """Send *request* and read the answer; keep the connection where the server allows."""
        sock, stream = connection
        sock.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        try:
            sock.sendall(request)
            response = _read(stream)
        except TimeoutError:
            raise _Broken("net/http: request canceled", late=True) from None
        except (ConnectionResetError, BrokenPipeError):
            ends = "->".join("{}:{}".format(*name) for name in (sock.getsockname(), key))
            raise _Broken(f"read tcp {ends}: read: connection reset by peer") from None
        if response.headers.get("connection", "").lower() != "close":
            self._idle[key] = connection
        return response


class _Broken(Exception):
    """There is no answer, or none in time (*late*); the text is Go's."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


def _read(stream: BinaryIO) -> Response:
    """Read one answer, as the simulated Fly sends it: with its length; a body that ends early is given as it is."""
    status_line = stream.readline()
    if not status_line:
        raise _Broken("EOF")
    headers = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Response(int(status_line.split()[1]), headers, body)


def _name_server() -> str:
    """Say which name server was asked, as Go's texts do."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
    except OSError:
        servers = []
    return f" on {servers[0]}:53" if servers else ""


def _pretty(body: bytes) -> str:
    """Give *body* as the real one logs it: JSON indented."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False) + "\n"
    except ValueError:
        return body.decode("utf-8", "replace")


def to_json(data: object) -> bytes:
    """Write *data* as Go's json.Marshal does."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED).encode("utf-8", "replace")


def from_json(body: bytes) -> Any:
    """
    Read the first JSON value of *body*, as Go's decoder does.

    Raises a failure with Go's text (measured: empty, cut off, and HTML).
    """
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise Failure("EOF")
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except ValueError as error:
        at = getattr(error, "pos", 0)
        if text[0] in '{["' and at >= 1:
            raise Failure("unexpected EOF") from None
        raise Failure(f"invalid character {text[0]!r} looking for beginning of value") from None

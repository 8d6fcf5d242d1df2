"""How the stand-in for flyctl speaks to Fly, and what it keeps in its configuration directory."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What is asked of GraphQL, by the part of flyctl's query that tells which it is.
_QUERIES = {
    "appcompact": "query ($appName: String!) { appcompact:app(name: $appName) { id internalNumericId name hostname "
    "cnameTarget deployed network status appUrl platformVersion organization { id internalNumericId slug paidPlan } "
    "postgresAppRole: role { name } } }",
    "viewer": "query { viewer { ... on User { id email enablePaidHobby } ... on Macaroon { email } } }",
    "currentRelease": "query ($appName: String!) { app(name:$appName) { currentRelease:currentReleaseUnprocessed "
    "{ version } } }",
    "FlyctlConfigCurrentRelease": "query FlyctlConfigCurrentRelease ($appName: String!) { app(name: $appName) { "
    "currentReleaseUnprocessed { configDefinition } } }",
    "LatestImage": "query LatestImage ($appName: String!) { app(name: $appName) { currentReleaseUnprocessed "
    "{ id version imageRef } } }",
}


class Failure(Exception):
    """What stands behind `Error: `."""

    @property
    def line(self) -> str:
        """Its first line: an app's own log may come below."""
        return str(self).partition("\n")[0]


class Client:
    """Fly's services at the addresses in the environment, for one call with its *flags* about one *app*."""

    def __init__(self, environ: Mapping[str, str], *, flags: Mapping[str, str], version: str) -> None:
        self.app, self.flags, self.version = flags.get("app", ""), flags, version
        self._environ = environ
        self._directory = environ.get("FLY_CONFIG_DIR") or os.path.join(environ.get("HOME", "."), ".fly")
        self._config = os.path.join(self._directory, "config.yml")

    def machines(self, method: str, path: str, body: object = None, *, failing: str, nonce: str = "") -> Any:
        """Call the Machines API about the app, and give what it answers; what it says instead comes after *failing*."""
        where = f"/v1/apps/{self.app}{path}"
        status, answer = self._send("FLY_FLAPS_BASE_URL", method, where, body, failing=failing, nonce=nonce)
        if status < 300:
            return _decoded(answer, failing)
        said = answer.decode("utf-8", "replace")
        with suppress(ValueError, AttributeError):
            found = json.loads(answer)
            raise Failure(f"{failing}: {found.get('message') or found.get('error', '')}")
        raise Failure(f"{failing}: request returned non-2xx status: {status}: {said}")

    def releases(self, method: str, path: str, body: object = None, *, failing: str) -> Any:
        """Call the releases API, and give what it answers."""
        status, answer = self._send("FLY_UIEX_BASE_URL", method, f"/api/v1/{path}", body, failing=failing)
        if status >= 300:
            raise Failure(f"{failing} (status {status}): {answer.decode('utf-8', 'replace')}")
        return _decoded(answer, failing)

    def graphql(self, what: str, *, failing: str = "") -> Any:
        """Ask GraphQL one of the things that flyctl asks, and give the data."""
        body = {"query": _QUERIES[what], "variables": {"appName": self.app}}
        failing = f"{failing}failed to run {_QUERIES[what]}"
        status, answer = self._send("FLY_API_BASE_URL", "POST", "/graphql", body, failing=failing)
        if status != 200:
            raise Failure(f"{failing}: server returned a non-200 status code: {status}")
        found = _decoded(answer, failing)
        if found.get("errors"):
            raise Failure(f"{failing}: {found['errors'][0]['message']}")
        return found["data"]

    def known_version(self) -> int | None:
        """Give the newest version of the app's secrets that a call with this configuration directory has heard of."""
        return self._known().get(self.app)

    def remember(self, version: int) -> None:
        """Keep the newest version of the app's secrets, as flyctl does, for the calls that come after."""
        known = {**self._known(), self.app: version}
        self.configure("app_secrets_minvers:\n" + "".join(f"    {app}: {number}\n" for app, number in known.items()))

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(text)

    def _known(self) -> dict[str, int]:
        with suppress(OSError), open(self._config, encoding="utf-8") as file:
            return {app: int(number) for app, number in re.findall(r"^    (\S+): (\d+)$", file.read(), re.MULTILINE)}
        return {}

    def _log(self, text: str) -> None:
        """Write values in clear to a file below the configuration directory, as flyctl does (flyctl.md 8)."""
        logs = os.path.join(self._directory, "logs")
        with suppress(OSError):
            os.makedirs(logs, mode=0o700, exist_ok=True)
            with open(os.path.join(logs, "flyctl-stand-in.log"), "a", encoding="utf-8") as file:
                file.write(f"{text}\n")

    def _send(
        self, service: str, method: str, path: str, body: object, *, failing: str, nonce: str = ""
    ) -> tuple[int, bytes]:
        """Send a request to a service of the simulated Fly; the real one is never called. Give status and body."""
        base = self._environ.get(service, "")
        if not base.startswith("http://"):
            raise Failure(f"the stand-in for flyctl does not talk to the real Fly.io: set {service}")
        token = _token(self._environ.get("FLY_API_TOKEN", ""))
        data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        url = base.rstrip("/") + path
        self._log(f"--> {method} {url}\n{data.decode()}")
        headers = {"Authorization": f"{'FlyV1' if token.startswith('fm2_') else 'Bearer'} {token}"}
        headers |= {"User-Agent": f"flyctl/{self.version}"} | ({"fly-machine-lease-nonce": nonce} if nonce else {})
        why, address = "EOF", base.removeprefix("http://").rstrip("/")
        try:
            status, answer = exchanged(method, url, headers, data)
            if status:
                return status, answer
        except socket.gaierror:
            why = f"dial tcp: lookup {address.partition(':')[0]}: no such host"
        except ConnectionRefusedError:
            why = f"dial tcp {address}: connect: connection refused"
        except OSError:
            pass
        raise Failure(f'{failing}: {method.capitalize()} "{url}": {why}')


def exchanged(
    method: str, url: str, headers: Mapping[str, str], data: bytes, *, timeout_s: float | None = None
) -> tuple[int, bytes]:
    """
    Send a request on a connection of its own, and give the answer's status, 0 where the connection was cut, and body.

    Raises:
        OSError: there is no connection, or no answer within *timeout_s*.
    """
    authority, _, path = url.removeprefix("http://").partition("/")
    host, _, port = authority.partition(":")
    lines = [f"{method} /{path} HTTP/1.1", f"Host: {authority}", "Connection: close", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, int(port or "80")), timeout=timeout_s) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode() + data)
        with connection.makefile("rb") as stream:
            head, _, answer = stream.read().partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), answer


def _decoded(answer: bytes, failing: str) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        raise Failure(f"{failing}: failed decoding response: unexpected EOF") from None


def _token(given: str) -> str:
    """Give the token without its scheme; a macaroon that is over stays at home (measured)."""
    token = re.sub(r"^\s*(?i:(bearer|flyv1)\s+)*", "", given).strip()
    if not token:
        raise Failure("no access token available. Please login with 'flyctl auth login'")
    if token.startswith("fm2_"):
        from flysync.sim.macaroon import ends

        return token if ends(token) > time.time() else ""
    return token

"""How the stand-in for flyctl speaks to Fly, what it keeps in its configuration directory, and how it sees machines."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
#: Process groups that are left alone (read: fly-go flaps_machines.go); machines of tests and canaries are not.
_APART = ("fly_app_release_command", "fly_app_console", "release_command")
#: States in which an update restarts a machine (measured; one of another state stays as it is).
_UP = ("started", "starting", "failed")
#: Seconds that it tries to get a lease (read: fly-go flaps/retry.go).
_LEASE_S = 60.0
#: Seconds that a start is watched, unless it is as old (read: internal/machine/leasable_machine.go).
_SMOKE_S = 10.0
_PAUSE_S = 0.2


class Failure(Exception):
    """What stands behind `Error: `; below its first line there may be an app's own log."""


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
        with suppress(ValueError, AttributeError):
            found = json.loads(answer)
            raise Failure(f"{failing}: {found.get('message') or found.get('error', '')}")
        raise Failure(f"{failing}: request returned non-2xx status: {status}: {answer.decode('utf-8', 'replace')}")

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

    def known_versions(self) -> dict[str, int]:
        """Give the newest version of each app's secrets that a call with this configuration directory has heard of."""
        with suppress(OSError), open(self._config, encoding="utf-8") as file:
            return {app: int(number) for app, number in re.findall(r"^    (\S+): (\d+)$", file.read(), re.MULTILINE)}
        return {}

    def remember(self, version: int) -> None:
        """Keep the newest version of the app's secrets, as flyctl does, for the calls that come after."""
        known = {**self.known_versions(), self.app: version}
        self.configure("app_secrets_minvers:\n" + "".join(f"    {app}: {number}\n" for app, number in known.items()))

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(text)

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
        why = "EOF"
        try:
            status, answer = exchanged(method, url, headers, data)
            if status:
                return status, answer
        except ConnectionRefusedError:
            why = f"dial tcp {base.removeprefix('http://').rstrip('/')}: connect: connection refused"
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


def managed_machines(client: Client) -> list[dict[str, Any]]:
    """Give the machines that the commands for secrets count and touch."""
    return [*filter(is_managed, client.machines("GET", "/machines", failing="failed to list VMs even after retries"))]


def is_managed(machine: Mapping[str, Any]) -> bool:
    """Tell whether `fly launch` or `fly deploy` made a machine, and it is there (read: fly-go flaps_machines.go)."""
    told, is_gone = metadata(machine), machine["state"] in ("destroyed", "destroying")
    group = told.get("fly_process_group") or told.get("process_group")
    return told.get("fly_platform_version") == "v2" and not is_gone and group not in _APART


def metadata(machine: Mapping[str, Any]) -> dict[str, str]:
    """Give what a machine's configuration tells of it; one whose host does not answer has no whole one."""
    return (machine.get("config") or machine.get("incomplete_config") or {}).get("metadata") or {}


def leased(client: Client, name: str, *, ttl_s: int) -> str:
    """Get the lease of a machine, and give its nonce; while somebody else has it, it is asked for again."""
    deadline = time.monotonic() + _LEASE_S
    while True:
        try:
            path, failing = f"/machines/{name}/lease?ttl={ttl_s}", f"failed to get lease on VM {name}"
            return str(client.machines("POST", path, failing=failing)["data"]["nonce"])
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


def update(
    client: Client, machine: Mapping[str, Any], release: Mapping[str, Any], nonce: str, *, wait_s: float, **said: str
) -> None:
    """
    Have a machine restarted with the newest secrets, and see that it is up, or fail after *wait_s*.

    One that does not run stays as it is, and has them later.
    """
    ours = {"fly_release_id": release["id"], "fly_release_version": str(release["version"])}
    told = {**metadata(machine), **ours, "fly_flyctl_version": client.version}
    body = {"config": {**machine["config"], "metadata": dict(sorted(told.items()))}, "skip_secrets": False}
    if machine["state"] not in _UP:
        body["skip_launch"] = True
    if version := client.known_versions().get(client.app):
        body["min_secrets_version"] = version
    name = machine["id"]
    client.machines("POST", f"/machines/{name}", body, nonce=nonce, failing=f"failed to update VM {name}")
    if machine["state"] in _UP:
        _see_up(client, machine, wait_s=wait_s, **said)


def _see_up(client: Client, machine: Mapping[str, Any], *, mark: str, label: str, wait_s: float) -> None:
    """See that a machine starts, does not crash, and gets healthy; with `--detach` that it does not crash."""
    name, deadline, waits = machine["id"], time.monotonic() + wait_s, "detach" not in client.flags
    if waits:
        print(f"> {mark}Waiting for {label} to have state: started")
        _see_started(client, name, deadline)
        print(f"> {mark}Machine {label} has state: started")
    print(f"> {mark}Checking that {label} is up and running")
    _see_stay(client, name)
    if waits and machine["config"].get("checks"):
        _see_healthy(client, name, deadline, f"> {mark}Waiting for {label} to become healthy: ")


def _see_started(client: Client, name: str, deadline: float) -> None:
    while (left_s := deadline - time.monotonic()) > 0:
        path = f"/machines/{name}/wait?state=started&timeout={int(max(1, min(left_s, 60)))}"
        with suppress(Failure):
            client.machines("GET", path, failing="")
            return
        time.sleep(_PAUSE_S)
    raise Failure("timeout reached waiting for machine's state to change")


def _see_stay(client: Client, name: str) -> None:
    """See that the app does not crash: for ten seconds, or until its start is as old."""
    deadline = time.monotonic() + _SMOKE_S
    while time.monotonic() < deadline:
        events = _seen(client, name)["events"]
        if _is_crashing(events):
            path = f"apps/{client.app}/logs?instance={name}"
            told = client.releases("GET", path, failing="logs")["data"]
            lines = "".join(f"{one['attributes']['message']}\n" for one in told)
            said = f"moke checks for {name} failed: the app appears to be crashing"
            raise Failure(f"s{said}\nS{said}\n{lines}")
        if events[0]["type"] == "start" and time.time() - events[0]["timestamp"] / 1000 > _SMOKE_S:
            return
        time.sleep(_PAUSE_S)


def _see_healthy(client: Client, name: str, deadline: float, line: str) -> None:
    is_first = True
    while checks := _seen(client, name)["checks"]:
        passing = sum(check["status"] == "passing" for check in checks)
        if is_first or passing == len(checks):
            print(f"{line}{passing}/{len(checks)}\n")
        if passing == len(checks):
            return
        if time.monotonic() > deadline:
            cause = f'failed to get VM {name}: Get "{name}": net/http: request canceled'
            raise Failure(f"timeout reached waiting for health checks to pass for machine {name}: {cause}")
        is_first = False
        time.sleep(_PAUSE_S)


def _is_crashing(events: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the newest exit was not asked for and comes again and again."""
    request = next((event["request"] for event in events if event["type"] == "exit"), None)
    if request is None:
        return False
    ended, again = request["exit_event"], request["restart_count"] > 1
    return bool(not ended["requested_stop"] and ended["exit_code"] and ended["restarting"] and again)


def _seen(client: Client, name: str) -> Any:
    return client.machines("GET", f"/machines/{name}", failing=f"failed to get VM {name}")


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

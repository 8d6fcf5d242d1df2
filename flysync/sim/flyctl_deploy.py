"""
What the stand-in for flyctl does with machines: it finds and starts them, and rolls secrets out to one after the other.

Order of requests, texts and streams are those of flyctl ad0172fac (flyctl.md 3.2, flyctl-transcripts.txt), which does
several machines at a time where there are more than three.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flysync.sim.flyctl_client import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.sim.flyctl_client import Client

#: Process groups that are left alone (read: fly-go flaps_machines.go); machines of tests and canaries are not.
_APART = ("fly_app_release_command", "fly_app_console", "release_command")
#: Seconds that it tries to get a lease (read: fly-go flaps/retry.go).
_LEASE_S = 60.0
#: Seconds that a start is watched, unless it is as old (read: internal/machine/leasable_machine.go).
_SMOKE_S = 10.0
#: Seconds that a machine may take to start, and to be healthy, where its app does not say (read: deploy/machines.go).
_WAIT_S = 300.0
_PAUSE_S = 0.2

_NO_MACHINES = """\
no machines available to deploy
'fly secrets deploy' will only work if the app has been deployed and there are machines available

Try 'fly deploy' first
"""


def list_machines(client: Client, failing: str) -> list[dict[str, Any]]:
    """Give all machines of the app; what Fly says instead comes after *failing*."""
    found: list[dict[str, Any]] = client.machines("GET", "/machines", failing=failing)
    return found


def managed_machines(client: Client) -> list[dict[str, Any]]:
    """Give those that `fly launch` or `fly deploy` made; one whose host does not answer has no whole configuration."""
    return [one for one in list_machines(client, "failed to list VMs even after retries") if is_managed(one)]


def is_managed(machine: Mapping[str, Any]) -> bool:
    """Tell whether the commands for secrets count and touch a machine (read: fly-go flaps_machines.go)."""
    metadata = (machine.get("config") or machine.get("incomplete_config") or {}).get("metadata") or {}
    return (
        metadata.get("fly_platform_version") == "v2"
        and machine["state"] not in ("destroyed", "destroying")
        and (metadata.get("fly_process_group") or metadata.get("process_group")) not in _APART
    )


def start(client: Client, names: Sequence[str]) -> None:
    """Start machines, under a lease of each; how they fare then is not looked at."""
    for name in names:
        client.machines("GET", f"/machines/{name}", failing=f"could not get machine {name}: failed to get VM {name}")
    for name in names:
        nonce = _leased(client, name, ttl_s=120)
        failing = f"could not start machine {name}: failed to start VM {name}"
        try:
            client.machines("POST", f"/machines/{name}/start", nonce=nonce, failing=failing)
        finally:
            client.machines("DELETE", f"/machines/{name}/lease", nonce=nonce, failing="failed to release lease")
        _say(f"{name} has been started")


def deploy(client: Client, _: Sequence[str]) -> None:
    """Roll out what is stored."""
    app = client.graphql("appcompact")["appcompact"]
    if not managed_machines(client) or not app["deployed"]:
        raise Failure(_NO_MACHINES)
    roll_out(client, app)


def roll_out(client: Client, app: Mapping[str, Any]) -> None:
    """
    Restart the machines with the newest secrets that the configuration directory knows of.

    The first machine that does not come up ends it, and the others are left as they are.
    """
    if not managed_machines(client) and not app["deployed"]:
        _say("Secrets are staged for the first deployment")
        return
    definition = client.graphql("FlyctlConfigCurrentRelease")["app"]["currentReleaseUnprocessed"]["configDefinition"]
    client.machines("GET", "", failing="error getting app")
    machines = sorted(managed_machines(client), key=lambda one: (one["state"] == "started", one["id"]))
    image = client.graphql("LatestImage")["app"]["currentReleaseUnprocessed"]["imageRef"]
    made = {"app_name": client.app, "build_id": 0, "definition": definition, "image": image, "strategy": "ROLLING"}
    release = client.releases("POST", "releases", made, failing="failed to create release")["release"]
    rollout = _Rollout(client, definition, release)
    rollout.tell("running", None)
    try:
        rollout.run(machines)
    except Failure as failure:
        rollout.end("failed", error=failure.line)
        raise
    rollout.end("complete")
    if os.environ.get("FLY_EMIT_RELEASE_JSON"):
        told = {"id": release["id"], "version": release["version"], "image_ref": image}
        _say(json.dumps(told, separators=(",", ":")))


class _Rollout:
    """A release on its way to the machines."""

    def __init__(self, client: Client, definition: Mapping[str, Any], release: Mapping[str, Any]) -> None:
        self._client, self._release = client, release
        given = re.fullmatch(r"([0-9.]+)(m?)s?", str((definition.get("deploy") or {}).get("wait_timeout", "")))
        #: Seconds that a machine may take.
        self._wait_s = float(given[1]) * (60 if given[2] else 1) if given else _WAIT_S
        self._waits = "detach" not in client.flags

    def tell(self, status: str, metadata: object) -> None:
        """Say how the release is doing."""
        body = {"metadata": metadata, "status": status}
        failing = f"failed to set release status to '{status}': failed to update release"
        self._client.releases("PATCH", f"releases/{self._release['id']}", body, failing=failing)

    def end(self, status: str, *, error: str = "") -> None:
        """Say how it ended; where that fails it is only a warning."""
        with suppress(Failure):
            self.tell(status, {"post_deployment_info": {"flyctl_version": self._client.version, "error": error}})

    def run(self, machines: Sequence[dict[str, Any]]) -> None:
        """Lease all machines and update each."""
        nonces: dict[str, str] = {}
        try:
            for machine in machines:
                nonces[machine["id"]] = _leased(self._client, machine["id"], ttl_s=13)
            _say(f"Updating existing machines in '{self._client.app}' with rolling strategy")
            for number, machine in enumerate(machines, 1):
                mark = f"[{number}/{len(machines)}] " if len(machines) > 1 else ""
                group = machine["config"]["metadata"].get("fly_process_group", "app")
                self._update(machine, nonces[machine["id"]], mark=mark, label=f"{machine['id']} [{group}]")
        finally:
            for name, nonce in nonces.items():
                with suppress(Failure):
                    self._client.machines("DELETE", f"/machines/{name}/lease", nonce=nonce, failing="")

    def _update(self, machine: Mapping[str, Any], nonce: str, *, mark: str, label: str) -> None:
        name, config = machine["id"], machine["config"]
        _say(f"> {mark}Updating {label}\n> {mark}Updating {label}")
        release = {"fly_release_id": self._release["id"], "fly_release_version": str(self._release["version"])}
        metadata = {**config["metadata"], **release, "fly_flyctl_version": self._client.version}
        body = {"config": {**config, "metadata": dict(sorted(metadata.items()))}, "skip_secrets": False}
        if stays := machine["state"] not in ("started", "starting", "failed"):
            body["skip_launch"] = True
        if (version := self._client.known_version()) is not None:
            body["min_secrets_version"] = version
        try:
            path, failing = f"/machines/{name}", f"failed to update VM {name}"
            updated = self._client.machines("POST", path, body, nonce=nonce, failing=failing)
            if not stays:
                self._see_up(updated, mark=mark, label=label)
        except Failure as failure:
            _say(f"✖ {mark}Machine {label} update failed: {failure.line}")
            raise
        _say(f"✔ {mark}Machine {label} update succeeded")

    def _see_up(self, machine: Mapping[str, Any], *, mark: str, label: str) -> None:
        name, deadline = machine["id"], time.monotonic() + self._wait_s
        if self._waits:
            _say(f"> {mark}Waiting for {label} to have state: started")
            self._see_started(name, deadline)
            _say(f"> {mark}Machine {label} has state: started")
        _say(f"> {mark}Checking that {label} is up and running")
        self._see_stay(name)
        if self._waits and machine["config"].get("checks"):
            self._see_healthy(name, deadline, f"> {mark}Waiting for {label} to become healthy: ")

    def _see_healthy(self, name: str, deadline: float, line: str) -> None:
        is_first = True
        while checks := self._seen(name)["checks"]:
            passing = sum(1 for check in checks if check["status"] == "passing")
            if is_first or passing == len(checks):
                _say(f"{line}{passing}/{len(checks)}\n")
            if passing == len(checks):
                return
            if time.monotonic() > deadline:
                cause = f'failed to get VM {name}: Get "{name}": net/http: request canceled'
                raise Failure(f"timeout reached waiting for health checks to pass for machine {name}: {cause}")
            is_first = False
            time.sleep(_PAUSE_S)

    def _see_started(self, name: str, deadline: float) -> None:
        while (left_s := deadline - time.monotonic()) > 0:
            path = f"/machines/{name}/wait?state=started&timeout={int(max(1, min(left_s, 60)))}"
            with suppress(Failure):
                self._client.machines("GET", path, failing="")
                return
            time.sleep(_PAUSE_S)
        raise Failure("timeout reached waiting for machine's state to change")

    def _see_stay(self, name: str) -> None:
        """See that the app does not crash: for ten seconds, or until its start is as old."""
        deadline = time.monotonic() + _SMOKE_S
        while time.monotonic() < deadline:
            events = self._seen(name)["events"]
            if _is_crashing(events):
                where = f"{self._client.app}/logs?instance={name}"
                told = self._client.releases("GET", f"apps/{where}", failing="logs")["data"]
                lines = "".join(f"{one['attributes']['message']}\n" for one in told)
                said = f"moke checks for {name} failed: the app appears to be crashing"
                raise Failure(f"s{said}\nS{said}\n{lines}")
            if time.time() - _started_at(events) > _SMOKE_S:
                return
            time.sleep(_PAUSE_S)

    def _seen(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.machines("GET", f"/machines/{name}", failing=f"failed to get VM {name}")
        return found


def _leased(client: Client, name: str, *, ttl_s: int) -> str:
    """Get the lease of a machine, and give its nonce; while somebody else has it, it is asked for again."""
    deadline = time.monotonic() + _LEASE_S
    while True:
        try:
            failing = f"failed to get lease on VM {name}"
            lease = client.machines("POST", f"/machines/{name}/lease?ttl={ttl_s}", failing=failing)["data"]
            return str(lease["nonce"])
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


def _started_at(events: Sequence[Mapping[str, Any]]) -> float:
    """Give when a machine started after its launch; now, where events (newest first) do not tell, or it ended."""
    types = [event["type"] for event in events]
    since = types[: types.index("launch")] if "launch" in types else []
    if "start" not in since or "exit" in since:
        return time.time()
    return float(events[since.index("start")]["timestamp"]) / 1000


def _is_crashing(events: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the newest exit was not asked for and comes again and again."""
    for event in events:
        if event["type"] == "exit":
            request, ended = event["request"], event["request"]["exit_event"]
            is_own = not ended["requested_stop"] and bool(ended["exit_code"])
            return is_own and ended["restarting"] and request["restart_count"] > 1
    return False


def _say(line: str) -> None:
    print(line, flush=True)

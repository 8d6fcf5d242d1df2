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
#: States in which an update restarts a machine (measured; one of another state stays as it is).
_UP = ("started", "starting", "failed")
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
    _tell(client, release, "running", None)
    info = {"flyctl_version": client.version, "error": ""}
    try:
        _update_all(client, machines, release, wait_s=_wait_s(definition))
    except Failure as failure:
        with suppress(Failure):  # only a warning
            _tell(client, release, "failed", {"post_deployment_info": {**info, "error": failure.line}})
        raise
    with suppress(Failure):
        _tell(client, release, "complete", {"post_deployment_info": info})
    if os.environ.get("FLY_EMIT_RELEASE_JSON"):
        told = {"id": release["id"], "version": release["version"], "image_ref": image}
        _say(json.dumps(told, separators=(",", ":")))


def _tell(client: Client, release: Mapping[str, Any], status: str, told: object) -> None:
    """Say how a release is doing."""
    failing = f"failed to set release status to '{status}': failed to update release"
    client.releases("PATCH", f"releases/{release['id']}", {"metadata": told, "status": status}, failing=failing)


def _wait_s(definition: Mapping[str, Any]) -> float:
    """Give the seconds that a machine may take."""
    given = re.fullmatch(r"([0-9.]+)(m?)s?", str((definition.get("deploy") or {}).get("wait_timeout", "")))
    return float(given[1]) * (60 if given[2] else 1) if given else _WAIT_S


def _update_all(
    client: Client, machines: Sequence[dict[str, Any]], release: Mapping[str, Any], *, wait_s: float
) -> None:
    """Lease all machines, and update one after the other."""
    nonces: dict[str, str] = {}
    try:
        for machine in machines:
            nonces[machine["id"]] = _leased(client, machine["id"], ttl_s=13)
        _say(f"Updating existing machines in '{client.app}' with rolling strategy")
        for number, machine in enumerate(machines, 1):
            mark = f"[{number}/{len(machines)}] " if len(machines) > 1 else ""
            label = f"{machine['id']} [{metadata(machine).get('fly_process_group', 'app')}]"
            _say(f"> {mark}Updating {label}\n> {mark}Updating {label}")
            try:
                _update(client, machine, release, nonces[machine["id"]])
                if machine["state"] in _UP:
                    _see_up(client, machine, mark=mark, label=label, wait_s=wait_s)
            except Failure as failure:
                _say(f"✖ {mark}Machine {label} update failed: {failure.line}")
                raise
            _say(f"✔ {mark}Machine {label} update succeeded")
    finally:
        for name, nonce in nonces.items():
            with suppress(Failure):
                client.machines("DELETE", f"/machines/{name}/lease", nonce=nonce, failing="")


def _update(client: Client, machine: Mapping[str, Any], release: Mapping[str, Any], nonce: str) -> None:
    """Have a machine restarted with the newest secrets; one that does not run stays as it is, and has them later."""
    ours = {"fly_release_id": release["id"], "fly_release_version": str(release["version"])}
    told = {**metadata(machine), **ours, "fly_flyctl_version": client.version}
    body = {"config": {**machine["config"], "metadata": dict(sorted(told.items()))}, "skip_secrets": False}
    if machine["state"] not in _UP:
        body["skip_launch"] = True
    if (version := client.known_version()) is not None:
        body["min_secrets_version"] = version
    name = machine["id"]
    client.machines("POST", f"/machines/{name}", body, nonce=nonce, failing=f"failed to update VM {name}")


def _see_up(client: Client, machine: Mapping[str, Any], *, mark: str, label: str, wait_s: float) -> None:
    """See that a machine starts, does not crash, and gets healthy; with `--detach` that it does not crash."""
    name, deadline, waits = machine["id"], time.monotonic() + wait_s, "detach" not in client.flags
    if waits:
        _say(f"> {mark}Waiting for {label} to have state: started")
        _see_started(client, name, deadline)
        _say(f"> {mark}Machine {label} has state: started")
    _say(f"> {mark}Checking that {label} is up and running")
    _see_stay(client, name)
    if waits and machine["config"].get("checks"):
        _see_healthy(client, name, deadline, f"> {mark}Waiting for {label} to become healthy: ")


def _see_healthy(client: Client, name: str, deadline: float, line: str) -> None:
    is_first = True
    while checks := _seen(client, name)["checks"]:
        passing = sum(check["status"] == "passing" for check in checks)
        if is_first or passing == len(checks):
            _say(f"{line}{passing}/{len(checks)}\n")
        if passing == len(checks):
            return
        if time.monotonic() > deadline:
            cause = f'failed to get VM {name}: Get "{name}": net/http: request canceled'
            raise Failure(f"timeout reached waiting for health checks to pass for machine {name}: {cause}")
        is_first = False
        time.sleep(_PAUSE_S)


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


def _seen(client: Client, name: str) -> Any:
    return client.machines("GET", f"/machines/{name}", failing=f"failed to get VM {name}")


def _leased(client: Client, name: str, *, ttl_s: int) -> str:
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


def _is_crashing(events: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the newest exit was not asked for and comes again and again."""
    request = next((event["request"] for event in events if event["type"] == "exit"), None)
    if request is None:
        return False
    ended, again = request["exit_event"], request["restart_count"] > 1
    return bool(not ended["requested_stop"] and ended["exit_code"] and ended["restarting"] and again)


def _say(line: str) -> None:
    print(line, flush=True)

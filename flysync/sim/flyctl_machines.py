"""
The stand-in's `machine list` and `machine start`, and what all its commands do with machines: find them, lease them.

Order of requests, texts and streams are those of flyctl ad0172fac (measured), unless a comment says read.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from flysync.sim.flyctl_http import Cancelled, Failure, Prefixed

if TYPE_CHECKING:
    from flysync.sim.flyctl_session import Session

#: Process groups that are left alone (read: fly-go flaps_machines.go); machines of tests and canaries are not.
_APART = ("fly_app_release_command", "fly_app_console", "release_command")


def managed_machines(session: Session, app: str) -> list[dict[str, Any]]:
    """
    Give the machines of *app* that `fly launch` or `fly deploy` made.

    An app that is not there is asked for again for some seconds (read: fly-go flaps_machines.go).
    """
    pauses_s = [0.5, 0.75, 1.1, 1.7]
    while True:
        try:
            return [machine for machine in session.api.machines("GET", f"/apps/{app}/machines") if _is_managed(machine)]
        except Failure as failure:
            if failure.status != 404 or not pauses_s:
                raise failure.wrapped("failed to list VMs even after retries: ") from None
            session.sleep(pauses_s.pop(0))


def list_machines(session: Session) -> None:
    """Print all machines; as a table the real one says more of them."""
    app = session.app()
    with Prefixed("failed to list VMs: "):
        machines = session.api.machines("GET", f"/apps/{app}/machines")
    if session.json:
        session.out(json.dumps([shown(machine) for machine in machines], indent=4, ensure_ascii=False))
        return
    for machine in machines:
        session.out(f" {machine['id']} " if session.call.is_on("quiet") else f" {machine['id']} │ {machine['state']} ")
    session.out("")


def start_machines(session: Session) -> None:
    """Start the machines named in the arguments, under a lease of each; how they fare then is not looked at."""
    names = session.call.arguments
    app = session.app()
    if not names:
        raise Failure("a machine ID must be specified when not running interactively")
    machines = [_get(session, app, name) for name in names]
    nonces: dict[str, str] = {}
    try:
        for machine in machines:
            if machine.get("host_status") == "ok":
                nonces[machine["id"]] = _lease(session, app, machine)
        for machine in machines:
            _start(session, app, machine["id"], nonces.get(machine["id"], ""))
    except Cancelled:
        for name in nonces:
            session.out(f"Releasing lease for machine {name}...")
        raise
    finally:
        for name, nonce in nonces.items():
            try:
                session.api.machines("DELETE", f"/apps/{app}/machines/{name}/lease", nonce=nonce)
            except Failure as failure:
                if "lease not found" not in failure.text:
                    session.out(f"failed to release lease for machine {name}: {failure.text}")


def take_lease(session: Session, app: str, machine_id: str, *, ttl_s: int, say_after_s: float = 0.0) -> dict[str, Any]:
    """
    Get the lease of a machine; any refusal is tried again for a minute (read: fly-go flaps_machines.go).

    Where that takes longer than *say_after_s* it says so once.
    """
    began = time.monotonic()
    said = not say_after_s
    pause_s = 0.1
    while True:
        try:
            path = f"/apps/{app}/machines/{machine_id}/lease?ttl={ttl_s}"
            lease: dict[str, Any] = session.api.machines("POST", path)["data"]
            return lease
        except Failure as failure:
            waited_s = time.monotonic() - began
            if waited_s + pause_s > session.patience.lease_patience_s:
                raise failure.wrapped(f"failed to get lease on VM {machine_id}: ") from None
        if not said and waited_s + pause_s > say_after_s:
            said = True
            session.out(f"Waiting on lease for machine {machine_id}...")
        session.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.5)


def _is_managed(machine: dict[str, Any]) -> bool:
    """Tell whether it is a secrets command's business; an unreachable one says so in its incomplete config (read)."""
    metadata = (machine.get("config") or machine.get("incomplete_config") or {}).get("metadata") or {}
    return (
        metadata.get("fly_platform_version") == "v2"
        and machine.get("state") not in ("destroyed", "destroying")
        and (metadata.get("fly_process_group") or metadata.get("process_group")) not in _APART
    )


def _get(session: Session, app: str, name: str) -> dict[str, Any]:
    try:
        machine: dict[str, Any] = session.api.machines("GET", f"/apps/{app}/machines/{name}")
    except Failure as failure:
        raise _unless_missing(failure, app, name, f"could not get machine {name}: failed to get VM {name}: ") from None
    return machine


def _lease(session: Session, app: str, machine: dict[str, Any]) -> str:
    """Lease a machine, and look at it again where it was updated meanwhile (read: internal/machine/lease.go)."""
    with Prefixed("failed to obtain lease: "):
        lease = take_lease(session, app, machine["id"], ttl_s=120, say_after_s=2.0)
    if lease.get("version") != machine.get("instance_id"):
        _get(session, app, machine["id"])
    return str(lease["nonce"])


def _start(session: Session, app: str, name: str, nonce: str) -> None:
    try:
        answer = session.api.machines("POST", f"/apps/{app}/machines/{name}/start", nonce=nonce)
    except Failure as failure:
        if " for machine" in failure.text:
            raise Failure(
                f"could not start machine due to lack of capacity. Try 'flyctl machine clone {name} -a {app}'"
            ) from None
        prefix = f"could not start machine {name}: failed to start VM {name}: "
        raise _unless_missing(failure, app, name, prefix) from None
    if answer.get("status") == "error":
        raise Failure(f"machine could not be started: {answer.get('message', '')}")
    session.out(f"{name} has been started")


def _unless_missing(failure: Failure, app: str, name: str, prefix: str) -> Failure:
    is_missing = "machine not found" in failure.text
    return Failure(f"machine {name} was not found in app '{app}'") if is_missing else failure.wrapped(prefix)


def shown(machine: dict[str, Any]) -> dict[str, Any]:
    """Give a machine as `--json` shows it: what is false, 0 or empty is left out, but in its config (measured)."""
    filled = {key: value if key.endswith("config") else _filled(value) for key, value in machine.items() if value}
    return {"cordoned": False, **filled}


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value

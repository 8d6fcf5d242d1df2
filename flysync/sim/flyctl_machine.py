"""
The stand-in's update of one machine, and how it waits until that machine is up.

Steps, texts and times are those of flyctl ad0172fac internal/machine/leasable_machine.go (read; measured).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flysync.sim.flyctl_http import Cancelled, Failure, Prefixed, from_json

if TYPE_CHECKING:
    from flysync.sim.flyctl_session import Session

_NEVER_STARTED = """\
Your machine was created, but never started or exited immediately. \
This could mean that your app is taking a long time to start,
but it could be indicative of a region issue.

Alternatively, your app may have exited immediately due to a startup failure. Check your Dockerfile
to ensure it specifies a valid start command (e.g., check that your 'CMD' or 'ENTRYPOINT' is correct).
You can also try running 'fly logs' to see what happened when the machine tried to start."""
_OTHER_REGION = """\
You can try deploying to a different region,
or you can try increasing the timeout with the --wait-timeout flag"""


class Target:
    """A machine that is to be updated, and what its lines begin with."""

    __slots__ = ("group", "id", "is_cold", "label", "machine", "mark", "nonce")

    def __init__(self, machine: dict[str, Any]) -> None:
        self.machine = machine
        self.id = str(machine["id"])
        self.group = machine["config"].get("metadata", {}).get("fly_process_group") or "app"
        self.label = f"{self.id} [{self.group}]"
        #: Whether it does not run.
        self.is_cold = machine.get("state") != "started"
        self.mark = ""
        self.nonce = ""

    def log(self, session: Session, glyph: str, text: str) -> None:
        """Print a line about it."""
        session.out(f"{glyph} {self.mark}{text}")


class MachineUpdate:
    """How one machine after the other gets a new release: *wait_s* is what each may take to start."""

    def __init__(
        self, session: Session, app: str, release: dict[str, Any], *, definition: dict[str, Any], wait_s: float
    ) -> None:
        self._session = session
        self._api = session.api
        self._app = app
        self._release = release
        self._definition = definition
        self._wait_s = wait_s
        self._looked_for_listeners: set[str] = set()

    def run(self, target: Target) -> None:
        """Update *target* and wait until it is up; raises a failure where it does not come up."""
        for _ in range(2):
            target.log(self._session, ">", f"Updating {target.label}")
        skip_launch = target.machine.get("state") not in ("started", "starting", "failed")
        self._update(target, skip_launch=skip_launch)
        if skip_launch:
            return
        try:
            self._wait(target, patient=not self._session.call.is_on("detach"))
        except Cancelled:
            self._session.err("")  # the real one ends the terminal's line where it waits (measured)
            raise

    def _wait(self, target: Target, *, patient: bool) -> None:
        if patient:
            self._wait_until_started(target)
        try:
            self._smoke_check(target)
        except Failure as failure:
            raise self._with_app_log(target, failure) from None
        if patient:
            self._wait_until_healthy(target)
        self._look_for_listeners(target)

    def _path(self, target: Target, rest: str = "") -> str:
        return f"/apps/{self._app}/machines/{target.id}{rest}"

    def _update(self, target: Target, *, skip_launch: bool) -> None:
        config = dict(target.machine["config"])
        metadata = {
            "fly_platform_version": "v2",
            "fly_process_group": target.group,
            **{key: value for key, value in config.get("metadata", {}).items() if value},
            "fly_flyctl_version": self._session.version,
            "fly_release_id": self._release["id"],
            "fly_release_version": str(self._release["version"]),
        }
        config["metadata"] = dict(sorted(metadata.items()))
        body = {"config": config, "region": target.machine.get("region", "")}
        if skip_launch:
            body["skip_launch"] = True
        body["skip_secrets"] = False
        least = self._session.home.minvers().get(self._app)
        if least is not None:
            body["min_secrets_version"] = least
        with Prefixed(f"failed to update VM {target.id}: "):
            target.machine = self._api.machines("POST", self._path(target), body, nonce=target.nonce)

    def _wait_until_started(self, target: Target) -> None:
        deadline = time.monotonic() + self._wait_s
        target.log(self._session, ">", f"Waiting for {target.label} to have state: started")
        timeout_s = int(max(1, min(self._wait_s, 60)))
        pause_s = 0.5
        while True:
            try:
                path = self._path(target, f"/wait?state=started&timeout={timeout_s}")
                self._api.machines("GET", path, deadline=deadline)
                break
            except Failure:
                self._session.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
                pause_s = min(pause_s * 2, 2.0)
            if time.monotonic() >= deadline:
                raise Failure(
                    "timeout reached waiting for machine's state to change",
                    description=_NEVER_STARTED,
                    suggestion=_OTHER_REGION,
                ) from None
        target.log(self._session, ">", f"Machine {target.label} has state: started")

    def _smoke_check(self, target: Target) -> None:
        """See that the app does not crash: for ten seconds, or until its start is as old."""
        patience_s = self._session.patience.smoke_s
        deadline = time.monotonic() + patience_s
        target.log(self._session, ">", f"Checking that {target.label} is up and running")
        pause_s = 0.5
        while time.monotonic() < deadline:
            machine = self._get(target, deadline)
            crashing = _is_crashing(machine)
            if not crashing and time.time() - _started_at(machine) > patience_s:
                return
            if crashing:
                raise Failure("the app appears to be crashing")
            self._session.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
            pause_s = min(pause_s * 2, 2.0)

    def _wait_until_healthy(self, target: Target) -> None:
        config = target.machine["config"]
        checks = len(config.get("checks") or {}) + sum(len(s.get("checks") or []) for s in config.get("services") or [])
        if not checks:
            return
        deadline = time.monotonic() + self._wait_s
        said = False
        while True:
            if time.monotonic() >= deadline:
                raise self._unhealthy(target)
            found = self._get(target, deadline).get("checks") or []
            passing = sum(1 for check in found if check.get("status") == "passing")
            healthy = bool(found) and passing == len(found)
            if healthy or not said:
                said = True
                text = f"Waiting for {target.label} to become healthy: {passing}/{len(found)}\n"
                target.log(self._session, ">", text)
            if healthy:
                return
            self._session.sleep(max(0.0, min(1.0, deadline - time.monotonic())))

    def _unhealthy(self, target: Target) -> Failure:
        base = "/".join(self._session.environ["FLY_FLAPS_BASE_URL"].split("/", 3)[:3])
        cause = f'Get "{base}/v1{self._path(target)}": net/http: request canceled'
        return Failure(
            f"timeout reached waiting for health checks to pass for machine {target.id}: "
            f"failed to get VM {target.id}: {cause}"
        )

    def _look_for_listeners(self, target: Target) -> None:
        """Ask once for each group with services what listens; the stand-in makes nothing of it."""
        has_services = self._definition.get("http_service") or self._definition.get("services")
        if has_services and target.group not in self._looked_for_listeners:
            self._looked_for_listeners.add(target.group)
            try:
                self._api.machines("GET", self._path(target, "/ps"))
            except Failure:
                return

    def _get(self, target: Target, deadline: float) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._api.machines("GET", self._path(target), deadline=deadline)
        except Failure as failure:
            prefix = f"error getting machine {target.id} from api: failed to get VM {target.id}: "
            raise failure.wrapped(prefix) from None
        return found

    def _with_app_log(self, target: Target, failure: Failure) -> Failure:
        """Give *failure* as a failed smoke check, with the app's own last lines below it."""
        app, machine_id = self._app, target.id
        region = self._definition.get("primary_region", "")
        hint = (
            f"Use `fly logs -i {machine_id}` or open the monitoring dashboard to see them: "
            f"https://fly.io/apps/{app}/monitoring?region=&instance={machine_id}"
        )
        try:
            response = self._api.app_log(app, machine_id, region)
            status = response.status
            entries = from_json(response.body)["data"] if status == 200 else []
        except Failure:
            status, entries = 0, []
        since = target.machine.get("updated_at", "")
        lines = [e["attributes"]["message"] for e in entries if e["attributes"]["timestamp"] >= since]
        if status == 401:
            self._session.err(
                "Warn: not authorized to retrieve app logs (this can happen when using deploy tokens), "
                f"so we can't show you what failed. {hint}"
            )
            lines = ["<not authorized to retrieve logs>"]
        elif status != 200:
            self._session.err(f"Warn: got an error retrieving the logs so we can't show you what failed. {hint}")
            lines = [f"<error fetching logs, try `fly logs -i {machine_id}>"]
        text = f"moke checks for {machine_id} failed: {failure.text}"
        where = f"Check its logs: here's the last lines below, or run 'fly logs -i {machine_id}':"
        ended = "\n" if status == 200 else ""
        return Failure(f"s{text}", suggestion=f"S{text}\n{where}\n" + "\n".join(lines) + (ended if lines else ""))


def _started_at(machine: dict[str, Any]) -> float:
    """Give when the machine started after its launch; now, where events (newest first) do not tell, or it ended."""
    types = [str(event.get("type")) for event in machine.get("events") or []]
    since = types[: types.index("launch")] if "launch" in types else []
    if "start" not in since or "exit" in since:
        return time.time()
    return float(machine["events"][since.index("start")]["timestamp"]) / 1000


def _is_crashing(machine: dict[str, Any]) -> bool:
    """Tell whether the newest exit was not asked for and comes again and again."""
    for event in machine.get("events") or []:
        if event.get("type") == "exit":
            request = event.get("request") or {}
            ended = request.get("exit_event") or {}
            return bool(
                not ended.get("requested_stop")
                and ended.get("restarting")
                and request.get("restart_count", 0) > 1
                and ended.get("exit_code")
            )
    return False

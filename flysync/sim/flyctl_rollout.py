"""
The stand-in's roll-out: a release, a lease of each machine, then one machine after the other.

Steps, texts and streams are those of flyctl ad0172fac (flyctl.md 3.2; flyctl-transcripts.txt; what goes wrong was
measured too). Unlike the real one it does one thing at a time, so with four machines or more the lines of two of them
never mix, and it does not refresh leases.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from flysync.sim.flyctl_http import Cancelled, Failure, Prefixed, from_json
from flysync.sim.flyctl_machine import MachineUpdate, Target
from flysync.sim.flyctl_machines import managed_machines, take_lease

if TYPE_CHECKING:
    from flysync.sim.flyctl_session import Session

#: What part of a group's running machines is updated at a time.
_MAX_UNAVAILABLE = 0.33
_OOPS = "\x1b[31mOops, something went wrong! Could you try that again?\x1b[0m"
#: Pauses between the three attempts to say how a release is doing.
_RELEASE_PAUSES_S = (0.5, 1.0)


class Rollout:
    """Restart the machines of *app* with the newest secrets that this configuration directory knows of."""

    def __init__(self, session: Session, app: str) -> None:
        self._session = session
        self._api = session.api
        self._app = app
        self._targets: list[Target] = []
        self._release: dict[str, Any] = {}

    def run(self) -> None:
        """Do all of it; raises a failure, or `Cancelled`, after saying so to the release."""
        definition = self._definition()
        with Prefixed("error getting app: "):
            self._api.machines("GET", f"/apps/{self._app}")
        wait_s = _wait_timeout(self._session, definition)
        machines = managed_machines(self._session, self._app)
        if not machines:
            self._look_for_others()
        image = self._image(machines)
        self._create_release(definition, image)
        with Prefixed("failed to set release status to 'running': "):
            self._set_status("running", None)
        if not all(machine.get("config") for machine in machines):
            # Then the real one falls over its own feet (measured); the release is `running` for ever.
            self._session.out(f"{_OOPS}\n\nruntime error: invalid memory address or nil pointer dereference\n")
            raise SystemExit(3)
        problem = self._update_all(machines, definition, wait_s)
        self._close_release(problem)
        if problem is not None:
            raise problem
        self._check_dns(definition)
        if self._session.environ.get("FLY_EMIT_RELEASE_JSON"):
            release = self._release
            self._session.out(f'{{"id":"{release["id"]}","version":{release["version"]},"image_ref":"{image}"}}')

    def _definition(self) -> dict[str, Any]:
        """Give the app's configuration: the release's, else one made up from its machines."""
        definition = self._api.current_release(self._app, "FlyctlConfigCurrentRelease").get("configDefinition")
        if definition is not None:
            return {**definition, "app": self._app}
        with Prefixed("error loading appv2 config: error listing active machines: "):
            active = self._api.machines("GET", f"/apps/{self._app}/machines")
        if not active:
            raise Failure(
                "error loading appv2 config: failed to grab app config from existing machines, error: "
                "could not create a fly.toml from any machines :-(\nNo machines configured for this app"
            )
        return {"app": self._app, "metrics": [{}]}

    def _look_for_others(self) -> None:
        if self._api.machines("GET", f"/apps/{self._app}/machines"):
            self._session.err(
                "\x1b[33m[WARNING]\x1b[0m Your app doesn't have any Fly Launch machines, so we'll create one now. "
                "Learn more at \nhttps://fly.io/docs/launch/\n"
            )

    def _image(self, machines: list[dict[str, Any]]) -> str:
        image = self._api.current_release(self._app, "LatestImage").get("imageRef")
        if not image and machines:
            image = machines[0]["config"].get("image")
        if not image:
            raise Failure(
                "could not find image to use for deployment; "
                f"backend error was: current release not found for app {self._app}"
            )
        return str(image)

    def _create_release(self, definition: dict[str, Any], image: str) -> None:
        body = {
            "app_name": self._app,
            "build_id": 0,
            "definition": definition,
            "image": image,
            "strategy": "ROLLING",
        }
        response = self._api.releases("POST", "/api/v1/releases", body)
        if response.status not in (200, 201):
            text = response.body.decode("utf-8", "replace")
            raise Failure(f"failed to create release (status {response.status}): {text}")
        self._release = from_json(response.body)["release"]

    def _set_status(self, status: str, metadata: object) -> None:
        """Say how the release is doing; tried three times where that may help."""
        for pause_s in (*_RELEASE_PAUSES_S, None):
            try:
                body = {"metadata": metadata, "status": status}
                response = self._api.releases("PATCH", f"/api/v1/releases/{self._release['id']}", body)
                if response.status == 200:
                    _decoded(response.body)
                    return
                text = response.body.decode("utf-8", "replace")
                problem = Failure(
                    f"failed to update release (status {response.status}): {text}", status=response.status
                )
            except Failure as failure:
                problem = failure
            if pause_s is None or 0 < problem.status < 500:
                raise problem
            self._session.sleep(pause_s)

    def _close_release(self, problem: Failure | Cancelled | None) -> None:
        """Say how it ended; that this fails is only a warning."""
        status = {Failure: "failed", Cancelled: "interrupted"}.get(type(problem), "complete")
        error = problem.text if isinstance(problem, Failure) else ""
        info = {"flyctl_version": self._session.version, "error": error}
        try:
            self._set_status(status, {"post_deployment_info": info})
        except Failure as failure:
            when = "successful deployment" if problem is None else "deployment failure"
            self._session.warn(f"failed to set final release status after {when}: {failure.text}\n")

    def _update_all(
        self, machines: list[dict[str, Any]], definition: dict[str, Any], wait_s: float
    ) -> Failure | Cancelled | None:
        """Lease and update all machines, and give what went wrong."""
        if not machines:
            return None
        self._targets = _numbered(machines)
        try:
            self._lease_all()
        except (Failure, Cancelled) as refused:
            said = refused.text if isinstance(refused, Failure) else "context canceled"
            self._session.warn(f"failed to acquire lease: {said}\n")
            self._release_leases(refused)
            return refused
        self._session.out(f"Updating existing machines in '{self._app}' with rolling strategy")
        update = MachineUpdate(self._session, self._app, self._release, definition=definition, wait_s=wait_s)
        problem: Failure | Cancelled | None = None
        for batch in _batches(self._targets):
            if problem is None:
                problem = self._update_batch(update, batch)
        self._release_leases(problem)
        return problem

    def _update_batch(self, update: MachineUpdate, batch: list[Target]) -> Failure | Cancelled | None:
        """
        Update machines of one group, and tell what went wrong.

        First one alone: if it fails, the others are left as they are. Then several at a time: if one of them fails,
        those beside it go on, and those that still wait are "canceled"; flyctl takes that for an interruption, exits
        with 127 and prints no error (measured with three and four machines).
        """
        at_a_time = len(batch) if batch[0].is_cold else math.ceil(len(batch) * _MAX_UNAVAILABLE)
        waves = [batch[:1], *(batch[first : first + at_a_time] for first in range(1, len(batch), at_a_time))]
        problems: list[Failure | Cancelled] = []
        for number, wave in enumerate(waves):
            if problems and number == 1:
                break
            waiting = bool(problems)
            for target in wave:
                if waiting or any(isinstance(problem, Cancelled) for problem in problems):
                    target.log(self._session, "✖", f"Machine {target.label} update canceled")
                    problems.append(Cancelled())
                elif problem := self._update_one(update, target):
                    problems.append(problem)
        cancelled = [problem for problem in problems if isinstance(problem, Cancelled)]
        if len(problems) < 2 or cancelled:
            return (cancelled or problems or [None])[0]
        return Failure("\n".join(problem.text for problem in problems if isinstance(problem, Failure)))

    def _update_one(self, update: MachineUpdate, target: Target) -> Failure | Cancelled | None:
        label = f"Machine {target.label} update"
        try:
            update.run(target)
        except Failure as failure:
            target.log(self._session, "✖", f"{label} failed: {failure.text}")
            return failure
        except Cancelled as cancelled:
            target.log(self._session, "✖", f"{label} canceled while it was in progress")
            return cancelled
        target.log(self._session, "✔", f"{label} succeeded")
        return None

    def _lease_all(self) -> None:
        for target in self._targets:
            target.nonce = take_lease(self._session, self._app, target.id, ttl_s=13)["nonce"]

    def _release_leases(self, problem: Failure | Cancelled | None) -> None:
        """Give back the leases; after a signal flyctl only says so, and they end by themselves (measured)."""
        held = [target for target in self._targets if target.nonce]
        if isinstance(problem, Cancelled) and problem.by_signal:
            for what in ("leases", *(f"{target.label} lease" for target in held)):
                self._session.info(f"detected canceled context and allowing 500ms to release machine {what}\n")
            return
        for target in held:
            path = f"/apps/{self._app}/machines/{target.id}/lease"
            try:
                self._api.machines("DELETE", path, nonce=target.nonce)
            except Failure as failure:
                if failure.status != 404:
                    self._session.warn(f"failed to release lease: {failure.text}\n")

    def _check_dns(self, definition: dict[str, Any]) -> None:
        """Ask for the app's addresses; the stand-in asks no name server and takes them for right."""
        call = self._session.call
        if call.is_on("detach") or not call.is_on("dns-checks", default=True):
            return
        try:
            ips = self._api.machines("GET", f"/apps/{self._app}/ip_assignments").get("ips")
        except Failure as failure:
            self._session.warn(f"DNS checks failed: failed to list app ip assignments: {failure.text}\n")
            return
        if ips and (definition.get("http_service") or definition.get("services")):
            self._session.err(f"Checking DNS configuration for {self._app}.fly.dev")
            self._session.err("✓ DNS configuration verified")


def _decoded(body: bytes) -> None:
    """Read JSON as Go's json.Unmarshal does, whose words for an early end are others (measured)."""
    try:
        from_json(body)
    except Failure as failure:
        text = "unexpected end of JSON input" if failure.text.endswith("EOF") else failure.text
        raise Failure(f"failed to decode response: {text}") from None


def _numbered(machines: list[dict[str, Any]]) -> list[Target]:
    """
    Sort the machines by id and number their lines: in each process group the stopped ones come first.

    The real one works on groups, and on stopped and started ones, side by side.
    """
    machines = sorted(machines, key=lambda machine: str(machine["id"]))
    groups = dict.fromkeys(Target(machine).group for machine in machines)
    targets = [
        target
        for group in groups
        for cold in (True, False)
        for target in map(Target, machines)
        if target.group == group and target.is_cold == cold
    ]
    for index, target in enumerate(targets, 1):
        digits = len(str(len(targets)))
        target.mark = f"[{index:0{digits}}/{len(targets)}] " if len(targets) > 1 else ""
    return targets


def _batches(targets: list[Target]) -> list[list[Target]]:
    keys = dict.fromkeys((target.group, target.is_cold) for target in targets)
    return [[target for target in targets if (target.group, target.is_cold) == key] for key in keys]


def _wait_timeout(session: Session, definition: dict[str, Any]) -> float:
    """Give how long a machine may take, from `deploy.wait_timeout`; another one than the default is announced."""
    given = (definition.get("deploy") or {}).get("wait_timeout")
    if not given:
        return session.patience.wait_s
    factors = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    wait_s = sum(float(n) * factors[unit] for n, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", str(given)))
    if wait_s != 300.0:
        minutes, seconds = divmod(wait_s, 60)
        shown = (f"{minutes:.0f}m" if minutes else "") + f"{seconds:g}s"
        session.info(f"Using wait timeout: {shown} lease timeout: 13s delay between lease refreshes: 4s\n")
    return wait_s

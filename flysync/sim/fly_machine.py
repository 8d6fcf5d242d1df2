"""
One simulated machine: what it runs with, who may change it, what has happened to it, and how it is to misbehave.

No network; the clock is given. What is due comes about when somebody looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: An image as Fly names them; nothing is ever pulled.
IMAGE = "registry.fly.io/x:1"
#: flyctl trusts a start that is 10 s old (read: internal/machine/leasable_machine.go, smoke checks). The simulator says
#: so of each start that no crash follows, or each roll-out would take 10 s a machine.
_STARTED_AGO = timedelta(seconds=30)
#: How many events a machine remembers (assumed).
_EVENTS = 20
#: The least that is between an end and the start that follows it (assumed: the real one waits longer and longer).
_PAUSE_S = 0.05


class Refusal(Exception):
    """What Fly refuses to do, with the status and the text it answers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def stamp(at: datetime) -> str:
    """Write a point in time as Fly does (RFC 3339 in UTC, read: flyctl internal/command/secrets/list.go)."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(kw_only=True, slots=True)
class Lease:
    """The right to change a machine, for those who know the nonce, until it ends."""

    nonce: str
    holder: str
    ends_at: datetime


@dataclass(kw_only=True, slots=True)
class Crash:
    """How an app ends by itself after a start of its machine."""

    exit_code: int = 1
    oom: bool = False
    #: How long after the start; with 0 nobody ever sees the machine started.
    after_s: float = 0.0
    #: How often Fly then starts the machine again before it leaves it stopped (Fly's own number is 10: assumed).
    restarts: int = 0
    #: Only while the machine runs with these values.
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: Only on this release.
    release: int | None = None
    #: How many starts are still to end so.
    times: float = math.inf

    def applies_to(self, machine: Machine) -> bool:
        """Tell whether *machine* would end so if it were started now."""
        is_release = self.release is None or str(self.release) == machine.metadata.get("fly_release_version")
        return self.times > 0 and is_release and self.secrets.items() <= machine.env.items()


@dataclass(kw_only=True, eq=False)
class Machine:
    """
    A machine: what it runs with, and how it is to misbehave.

    `crash`, `start_takes_s` and `healthy_after_s` count from its next start on; `exit` ends its app now.
    """

    id: str
    config: dict[str, Any]
    #: The version of the app's secrets it was started with, and those secrets.
    secrets_version: int
    env: dict[str, str]
    now: Callable[[], datetime]
    #: How often it was updated, and how often restarted by that.
    updates: int = 0
    restarts: int = 0
    #: Who may change it at present; nothing where anybody may.
    lease: Lease | None = None
    #: What its app last printed; flyctl shows it when the machine crashes.
    log: list[str] = field(default_factory=list)
    #: `unreachable` or `unknown` where its host does not answer.
    host_status: str = "ok"
    #: How its app ends by itself; nothing where it does not.
    crash: Crash | None = None
    #: How long it stays `starting`.
    start_takes_s: float = 0.0
    #: Whether its health checks pass, where its config has some, and how long after a start.
    healthy: bool = True
    healthy_after_s: float = 0.0
    #: How many updates are still to fail.
    update_failures: int = 0

    def __post_init__(self) -> None:
        self.created_at = self.updated_at = self._up_since = self.now() - _STARTED_AGO
        #: What happened to it, newest first.
        self._events: list[dict[str, Any]] = []
        self._state = "started"
        self._due: tuple[datetime, Callable[[datetime], None]] | None = None
        self._restart_count = self._leases = 0
        self._tell("launch", "created", self._up_since, source="user")
        self._tell("start", "started", self._up_since)

    @property
    def state(self) -> str:
        """Its state now, as Fly calls it; to set it is to say so, without an event."""
        while self._due is not None and self._due[0] <= self.now():
            (at, do), self._due = self._due, None
            do(at)
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state, self._due = state, None

    @property
    def crashes(self) -> bool:
        """Whether it crashes; to say so is to let it end as soon as it is started, again and again."""
        return self.crash is not None

    @crashes.setter
    def crashes(self, crashes: bool) -> None:
        self.crash = Crash(restarts=1_000_000) if crashes else None

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in its config: release, process group, who manages it."""
        return self.config.get("metadata") or {}

    @property
    def runs(self) -> bool:
        """Tell whether its app is up, and stays so."""
        return self.state == "started" and self._due is None

    def shown(self) -> dict[str, Any]:
        """
        Give it as the Machines API does (names read: fly-go machine_types.go).

        Where its host does not answer, its configuration is called incomplete (read).
        """
        state, names = self.state, self.config.get("checks") or {}
        is_late = self.now() < self._up_since + timedelta(seconds=self.healthy_after_s)
        running = "passing" if self.healthy and not is_late else "critical"
        status = running if state == "started" else "warning"  # assumed, and `critical` until they pass
        return {
            "id": self.id,
            "name": f"machine-{self.id}",
            "state": state,
            "events": self._events,
            "checks": [{"name": name, "status": status} for name in names],
            "host_status": self.host_status,
            "region": "iad",
            "image_ref": {"registry": "registry.fly.io", "repository": "x", "tag": "1", "digest": "sha256:0"},
            "instance_id": f"{self.id}-{self.updates}",
            "private_ip": "fdaa:0:1::3",
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
            "config" if self.host_status == "ok" else "incomplete_config": self.config,
        }

    def update(self, config: dict[str, Any], *, version: int, env: dict[str, str], launch: bool) -> None:
        """Give it a config and secrets, and start it with them if it is to *launch* (events: assumed)."""
        was_up = self.state == "started"
        self.config, self.secrets_version, self.env, self.updated_at = config, version, env, self.now()
        told = self._told(self.updated_at)
        if was_up:
            self._exit(told, exit_code=130, requested=True)
        self._tell("update", "replacing", told, source="user")
        self._tell("launch", "created", told, source="user")
        self.updates += 1
        if launch:
            self.restarts += 1
            self.state = "stopped"
            self.start()

    def start(self) -> None:
        """Start it with what it was last updated to."""
        if self.state != "started":
            self._state, self._restart_count = "starting", 0
            self._then(self.now(), self.start_takes_s, self._come_up)

    def exit(self, *, exit_code: int = 0, oom: bool = False, requested: bool = False) -> None:
        """Let its app end now, and leave it stopped; *requested*, as where Fly stops an idle one."""
        self._exit(self.now(), exit_code=exit_code, oom=oom, requested=requested)

    def let_time_pass(self, seconds: float) -> None:
        """Make all that has happened to it older by that."""
        for event in self._events:
            event["timestamp"] -= round(seconds * 1000)

    def _then(self, at: datetime, after_s: float, do: Callable[[datetime], None]) -> None:
        self._due = (at + timedelta(seconds=after_s), do) if math.isfinite(after_s) else None

    def _told(self, at: datetime) -> datetime:
        """Give when a start *at* this time is said to have been."""
        return at if self.crash and self.crash.applies_to(self) else at - _STARTED_AGO

    def _come_up(self, at: datetime) -> None:
        self._state, self._up_since = "started", at
        self._tell("start", "started", self._told(at))
        if (crash := self.crash) and crash.applies_to(self):
            crash.times -= 1
            self._then(at, crash.after_s, lambda then: self._crash(then, crash))

    def _crash(self, at: datetime, crash: Crash) -> None:
        again = self._restart_count < crash.restarts
        self._restart_count += again
        self._exit(at, exit_code=crash.exit_code, oom=crash.oom, restarting=again)
        if again:  # it is called started all the while (assumed)
            self._state = "started"
            self._then(at, max(_PAUSE_S, crash.after_s), self._come_up)

    def _exit(
        self, at: datetime, *, exit_code: int, oom: bool = False, requested: bool = False, restarting: bool = False
    ) -> None:
        self.state = "stopped"
        codes = {"exit_code": exit_code, "guest_exit_code": exit_code, "guest_signal": -1, "signal": -1}
        how = {"oom_killed": oom, "requested_stop": requested, "restarting": restarting, "exited_at": stamp(at)}
        request = {"exit_event": {**codes, **how}, "restart_count": self._restart_count}
        self._tell("exit", "stopped", at, request=request)

    def _tell(self, kind: str, status: str, at: datetime, *, source: str = "flyd", **more: object) -> None:
        """Remember an event, as not older than the one before it."""
        stamp = max([round(at.timestamp() * 1000), *(event["timestamp"] for event in self._events[:1])])
        self._events.insert(0, {"type": kind, "status": status, **more, "source": source, "timestamp": stamp})
        del self._events[_EVENTS:]

    def take_lease(self, *, nonce: str, ttl_s: int) -> Lease:
        """
        Give a lease, or prolong the one that has this *nonce*.

        Raises a refusal while somebody else holds one.
        """
        self.check_lease(nonce=nonce)
        lease = self.lease or self.hold_lease(holder="dev@example.test")
        lease.ends_at = self.now() + timedelta(seconds=ttl_s)
        return lease

    def check_lease(self, *, nonce: str) -> None:
        """Refuse whoever does not hold the lease, where there is one (text: assumed)."""
        if self.lease and self.lease.ends_at <= self.now():
            self.lease = None
        if self.lease and self.lease.nonce != nonce:
            end = self.lease.ends_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            raise Refusal(409, f"machine ID {self.id} lease currently held by {self.lease.holder}, expires at {end}")

    def hold_lease(self, *, ttl_s: float = 3600, holder: str = "someone@example.test") -> Lease:
        """
        Let somebody hold the lease from now on, and give it; `machine.lease = None` ends it.

        Its nonce is the same whenever the same is done: recorded runs of flyctl name it.
        """
        self._leases += 1
        ends_at = self.now() + timedelta(seconds=ttl_s)
        self.lease = Lease(nonce=f"{self.id}-lease-{self._leases}", holder=holder, ends_at=ends_at)
        return self.lease

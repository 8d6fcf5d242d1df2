"""
One simulated machine: what it runs with, who may change it, and how it is to misbehave.

Pure: no network; the clock is an argument.
"""

from __future__ import annotations

import secrets as random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from flysync.sim.fly_vault import Refusal

#: An image as Fly names them; nothing is ever pulled.
IMAGE = "registry.fly.io/x:1"


@dataclass(kw_only=True, slots=True)
class Lease:
    """The right to change a machine, for those who know the nonce, until it ends."""

    nonce: str
    holder: str
    ends_at: datetime


@dataclass(kw_only=True, slots=True)
class Machine:
    """A machine: what it runs with, and how it is to misbehave."""

    id: str
    config: dict[str, object]
    state: str = "started"
    region: str = "iad"
    #: The version of the app's secrets it was started with, and those secrets.
    secrets_version: int = 1
    env: dict[str, str] = field(default_factory=dict)
    updated_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    #: How often it was restarted because it was updated.
    restarts: int = 0
    #: Who may change it at present; nothing where anybody may.
    lease: Lease | None = None
    #: What its app last printed; flyctl shows it when the machine crashes.
    log: list[str] = field(default_factory=list)
    #: It exits at once after each start, again and again.
    crashes: bool = False
    #: It stays in the state `starting`.
    never_starts: bool = False
    #: Whether its health checks pass, where its config has some.
    healthy: bool = True
    #: How many updates are still to fail.
    update_failures: int = 0

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in its config: release, process group, who manages it."""
        found = self.config.get("metadata")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def runs(self) -> bool:
        """Tell whether its app is up."""
        return self.state == "started" and not self.crashes

    def take_lease(self, *, nonce: str, ttl_s: int, holder: str, now: datetime) -> Lease:
        """
        Give a lease, or prolong the one that has this *nonce*.

        Raises a refusal while somebody else holds one.
        """
        self.check_lease(nonce=nonce, now=now)
        if self.lease is None:
            self.lease = Lease(nonce=random.token_hex(6), holder=holder, ends_at=now)
        self.lease.ends_at = now + timedelta(seconds=ttl_s)
        return self.lease

    def check_lease(self, *, nonce: str, now: datetime) -> None:
        """Refuse whoever does not hold the lease, where there is one (text: assumed)."""
        if self.lease is not None and self.lease.ends_at <= now:
            self.lease = None
        if self.lease is not None and self.lease.nonce != nonce:
            end = self.lease.ends_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            raise Refusal(409, f"machine ID {self.id} lease currently held by {self.lease.holder}, expires at {end}")

    def hold_lease(self, *, ttl_s: float = 3600, holder: str = "someone@example.test") -> None:
        """Let somebody else hold the lease from now on; `machine.lease = None` ends it."""
        ends_at = datetime.now(UTC) + timedelta(seconds=ttl_s)
        self.lease = Lease(nonce=random.token_hex(6), holder=holder, ends_at=ends_at)

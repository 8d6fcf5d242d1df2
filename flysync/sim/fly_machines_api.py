"""
The simulated Machines API: an app, its secrets, machines and leases.

Paths and shapes were measured with flyctl ad0172fac (reference: flyctl.md 3) unless a comment says otherwise.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import web

from flysync.sim.fly_vault import Refusal
from flysync.sim.fly_wire import Reply, answering, bearer_tokens, body_of, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.sim.fly_machine import Lease, Machine
    from flysync.sim.fly_state import App, World
    from flysync.sim.fly_vault import Secret

#: How often somebody who waits looks.
_LOOK_S = 0.01


class MachinesApi:
    """The routes below `/v1/apps`; *stopping* ends those that wait."""

    def __init__(self, world: World, stopping: asyncio.Event) -> None:
        self._world = world
        self._stopping = stopping

    def routes(self) -> list[web.RouteDef]:
        """Give the routes of the Machines API that flyctl's secrets commands use."""
        app, machine = "/v1/apps/{app}", "/v1/apps/{app}/machines/{machine}"
        return [
            web.get(app, answering(self._get_app)),
            web.get(f"{app}/secrets", answering(self._list_secrets)),
            web.post(f"{app}/secrets", answering(self._update_secrets)),
            web.get(f"{app}/ip_assignments", answering(self._list_ips)),
            web.get(f"{app}/volumes", answering(self._list_volumes)),
            web.get(f"{app}/machines", answering(self._list_machines)),
            web.get(machine, answering(self._get_machine)),
            web.post(machine, answering(self._update_machine)),
            web.post(f"{machine}/start", answering(self._start_machine)),
            web.get(f"{machine}/wait", answering(self._wait)),
            web.post(f"{machine}/lease", answering(self._acquire_lease)),
            web.delete(f"{machine}/lease", answering(self._release_lease)),
        ]

    def _app(self, request: web.Request) -> App:
        return self._world.app_for(request.match_info["app"], bearer_tokens(request, self._world))

    def _machine(self, request: web.Request) -> Machine:
        return self._app(request).machine(request.match_info["machine"])

    async def _get_app(self, request: web.Request) -> Reply:
        app = self._app(request)
        return Reply(
            {
                "id": app.name,
                "name": app.name,
                "internal_numeric_id": app.number,
                "status": "deployed" if app.deployed else "pending",
                "machine_count": len(app.machines),
                "organization": {"name": app.org, "slug": app.org},
            }
        )

    async def _list_secrets(self, request: web.Request) -> Reply:
        """List names and digests; flyctl asks with `version`, the public API names it `min_version`."""
        app = self._app(request)
        wanted = request.query.get("min_version", request.query.get("version", "0"))
        if not wanted.isdecimal():
            raise Refusal(400, "invalid version")  # assumed
        if int(wanted) > app.vault.version:
            raise Refusal(404, f"secrets version {wanted} does not exist")  # assumed
        seen = app.vault.seen_at(self._world.now() - timedelta(seconds=app.list_lag_s))
        return Reply({"secrets": _secrets(seen)})

    async def _update_secrets(self, request: web.Request) -> Reply:
        app = self._app(request)
        values = body_of(await request.text()).get("values")
        if not isinstance(values, dict) or not all(isinstance(v, str | None) for v in values.values()):
            raise Refusal(400, "could not parse the request's body")  # assumed
        version = app.vault.update(values, at=self._world.now())
        return Reply({"secrets": _secrets(app.vault.current), "version": version})

    async def _list_ips(self, request: web.Request) -> Reply:
        return Reply({"ips": self._app(request).ips})

    async def _list_volumes(self, request: web.Request) -> Reply:
        self._app(request)
        return Reply([])

    async def _list_machines(self, request: web.Request) -> Reply:
        return Reply([_as_json(machine) for machine in self._app(request).machines])

    async def _get_machine(self, request: web.Request) -> Reply:
        return Reply(_as_json(self._machine(request)))

    async def _update_machine(self, request: web.Request) -> Reply:
        machine = self._leased(request)
        body = body_of(await request.text())
        config = body.get("config")
        if not isinstance(config, dict):
            raise Refusal(400, "config is missing")  # assumed
        least = body.get("min_secrets_version")
        self._app(request).update_machine(
            machine,
            config=config,
            min_secrets_version=least if isinstance(least, int) else 0,
            skip_launch=body.get("skip_launch") is True,
        )
        return Reply(_as_json(machine))

    async def _start_machine(self, request: web.Request) -> Reply:
        """Start a machine and answer at once, however that ends (shape: read, fly-go machine_types.go)."""
        machine = self._leased(request)
        before = machine.state
        machine.start()
        return Reply({"previous_state": before})

    async def _wait(self, request: web.Request) -> Reply:
        """Answer once the machine has a state, or refuse when its time is up (text, and that now counts: assumed)."""
        machine = self._machine(request)
        end = time.monotonic() + int(request.query.get("timeout", "60"))
        while machine.state != request.query.get("state", "started"):
            if time.monotonic() >= end or self._stopping.is_set():
                raise Refusal(408, "deadline_exceeded: machine failed to reach desired state")
            await asyncio.sleep(_LOOK_S)
        return Reply({"ok": True})

    async def _acquire_lease(self, request: web.Request) -> Reply:
        machine = self._machine(request)
        ttl_s = int(request.query.get("ttl", "13"))
        now = self._world.now()
        lease = machine.take_lease(nonce=_nonce(request), ttl_s=ttl_s, holder="dev@example.test", now=now)
        return Reply({"status": "success", "data": _lease(lease, machine)}, status=201)

    async def _release_lease(self, request: web.Request) -> Reply:
        machine = self._machine(request)
        if machine.lease is None:
            raise Refusal(404, "lease not found")  # text reported: superfly/flyctl pull request 4100
        machine.check_lease(nonce=_nonce(request), now=self._world.now())
        machine.lease = None
        return Reply({"status": "success"})

    def _leased(self, request: web.Request) -> Machine:
        """Give the machine, unless somebody else has its lease or its host does not answer (text: assumed)."""
        machine = self._machine(request)
        machine.check_lease(nonce=_nonce(request), now=self._world.now())
        if machine.host_status != "ok":
            raise Refusal(500, f"the host of machine {machine.id} could not be reached")
        return machine


def _as_json(machine: Machine) -> dict[str, object]:
    """
    Give a machine as the Machines API does (names read: fly-go machine_types.go).

    Where its host does not answer, its configuration is called incomplete (read).
    """
    image = {"registry": "registry.fly.io", "repository": "x", "tag": "1", "digest": "sha256:0", "labels": {}}
    return {
        "id": machine.id,
        "name": f"machine-{machine.id}",
        **machine.shown(),
        "region": machine.region,
        "image_ref": image,
        "instance_id": _instance(machine),
        "private_ip": "fdaa:0:1::3",
        "created_at": stamp(machine.created_at),
        "updated_at": stamp(machine.updated_at),
        "config" if machine.host_status == "ok" else "incomplete_config": machine.config,
        "cordoned": False,
    }


def _instance(machine: Machine) -> str:
    """Name the version of the machine that its last update made."""
    return f"{machine.id}-{machine.updates}"


def _nonce(request: web.Request) -> str:
    """Give the nonce of the lease that the caller holds."""
    return request.headers.get("fly-machine-lease-nonce", "")


def _secrets(secrets: Mapping[str, Secret]) -> list[dict[str, object]]:
    """List secrets without their values, by name (order: assumed)."""
    return [
        {
            "name": secret.name,
            "digest": secret.digest,
            "created_at": stamp(secret.created_at),
            "updated_at": stamp(secret.updated_at),
        }
        for _, secret in sorted(secrets.items())
    ]


def _lease(lease: Lease, machine: Machine) -> dict[str, object]:
    return {
        "nonce": lease.nonce,
        "expires_at": int(lease.ends_at.timestamp()),
        "owner": lease.holder,
        "description": "",
        "version": _instance(machine),
    }

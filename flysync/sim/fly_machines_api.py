"""
The simulated Machines API: an app, its secrets, machines and leases.

Paths and shapes were measured with flyctl ad0172fac (reference: flyctl.md 3) unless a comment says otherwise.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import web

from flysync.sim.fly_vault import Refusal
from flysync.sim.fly_wire import Reply, answering, bearer_tokens, body_of, stamp

if TYPE_CHECKING:
    from flysync.sim.fly_machine import Lease, Machine
    from flysync.sim.fly_state import App, World

#: flyctl believes a start that is 10 s old at once (read: internal/machine/leasable_machine.go, smoke checks);
#: the simulator says so of each healthy machine, or each roll-out would take 10 s a machine.
_STARTED_AGO = timedelta(seconds=30)


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
        return Reply({"secrets": _secrets(app)})

    async def _update_secrets(self, request: web.Request) -> Reply:
        app = self._app(request)
        values = body_of(await request.text()).get("values")
        if not isinstance(values, dict) or not all(isinstance(v, str | None) for v in values.values()):
            raise Refusal(400, "could not parse the request's body")  # assumed
        version = app.vault.update(values, at=self._world.now())
        return Reply({"secrets": _secrets(app), "version": version})

    async def _list_ips(self, request: web.Request) -> Reply:
        return Reply({"ips": self._app(request).ips})

    async def _list_volumes(self, request: web.Request) -> Reply:
        self._app(request)
        return Reply([])

    async def _list_machines(self, request: web.Request) -> Reply:
        return Reply([self._as_json(machine) for machine in self._app(request).machines])

    async def _get_machine(self, request: web.Request) -> Reply:
        return Reply(self._as_json(self._machine(request)))

    async def _update_machine(self, request: web.Request) -> Reply:
        machine = self._machine(request)
        machine.check_lease(nonce=_nonce(request), now=self._world.now())
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
            at=self._world.now(),
        )
        return Reply(self._as_json(machine))

    async def _wait(self, request: web.Request) -> Reply:
        """Answer when the machine has the state; it gets it at once or never here (refusal's text: assumed)."""
        machine = self._machine(request)
        if machine.state != request.query.get("state", "started"):
            timeout_s = int(request.query.get("timeout", "60"))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout_s)
            raise Refusal(408, "deadline_exceeded: machine failed to reach desired state")
        return Reply({"ok": True})

    async def _acquire_lease(self, request: web.Request) -> Reply:
        machine = self._machine(request)
        ttl_s = int(request.query.get("ttl", "13"))
        now = self._world.now()
        lease = machine.take_lease(nonce=_nonce(request), ttl_s=ttl_s, holder="dev@example.test", now=now)
        return Reply({"status": "success", "data": _lease(lease)}, status=201)

    async def _release_lease(self, request: web.Request) -> Reply:
        machine = self._machine(request)
        if machine.lease is None:
            raise Refusal(404, "lease not found")  # text reported: superfly/flyctl pull request 4100
        machine.check_lease(nonce=_nonce(request), now=self._world.now())
        machine.lease = None
        return Reply({"status": "success"})

    def _as_json(self, machine: Machine) -> dict[str, object]:
        """Give a machine as the Machines API does (names read: fly-go machine_types.go)."""
        now = self._world.now()
        checks = machine.config.get("checks")
        passing = "passing" if machine.healthy else "critical"
        started = round((now - _STARTED_AGO).timestamp() * 1000)
        launch = {"type": "launch", "status": "created", "source": "user", "timestamp": started - 1000}
        start = {"type": "start", "status": "started", "source": "flyd", "timestamp": started}
        exit_event = {"requested_stop": False, "restarting": True, "exit_code": 1}
        crash = {
            "type": "exit",
            "status": "stopped",
            "source": "flyd",
            "timestamp": started + 1000,
            "request": {"exit_event": exit_event, "restart_count": 3},
        }
        return {
            "id": machine.id,
            "name": f"machine-{machine.id}",
            "state": machine.state,
            "region": machine.region,
            "host_status": "ok",
            "instance_id": f"i{machine.restarts}",
            "private_ip": "fdaa:0:1::3",
            "created_at": stamp(now - _STARTED_AGO),
            "updated_at": stamp(machine.updated_at),
            "config": machine.config,
            "events": [crash, start, launch] if machine.crashes else [start, launch],
            "checks": [{"name": n, "status": passing} for n in checks] if isinstance(checks, dict) else [],
        }


def _nonce(request: web.Request) -> str:
    """Give the nonce of the lease that the caller holds."""
    return request.headers.get("fly-machine-lease-nonce", "")


def _secrets(app: App) -> list[dict[str, object]]:
    """List an app's secrets without their values, by name (order: assumed)."""
    return [
        {
            "name": secret.name,
            "digest": secret.digest,
            "created_at": stamp(secret.created_at),
            "updated_at": stamp(secret.updated_at),
        }
        for _, secret in sorted(app.vault.current.items())
    ]


def _lease(lease: Lease) -> dict[str, object]:
    return {
        "nonce": lease.nonce,
        "expires_at": int(lease.ends_at.timestamp()),
        "owner": lease.holder,
        "description": "",
        "version": "1",
    }

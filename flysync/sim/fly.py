"""
Fly.io on loopback: GraphQL, Machines API and releases as an unmodified flyctl asks for them, and flyctl's installer.

One server for all: `FLY_API_BASE_URL`, `FLY_FLAPS_BASE_URL` and `FLY_UIEX_BASE_URL` all point at `Fly.url`.
Shapes and texts were measured with flyctl ad0172fac (reference: flyctl.md 3 and 4, flyctl-transcripts.txt) unless
a comment says read, assumed or reported.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import web

from flysync.sim import installer
from flysync.sim.fly_machine import Refusal, stamp
from flysync.sim.fly_state import World
from flysync.sim.loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from flysync.sim.fly_machine import Machine
    from flysync.sim.fly_state import App, Release, Token

    #: Gives what goes out as JSON, or what it is to be waited for.
    Handler = Callable[[web.Request, dict[str, Any]], object]


class Fly(Loopback):
    """
    A simulated Fly.io, used as an asynchronous context manager.

    `world` is what it knows; `add_app`, `add_token` and `refuse_token` are those of `World`. *flyctl* is the executable
    that the installer installs; without it, that is the stand-in.
    """

    def __init__(self, *, flyctl: Path | None = None, world: World | None = None) -> None:
        super().__init__()
        self.world = world or World()
        self.add_app, self.add_token = self.world.add_app, self.world.add_token
        self.refuse_token = self.world.refuse_token
        self._flyctl = flyctl

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a flyctl talk to this server, and to nobody else."""
        own = dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), self.url)
        return {**own, "FLY_SEND_METRICS": "0", "FLY_NO_UPDATE_CHECK": "1", "FLY_NO_INCIDENTS_CHECK": "1"}

    def tarball_sha256(self, version: str) -> str:
        """Give the checksum of the tarball that the installer fetches for *version*."""
        return hashlib.sha256(installer.tarball(version, self._flyctl)).hexdigest()

    def routes(self) -> list[web.RouteDef]:
        """Give the routes of all of Fly's services."""
        app, machine = "/v1/apps/{app}", "/v1/apps/{app}/machines/{machine}"
        handlers: dict[tuple[str, str], Handler] = {
            ("POST", "/graphql"): self._graphql,
            ("POST", "/api/v1/releases"): self._create_release,
            ("PATCH", "/api/v1/releases/{id}"): self._update_release,
            ("GET", "/api/v1/apps/{app}/releases"): self._list_releases,
            ("GET", "/api/v1/apps/{app}/logs"): self._logs,
            ("GET", app): self._show_app,
            ("GET", f"{app}/secrets"): self._list_secrets,
            ("POST", f"{app}/secrets"): self._update_secrets,
            # With no addresses flyctl asks no name server.
            ("GET", f"{app}/ip_assignments"): lambda request, _: (self._app(request), {"ips": []})[1],
            ("GET", f"{app}/volumes"): lambda request, _: (self._app(request), [])[1],
            ("GET", f"{app}/machines"): lambda request, _: [one.shown() for one in self._app(request).machines],
            ("GET", machine): lambda request, _: self._machine(request).shown(),
            ("POST", machine): self._update_machine,
            ("POST", f"{machine}/start"): self._start_machine,
            ("POST", f"{machine}/exec"): self._exec,
            ("GET", f"{machine}/wait"): self._wait,
            ("POST", f"{machine}/lease"): self._acquire_lease,
            ("DELETE", f"{machine}/lease"): self._release_lease,
        }
        creating = (self._create_release, self._acquire_lease)
        ours = [web.route(*where, _answering(handler, creating)) for where, handler in handlers.items()]
        return [*ours, *installer.routes(self, self._flyctl)]

    def _tokens(self, request: web.Request) -> list[Token]:
        """Give those tokens of `Bearer a,b` or `FlyV1 a,b` that are honoured (read: fly-go tokens/tokens.go)."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        given = rest.strip().split(",") if scheme in ("Bearer", "FlyV1") else []
        return [token for value in given if (token := self.world.honoured(value))]

    def _app(self, request: web.Request, name: str = "") -> App:
        """Give the app of the path, or *name*; or refuse."""
        return self.world.app_for(name or request.match_info["app"], self._tokens(request))

    def _machine(self, request: web.Request) -> Machine:
        return self._app(request).machine(request.match_info["machine"])

    def _graphql(self, request: web.Request, body: dict[str, Any]) -> object:
        query, variables = str(body.get("query")), body.get("variables") or {}
        tokens = self._tokens(request)
        if not tokens:
            return _graphql_error("You must be authenticated to view this.")
        if "viewer" in query:
            return {"data": {"viewer": {"id": "u1", "email": "dev@example.test", "enablePaidHobby": True}}}
        try:
            app = self._app(request, str(variables.get("appName")))
        except Refusal:
            return _graphql_error("Could not find App")
        if "appcompact" in query:
            return {"data": {"appcompact": _compact(app)}}
        if "currentRelease" not in query:
            return _graphql_error("the simulator does not know this query")
        key = "currentRelease" if "currentRelease:" in query else "currentReleaseUnprocessed"
        one = app.releases[-1] if app.releases else None
        told = one and {"id": one.id, "version": one.version, "imageRef": one.image, "configDefinition": one.definition}
        return {"data": {"app": {key: told}}}

    def _show_app(self, request: web.Request, _: object) -> object:
        app = self._app(request)
        told = {"id": app.name, "name": app.name, "internal_numeric_id": app.number}
        return told | {"organization": {"name": app.org, "slug": app.org}}

    def _create_release(self, request: web.Request, body: dict[str, Any]) -> object:
        app = self._app(request, str(body.get("app_name")))
        release = app.add_release(image=str(body.get("image")), definition=body.get("definition"), at=self.world.now())
        app.deployed = True
        return {"release": _listed(release)}

    def _update_release(self, request: web.Request, body: dict[str, Any]) -> object:
        name = request.match_info["id"]
        for release in self.world.app_for(name.rpartition("-r")[0], self._tokens(request)).releases:
            if release.id == name:
                release.status = str(body.get("status"))
                return _listed(release)
        raise Refusal(404, "release not found")  # assumed

    def _list_releases(self, request: web.Request, _: object) -> object:
        newest = self._app(request).releases[-int(request.query.get("limit", "20")) :]
        return {"releases": [_listed(release) for release in reversed(newest)]}

    def _logs(self, request: web.Request, _: object) -> object:
        """Answer with what an app printed (shape: read, fly-go resource_logs.go)."""
        machine = self._app(request).machine(request.query.get("instance", ""))
        told = {"timestamp": stamp(self.world.now()), "level": "info", "instance": machine.id, "region": "iad"}
        entries = [{"id": str(n), "attributes": {**told, "message": line}} for n, line in enumerate(machine.log)]
        return {"data": entries, "meta": {"next_token": ""}}

    def _list_secrets(self, request: web.Request, _: object) -> object:
        """List names and digests; flyctl asks for a `version` at least."""
        app = self._app(request)
        if int(wanted := request.query.get("version", "0")) > app.vault.version:
            raise Refusal(404, f"secrets version {wanted} does not exist")  # assumed
        return {"secrets": app.vault.listed(self.world.now() - timedelta(seconds=app.list_lag_s))}

    def _update_secrets(self, request: web.Request, body: dict[str, Any]) -> object:
        app, values = self._app(request), body.get("values")
        if not isinstance(values, dict) or not all(isinstance(value, str | None) for value in values.values()):
            raise Refusal(400, "could not parse the request's body")  # assumed
        version = app.vault.update(values, at=self.world.now())
        return {"secrets": app.vault.listed(self.world.now()), "version": version}

    def _update_machine(self, request: web.Request, body: dict[str, Any]) -> object:
        machine = self._leased(request)
        if not isinstance(config := body.get("config"), dict):
            raise Refusal(400, "config is missing")  # assumed
        least, is_down = body.get("min_secrets_version") or 0, body.get("skip_launch") is True
        self._app(request).update_machine(machine, config=config, min_secrets_version=least, skip_launch=is_down)
        return machine.shown()

    def _start_machine(self, request: web.Request, _: object) -> object:
        """Start a machine and answer at once, however that ends (shape: read, fly-go machine_types.go)."""
        machine = self._leased(request)
        before = machine.state
        machine.start()
        return {"previous_state": before}

    async def _exec(self, request: web.Request, body: dict[str, Any]) -> object:
        """Run a command with the machine's secrets, on this machine (shape: read, fly-go machine_types.go)."""
        machine, pipe = self._machine(request), asyncio.subprocess.PIPE
        if not machine.runs:
            raise Refusal(412, "machine is not running")  # assumed
        environ = {**machine.env, "PATH": os.defpath}
        process = await asyncio.create_subprocess_exec(*body["command"], stdout=pipe, stderr=pipe, env=environ)
        stdout, stderr = await process.communicate()
        return {"exit_code": process.returncode, "stdout": stdout.decode(), "stderr": stderr.decode()}

    async def _wait(self, request: web.Request, _: object) -> object:
        """Answer once the machine has a state, or refuse when its time is up (text, and that now counts: assumed)."""
        machine = self._machine(request)
        end = time.monotonic() + int(request.query.get("timeout", "60"))
        while machine.state != request.query.get("state", "started"):
            if time.monotonic() >= end or self._stopping.is_set():
                raise Refusal(408, "deadline_exceeded: machine failed to reach desired state")
            await asyncio.sleep(0.01)
        return {"ok": True}

    def _acquire_lease(self, request: web.Request, _: object) -> object:
        machine, ttl_s = self._machine(request), int(request.query.get("ttl", "13"))
        lease = machine.take_lease(nonce=_nonce(request), ttl_s=ttl_s)
        told = {"nonce": lease.nonce, "expires_at": int(lease.ends_at.timestamp()), "owner": lease.holder}
        return {"status": "success", "data": {**told, "version": machine.shown()["instance_id"]}}

    def _release_lease(self, request: web.Request, _: object) -> object:
        machine = self._machine(request)
        if machine.lease is None:
            raise Refusal(404, "lease not found")  # text reported: superfly/flyctl pull request 4100
        machine.check_lease(nonce=_nonce(request))
        machine.lease = None
        return {"status": "success"}

    def _leased(self, request: web.Request) -> Machine:
        """Give the machine, unless somebody else has its lease or its host does not answer (text: assumed)."""
        machine = self._machine(request)
        machine.check_lease(nonce=_nonce(request))
        if machine.host_status != "ok":
            raise Refusal(500, f"the host of machine {machine.id} could not be reached")
        return machine


def _answering(
    handler: Handler, creating: Collection[Handler]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Let what *handler* makes of a request and its body go out as JSON, and a refusal as `{"error": …}`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            given = handler(request, await _object(request))
            given = await given if isinstance(given, Awaitable) else given
        except Refusal as refusal:
            return web.json_response({"error": refusal.text}, status=refusal.status)
        return web.json_response(given, status=201 if handler in creating else 200)

    return answer


async def _object(request: web.Request) -> dict[str, Any]:
    """Give the JSON object that is sent, an empty one where there is no body, or refuse (text: assumed)."""
    try:
        return dict(json.loads(await request.text() or "{}"))
    except (TypeError, ValueError):
        raise Refusal(400, "could not parse the request's body") from None


def _graphql_error(message: str) -> object:
    """Say no as GraphQL does: with status 200."""
    return {"data": None, "errors": [{"message": message}]}


def _compact(app: App) -> object:
    """Give what flyctl uses of what GetAppCompact asks for (types read: fly-go types.go AppCompact)."""
    told = {"id": app.name, "internalNumericId": app.number, "name": app.name, "deployed": app.deployed}
    told |= {"status": "deployed" if app.deployed else "pending", "platformVersion": "machines"}
    told |= {"hostname": f"{app.name}.fly.dev", "appUrl": f"https://{app.name}.fly.dev", "network": "default"}
    return told | {"organization": {"id": "o1", "internalNumericId": "9", "slug": app.org, "paidPlan": False}}


def _listed(release: Release) -> object:
    """Give what flyctl uses of a release that api.fly.io lists (names read: flyctl internal/uiex/releases.go)."""
    told = {"id": release.id, "version": release.version, "status": release.status, "image_ref": release.image}
    return told | {"created_at": stamp(release.created_at)}


def _nonce(request: web.Request) -> str:
    """Give the nonce of the lease that the caller holds."""
    return request.headers.get("fly-machine-lease-nonce", "")

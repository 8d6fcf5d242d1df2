"""
Fly.io on loopback: GraphQL, Machines API and releases as an unmodified flyctl asks for them, and flyctl's installer.

One server for all: `FLY_API_BASE_URL`, `FLY_FLAPS_BASE_URL` and `FLY_UIEX_BASE_URL` all point at `Fly.url`.
Shapes and texts were measured with flyctl ad0172fac (reference: flyctl.md 3 and 4, flyctl-transcripts.txt) unless
a comment says read, assumed or reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from flysync.sim import installer
from flysync.sim.fly_machines_api import MachinesApi
from flysync.sim.fly_state import World
from flysync.sim.fly_vault import Refusal
from flysync.sim.fly_wire import Reply, answering, bearer_tokens, body_of, stamp
from flysync.sim.loopback import Loopback

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.fly_state import App, Release


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
        return {
            "FLY_API_BASE_URL": self.url,
            "FLY_FLAPS_BASE_URL": self.url,
            "FLY_UIEX_BASE_URL": self.url,
            "FLY_SEND_METRICS": "0",
            "FLY_NO_UPDATE_CHECK": "1",
            "FLY_NO_INCIDENTS_CHECK": "1",
        }

    def tarball_sha256(self, version: str) -> str:
        """Give the checksum of the tarball that the installer fetches for *version*."""
        return installer.Tarballs(self._flyctl).sha256(version)

    def routes(self) -> list[web.RouteDef]:
        """Give the routes of all of Fly's services."""
        return [
            web.post("/graphql", answering(self._graphql)),
            web.post("/api/v1/releases", answering(self._create_release)),
            web.patch("/api/v1/releases/{id}", answering(self._update_release)),
            web.get("/api/v1/apps/{app}/releases", answering(self._list_releases)),
            web.get("/api/v1/apps/{app}/logs", answering(self._logs)),
            *MachinesApi(self.world, self._stopping).routes(),
            *installer.routes(self, installer.Tarballs(self._flyctl)),
        ]

    async def _graphql(self, request: web.Request) -> Reply:
        body = body_of(await request.text())
        query, variables = str(body.get("query")), body.get("variables") or {}
        tokens = bearer_tokens(request, self.world)
        if not tokens:
            return _graphql_error("You must be authenticated to view this.", code="UNAUTHORIZED")
        if "viewer" in query:
            return Reply({"data": {"viewer": {"id": "u1", "email": "dev@example.test", "enablePaidHobby": True}}})
        name = str(variables.get("appName", variables.get("name"))) if isinstance(variables, dict) else ""
        app = self.world.visible_app(name, tokens)
        if app is None:
            return _graphql_error("Could not find App", code="NOT_FOUND")
        if "appcompact" in query:
            return Reply({"data": {"appcompact": _compact(app)}})
        if "FlyctlConfigCurrentRelease" in query or "LatestImage" in query:
            return Reply({"data": {"app": {"currentReleaseUnprocessed": _current_release(app)}}})
        if "currentRelease:" in query:
            return Reply({"data": {"app": {"currentRelease": _current_release(app)}}})
        return _graphql_error("the simulator does not know this query", code="UNKNOWN")

    async def _create_release(self, request: web.Request) -> Reply:
        body = body_of(await request.text())
        app = self._app(str(body.get("app_name")), request)
        release = app.add_release(image=str(body.get("image")), definition=body.get("definition"), at=self.world.now())
        app.deployed = True
        return Reply({"release": _release(release)}, status=201)

    async def _update_release(self, request: web.Request) -> Reply:
        body = body_of(await request.text())
        for app in self.world.apps.values():
            for release in app.releases:
                if release.id == request.match_info["id"]:
                    self._app(app.name, request)
                    release.status = str(body.get("status"))
                    release.metadata = body.get("metadata") or release.metadata
                    return Reply(_release(release))
        raise Refusal(404, "release not found")  # assumed

    async def _list_releases(self, request: web.Request) -> Reply:
        app = self._app(request.match_info["app"], request)
        limit = int(request.query.get("limit", "20"))
        return Reply({"releases": [_release(r) for r in reversed(app.releases[-limit:])]})

    async def _logs(self, request: web.Request) -> Reply:
        """Answer with what an app printed (shape: read, fly-go resource_logs.go)."""
        app = self._app(request.match_info["app"], request)
        machine = app.machine(request.query.get("instance", ""))
        entries = [
            {
                "id": str(number),
                "attributes": {
                    "timestamp": stamp(self.world.now()),
                    "message": line,
                    "level": "info",
                    "instance": machine.id,
                    "region": machine.region,
                },
            }
            for number, line in enumerate(machine.log)
        ]
        return Reply({"data": entries, "meta": {"next_token": ""}})

    def _app(self, name: str, request: web.Request) -> App:
        return self.world.app_for(name, bearer_tokens(request, self.world))


def _graphql_error(message: str, *, code: str) -> Reply:
    """Say no as GraphQL does: with status 200 (codes: assumed, flyctl shows none)."""
    return Reply({"data": None, "errors": [{"message": message, "extensions": {"code": code}}]})


def _compact(app: App) -> dict[str, object]:
    """Give what GetAppCompact asks for (types read: fly-go types.go AppCompact)."""
    return {
        "id": app.name,
        "internalNumericId": app.number,
        "name": app.name,
        "hostname": f"{app.name}.fly.dev",
        "cnameTarget": "",
        "deployed": app.deployed,
        "network": "default",
        "status": "deployed" if app.deployed else "pending",
        "appUrl": f"https://{app.name}.fly.dev",
        "platformVersion": "machines",
        "organization": {"id": "o1", "internalNumericId": "9", "slug": app.org, "paidPlan": False},
        "postgresAppRole": None,
    }


def _current_release(app: App) -> dict[str, object] | None:
    if not app.releases:
        return None
    newest = app.releases[-1]
    return {
        "id": newest.id,
        "version": newest.version,
        "imageRef": newest.image,
        "configDefinition": newest.definition,
    }


def _release(release: Release) -> dict[str, object]:
    """Give a release as api.fly.io lists it (names read: flyctl internal/uiex/releases.go)."""
    return {
        "id": release.id,
        "version": release.version,
        "stable": release.status == "complete",
        "in_progress": release.status in ("pending", "running"),
        "status": release.status,
        "strategy": "ROLLING",
        "user": "dev@example.test",
        "created_at": stamp(release.created_at),
        "image_ref": release.image,
    }

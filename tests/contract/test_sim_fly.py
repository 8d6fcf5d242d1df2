"""The rules of the simulated Fly that no flyctl of ours gets to: what it refuses, and what it knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from flysync.sim.fly_state import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

SECRETS = "/v1/apps/acme-web/secrets"
MACHINE = "/v1/apps/acme-web/machines/m0"


class Client:
    """Talks to the simulated Fly as *token*."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.authorization = "Bearer test-token"

    async def __call__(self, method: str, path: str, json: object = None, **headers: str) -> tuple[int, Any]:
        """Send a request and give status and answer."""
        headers["Authorization"] = self.authorization
        async with self.session.request(method, self.url + path, json=json, headers=headers) as response:
            return response.status, await response.json()


@pytest.fixture
def app(fly: Fly) -> App:
    """An app with one machine and one secret."""
    return fly.add_app("acme-web", machines=["m0"], secrets={"OLD": "old"})


@pytest.fixture
async def api(fly: Fly) -> AsyncIterator[Client]:
    """A client with a good token."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, fly.url)


class TestSecrets:
    """The secrets of an app over HTTP."""

    @pytest.mark.usefixtures("app")
    @pytest.mark.parametrize(("query", "status"), [("", 200), ("?version=2", 200), ("?version=3", 404)])
    async def test_a_least_version(self, api: Client, query: str, status: int) -> None:
        """A version that is not there yet is refused."""
        assert status == (await api("GET", SECRETS + query))[0]

    @pytest.mark.parametrize(
        "body", [{}, {"values": 1}, {"values": {"A": 1}}, [], "x", {"values": {"A": "1", "B-C": "2"}}]
    )
    async def test_what_is_no_update_is_refused(self, api: Client, app: App, body: object) -> None:
        """What has another shape, or one bad name, is refused as a whole."""
        assert (400, {"OLD": "old"}) == ((await api("POST", SECRETS, body))[0], app.secrets)

    async def test_values_are_never_told(self, api: Client, app: App) -> None:
        """A list has names, digests and times."""
        _, answer = await api("GET", SECRETS + "?show_secrets=true")

        assert ["created_at", "digest", "name", "updated_at"] == sorted(answer["secrets"][0])
        assert app.vault.current["OLD"].digest == answer["secrets"][0]["digest"]

    async def test_each_update_makes_a_version(self, api: Client, app: App) -> None:
        """The same value again makes a new version and a new time, but no new digest."""
        before = app.vault.current["OLD"]
        _, answer = await api("POST", SECRETS, {"values": {"OLD": "old"}})
        after = app.vault.current["OLD"]

        assert (3, before.digest) == (answer["version"], after.digest)
        assert after.at > before.at

    def test_digests_are_keyed(self) -> None:
        """A digest is 16 hexadecimal digits, and differs by value, name, app and world."""
        worlds = [World(), World()]
        apps = [world.add_app(name, secrets={"A": "1", "B": "1", "C": "2"}) for world in worlds for name in "xy"]
        digests = [secret.digest for app in apps for secret in app.vault.current.values()]

        assert (12, {16}) == (len(set(digests)), {len(digest) for digest in digests})
        assert int(digests[0], 16)


class TestMachines:
    """Machines and their leases."""

    async def test_a_machine_never_gets_older_secrets(self, api: Client, app: App) -> None:
        """A machine is started on the oldest secrets that the request and its past allow."""
        app.vault.update({"A": "1"}, at=datetime.now(UTC))
        app.vault.update({"A": "2"}, at=datetime.now(UTC))
        config = {"config": app.machines[0].config}
        seen = []
        for least in ({}, {"min_secrets_version": 3}, {"min_secrets_version": 2}, {}, {"min_secrets_version": 4}):
            await api("POST", MACHINE, config | least)
            seen.append(app.machines[0].secrets_version)

        assert [2, 3, 3, 3, 4] == seen
        assert {"m0": 5} == app.restarts

    async def test_a_version_that_is_not_there(self, api: Client, app: App) -> None:
        """A machine cannot be started on secrets that do not exist, or without a config."""
        future = await api("POST", MACHINE, {"config": {}, "min_secrets_version": 9})
        shapeless = await api("POST", MACHINE, {"config": 1})

        assert (400, 400, 0) == (future[0], shapeless[0], app.machines[0].restarts)

    async def test_a_lease_keeps_others_out(self, api: Client, app: App) -> None:
        """While somebody holds a lease, only who knows its nonce may change the machine or prolong it."""
        _, lease = await api("POST", MACHINE + "/lease?ttl=13")
        mine = {"fly-machine-lease-nonce": lease["data"]["nonce"]}
        body = {"config": app.machines[0].config}
        statuses = [
            (await api("POST", MACHINE + "/lease?ttl=13"))[0],
            (await api("POST", MACHINE, body))[0],
            (await api("DELETE", MACHINE + "/lease"))[0],
            (await api("POST", MACHINE + "/lease?ttl=13", **mine))[0],
            (await api("POST", MACHINE, body, **mine))[0],
            (await api("DELETE", MACHINE + "/lease", **mine))[0],
            (await api("DELETE", MACHINE + "/lease", **mine))[0],
        ]

        assert [409, 409, 409, 201, 200, 200, 404] == statuses

    async def test_a_lease_ends(self) -> None:
        """A lease is over when its time is."""
        now = [datetime(2026, 1, 1, tzinfo=UTC)]
        machine = World(now=lambda: now[0]).add_app("x").machines[0]
        first = machine.take_lease(nonce="", ttl_s=13)
        now[0] += timedelta(seconds=14)
        second = machine.take_lease(nonce="", ttl_s=13)

        assert first.nonce != second.nonce

    async def test_waiting_in_vain(self, api: Client, app: App) -> None:
        """Who waits for a state that does not come is sent away after the time asked for."""
        app.machines[0].state = "starting"
        status, answer = await api("GET", MACHINE + "/wait?state=started&timeout=0")

        assert (408, "deadline_exceeded: machine failed to reach desired state") == (status, answer["error"])

    @pytest.mark.usefixtures("app")
    @pytest.mark.parametrize(("path", "text"), [("machines/m9", "machine not found"), ("volumes", None)])
    async def test_what_is_not_there(self, api: Client, path: str, text: str | None) -> None:
        """An unknown machine is refused; volumes there are none."""
        status, answer = await api("GET", f"/v1/apps/acme-web/{path}")

        assert (404, text) == (status, answer["error"]) if text else (200, []) == (status, answer)


class TestDoors:
    """Who is let in."""

    @pytest.mark.usefixtures("app")
    @pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer wrong", "Basic test-token", "test-token"])
    async def test_no_good_token(self, api: Client, authorization: str) -> None:
        """Without a good token the Machines API says 401, and GraphQL says so with 200."""
        api.authorization = authorization
        refused = await api("GET", SECRETS)
        _, graphql = await api("POST", "/graphql", {"query": "query { viewer }"})

        assert (401, {"error": "unauthorized"}) == refused
        assert "You must be authenticated to view this." == graphql["errors"][0]["message"]

    @pytest.mark.usefixtures("app")
    @pytest.mark.parametrize("authorization", ["Bearer x,test-token", "FlyV1 test-token"])
    async def test_one_good_token_is_enough(self, api: Client, authorization: str) -> None:
        """Of several tokens one has to be good, under either scheme."""
        api.authorization = authorization

        assert 200 == (await api("GET", SECRETS))[0]

    @pytest.mark.usefixtures("app")
    async def test_what_the_simulator_does_not_know(self, api: Client) -> None:
        """An unknown query or release is refused, not made up."""
        variables = {"appName": "acme-web"}
        _, query = await api("POST", "/graphql", {"query": "query { addOns }", "variables": variables})
        status, _ = await api("PATCH", "/api/v1/releases/nope", {"status": "running"})

        assert ("the simulator does not know this query", 404) == (query["errors"][0]["message"], status)

    async def test_all_addresses_are_one(self, fly: Fly) -> None:
        """One server is all that a flyctl is told of."""
        urls = {value for name, value in fly.environment.items() if name.endswith("_URL")}

        assert {fly.url} == urls

"""
What happens to flyctl on rare occasions: apps without a release, broken connections, directories it cannot use.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import Runner, normal
from parts import cases

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from flysync.sim.fly import Fly

STAGE = ("--app", "acme-web", "--stage", "--")
SET = ("secrets", "set", "--app", "acme-web", "--detach", "A=1")
NO_CONFIG = (
    "error loading appv2 config: failed to grab app config from existing machines, error: "
    "could not create a fly.toml from any machines :-(\nNo machines configured for this app\n"
)
NO_IMAGE = "could not find image to use for deployment; backend error was: current release not found for app acme-web\n"
NO_RELEASE = '{"data": {"app": {"currentReleaseUnprocessed": null}}}'
OTHERS = (
    "\x1b[33m[WARNING]\x1b[0m Your app doesn't have any Fly Launch machines, so we'll create one now. "
    "Learn more at \nhttps://fly.io/docs/launch/\n\n"
)


class TestAppsInBetween:
    """Apps that are deployed and are not, or have machines that flyctl does not count."""

    async def test_machines_but_never_deployed(self, flyctl: Runner, fly: Fly) -> None:
        """An app with machines but without a release is rolled out all the same, by its machines' config."""
        app = fly.add_app("acme-web", machines=["m0"], deployed=False)
        outcome = await flyctl(*SET)

        assert (0, {"m0": {"A": "1"}}, [1]) == (outcome.code, app.running(), [r.version for r in app.releases])
        assert {"app": "acme-web", "metrics": [{}]} == app.releases[0].definition

    async def test_only_machines_of_others(self, flyctl: Runner, fly: Fly) -> None:
        """Where only machines are that flyctl does not manage, it warns, makes a release, and restarts nothing."""
        app = fly.add_app("acme-web", machines=0)
        app.add_machine("u0", managed=False)
        outcome = await flyctl(*SET)

        assert (0, "", OTHERS) == (outcome.code, outcome.stdout, outcome.stderr)
        assert ({"u0": 0}, 2) == (app.restarts, len(app.releases))

    @pytest.mark.parametrize(("skip", "said"), [(1, NO_CONFIG), (2, NO_IMAGE)], ids=["config", "image"])
    async def test_no_release_and_no_machine(self, flyctl: Runner, fly: Fly, skip: int, said: str) -> None:
        """Without a release and without machines nothing says what to roll out; the secret is stored."""
        app = fly.add_app("acme-web", machines=0)
        fly.faults.append(Fault(match="POST /graphql", skip=skip, status=200, body=NO_RELEASE, times=9))
        outcome = await flyctl(*SET)

        assert (1, f"Error: {said}", {"A": "1"}) == (outcome.code, outcome.stderr, app.secrets)

    async def test_the_image_of_a_machine(self, flyctl: Runner, fly: Fly) -> None:
        """Where the release names no image, a machine's is taken."""
        app = fly.add_app("acme-web", machines=["m0"])
        app.machines[0].config["image"] = "registry.fly.io/own:7"
        fly.faults.append(Fault(match="POST /graphql", skip=2, status=500))
        outcome = await flyctl(*SET)

        assert (0, "registry.fly.io/own:7") == (outcome.code, app.releases[-1].image)

    async def test_services_are_looked_at(self, flyctl: Runner, fly: Fly) -> None:
        """For an app with a service flyctl asks once what listens, and a refusal does not matter."""
        config = {"http_service": {"internal_port": 8080}}
        fly.add_app("acme-web", machines=["m0", "m1"], config=config)
        outcome = await flyctl(*SET)

        assert 0 == outcome.code
        assert 1 == sum(line.endswith("/ps") for line in outcome.requests)

    async def test_no_addresses_to_check(self, flyctl: Runner, fly: Fly) -> None:
        """The addresses are asked for at the end, and a failure is only a warning."""
        fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="ip_assignments"))
        outcome = await flyctl("secrets", "set", "--app", "acme-web", "A=1")

        assert (0, "GET /v1/apps/acme-web/ip_assignments") == (outcome.code, outcome.requests[-1])
        assert outcome.stdout.endswith("DNS checks failed: failed to list app ip assignments: injected\n\n")


class TestBrokenAnswers:
    """Requests that get no answer, or a strange one, in the middle of something."""

    async def test_machines_that_are_not_there_yet(self, flyctl: Runner, fly: Fly) -> None:
        """A list of machines that is not found is asked for again."""
        fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="GET .*/machines$", status=404))
        outcome = await flyctl(*SET)

        assert (0, [404, 200]) == (
            outcome.code,
            [record.status for record in outcome.records if record.path.endswith("/machines")][:2],
        )

    async def test_an_update_is_not_sent_twice(self, flyctl: Runner, fly: Fly) -> None:
        """An update of a machine whose answer is lost fails, and the machine was restarted once."""
        app = fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="POST .*/machines/m0$", kind=FaultKind.DROP_AFTER))
        outcome = await flyctl(*SET)

        url = "http://127.0.0.1:<port>/v1/apps/acme-web/machines/m0"
        assert f'Error: failed to update VM m0: Post "{url}": EOF\n' == normal(outcome.stderr)
        assert {"m0": 1} == app.restarts

    async def test_a_machine_cannot_be_looked_at(self, flyctl: Runner, fly: Fly) -> None:
        """A machine that was updated and cannot be looked at counts as failed."""
        fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="GET .*/machines/m0$"))
        outcome = await flyctl(*SET)

        said = "smoke checks for m0 failed: error getting machine m0 from api: failed to get VM m0: injected"
        assert (1, f"Error: {said}") == (outcome.code, outcome.error)

    async def test_no_capacity(self, flyctl: Runner, fly: Fly) -> None:
        """Where Fly has no room, flyctl suggests another region."""
        fly.add_app("acme-web", machines=["m0"])
        body = '{"error": "no room", "status": "insufficient_capacity"}'
        fly.faults.append(Fault(match="POST .*/machines/m0$", status=422, body=body))
        outcome = await flyctl(*SET)

        said = "Error: failed to update VM m0: no room\nTry choosing a different region for machine creation\n\n"
        assert said == outcome.stderr

    async def test_a_sync_that_fails(self, flyctl: Runner, fly: Fly) -> None:
        """A failed `sync` says so."""
        fly.add_app("acme-web")
        fly.faults.append(Fault(match="POST .*/secrets"))
        outcome = await flyctl("secrets", "sync", "--app", "acme-web")

        assert (1, "Error: sync secrets: failed to update app secrets: injected") == (outcome.code, outcome.error)

    async def test_releases_that_cannot_be_read(self, flyctl: Runner, fly: Fly) -> None:
        """When the releases are cut off, everything looks staged, with exit code 0."""
        fly.add_app("acme-web", secrets={"A": "1"})
        fly.faults.append(Fault(match="GET .*/releases", kind=FaultKind.TRUNCATE))
        outcome = await flyctl("secrets", "list", "--app", "acme-web")

        expected = "There is 1 secret not deployed. Deploy with `fly secrets deploy` to make them available.\n"
        assert (0, True) == (outcome.code, outcome.stdout.endswith(expected))

    @pytest.mark.parametrize(
        ("argv", "tries", "said"),
        [(("secrets", "list", "-a", "x"), 3, "list"), (("secrets", "sync", "-a", "x"), 1, "update")],
    )
    async def test_a_reset_connection(self, real_flyctl: Runner, argv: tuple[str, ...], tries: int, said: str) -> None:
        """A reset connection is tried three times for a read, and once for a write."""
        resets = Resets()
        server = await asyncio.start_server(resets, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            outcome = await real_flyctl(*argv, env={"FLY_FLAPS_BASE_URL": url})

        assert (1, tries, True) == (outcome.code, resets.count, f"failed to {said} app secrets: " in outcome.stderr)
        # Go may notice while it still writes, and has other words for it then.
        ends = r"(read: |write: )?(connection reset by peer|use of closed network connection)\n$"
        assert re.search(rf"->127.0.0.1:{url[17:]}: {ends}", outcome.stderr)


class Resets:
    """Takes connections, reads, and resets them."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reset a connection once its request has begun."""
        self.count += 1
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


class TestDirectories:
    """What flyctl needs of the disk."""

    async def test_no_home(self, flyctl: Runner, fly: Fly) -> None:
        """Without HOME and without FLY_CONFIG_DIR nothing is sent."""
        fly.add_app("acme-web")
        outcome = await flyctl("secrets", "set", *STAGE, "A=1", without=["HOME", "FLY_CONFIG_DIR"])

        assert (1, "Error: $HOME is not defined\n", []) == (outcome.code, outcome.stderr, outcome.requests)

    async def test_a_configuration_directory_below_a_file(self, flyctl: Runner) -> None:
        """Where the configuration directory cannot be made, nothing is sent."""
        (flyctl.home / "file").touch()
        path = flyctl.home / "file" / "config"
        outcome = await flyctl("secrets", "set", *STAGE, "A=1", env={"FLY_CONFIG_DIR": str(path)})

        said = f"Error: failed stat-ing config directory: stat {path}: not a directory\n"
        assert (1, said, []) == (outcome.code, outcome.stderr, outcome.requests)

    async def test_fewer_words(self, flyctl: Runner, fly: Fly) -> None:
        """LOG_LEVEL=error takes away the coloured warnings."""
        fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="DELETE .*/lease"))
        outcome = await flyctl(*SET, env={"LOG_LEVEL": "error"})

        assert (0, False) == (outcome.code, "WARN" in outcome.stdout)


class TestAnswersThatAreNone:
    """What flyctl makes of answers that it cannot read, or does not read at all."""

    @cases(
        ("body", "said"),
        [
            ("<html>", "invalid character '<' looking for beginning of value"),
            ('{"id": ', "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
        ],
        ids=["HTML", "half", "empty"],
        quick=1,
    )
    async def test_an_answer_about_a_release(self, flyctl: Runner, fly: Fly, body: str, said: str) -> None:
        """It is asked for three times, and then nothing is rolled out."""
        app = fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="PATCH /api/v1/releases/", status=200, body=body, times=9))
        outcome = await flyctl("secrets", "deploy", "--app", "acme-web", "--dns-checks=false")

        text = f"Error: failed to set release status to 'running': failed to decode response: {said}\n"
        assert (1, text, {"m0": 0}) == (outcome.code, outcome.stderr, app.restarts)
        assert 3 == len([line for line in outcome.requests if line.startswith("PATCH")])

    async def test_a_connection_after_a_wait(self, flyctl: Runner, fly: Fly) -> None:
        """The answer to a wait is not read, so the next request has a new connection and is not sent again."""
        fly.add_app("acme-web", machines=["m0"])
        fly.faults.append(Fault(match="GET /v1/apps/acme-web/machines/m0$", kind=FaultKind.DROP_BEFORE))
        outcome = await flyctl("secrets", "deploy", "--app", "acme-web", "--dns-checks=false")

        assert 1 == outcome.code
        assert 1 == outcome.requests.count("GET /v1/apps/acme-web/machines/m0")

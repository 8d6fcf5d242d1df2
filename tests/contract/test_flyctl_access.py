"""
What flysync relies on around flyctl's work: who may do what, what is left on disk, how arguments are read.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import Runner

from flysync.sim import macaroon
from flysync.sim.flyctl import launcher

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

STAGE = ("--app", "acme-web", "--stage", "--")
NO_TOKEN = "Error: no access token available. Please login with 'flyctl auth login'"


@pytest.fixture
def app(fly: Fly) -> App:
    """An app with one machine and one secret."""
    return fly.add_app("acme-web", machines=["m0"], secrets={"OLD": "old"})


class TestTokens:
    """Who may do what, and which token counts."""

    @pytest.mark.parametrize(
        "env",
        [
            {"FLY_API_TOKEN": "Bearer test-token"},
            {"FLY_API_TOKEN": " FlyV1  bearer test-token "},
            {"FLY_API_TOKEN": "fm2_abc,test-token"},
            {"FLY_API_TOKEN": "wrong", "FLY_ACCESS_TOKEN": "test-token"},
        ],
    )
    async def test_forms_of_a_good_token(self, flyctl: Runner, app: App, env: dict[str, str]) -> None:
        """Schemes are taken off, macaroons that cannot be read are dropped, and FLY_ACCESS_TOKEN comes first."""
        outcome = await flyctl("secrets", "set", *STAGE, "A=1", env=env)

        assert (0, "1") == (outcome.code, app.secrets["A"])
        assert {"Bearer test-token"} == {record.headers["Authorization"] for record in outcome.records}

    @pytest.mark.parametrize("env", [{"FLY_API_TOKEN": ""}, {"FLY_API_TOKEN": " "}, {"FLY_ACCESS_TOKEN": ""}])
    async def test_empty_tokens(self, flyctl: Runner, app: App, env: dict[str, str]) -> None:
        """An empty token is none, an empty FLY_ACCESS_TOKEN hides a good FLY_API_TOKEN, and nothing is sent."""
        outcome = await flyctl("secrets", "list", "--app", app.name, env=env)

        assert (1, NO_TOKEN, []) == (outcome.code, outcome.error, outcome.requests)

    async def test_the_flag_comes_first(self, flyctl: Runner, app: App) -> None:
        """`-t` wins over the environment, wherever it stands."""
        good = await flyctl("-t", "test-token", "secrets", "list", "--app", app.name, env={"FLY_API_TOKEN": "wrong"})
        bad = await flyctl("secrets", "list", "--app", app.name, "-t", "wrong")

        assert (0, 1) == (good.code, bad.code)
        assert "Error: failed to list app secrets: unauthorized" == bad.error

    async def test_a_token_for_one_app(self, flyctl: Runner, fly: Fly, app: App) -> None:
        """A token for one app does not see another one."""
        fly.add_app("other")
        fly.add_token("narrow", app=app.name)
        env = {"FLY_API_TOKEN": "narrow"}
        own = await flyctl("secrets", "set", *STAGE, "A=1", env=env)
        other = await flyctl("secrets", "set", "-a", "other", "--stage", "A=1", env=env)

        assert (0, 1, "Error: <Q1>Could not find App") == (own.code, other.code, other.error)

    async def test_a_token_of_another_organization(self, flyctl: Runner, fly: Fly) -> None:
        """An app of another organization is there, but not for this token."""
        theirs = fly.add_app("theirs", org="them")
        stored = await flyctl("secrets", "set", "-a", "theirs", "--stage", "A=1")
        listed = await flyctl("secrets", "list", "-a", "theirs")

        assert "Error: <Q1>Could not find App" == stored.error
        assert ({}, 1, 403) == (theirs.secrets, listed.code, listed.records[0].status)

    async def test_a_token_is_taken_back(self, flyctl: Runner, fly: Fly, app: App) -> None:
        """A token that Fly honours no longer is refused."""
        fly.refuse_token("test-token")
        outcome = await flyctl("secrets", "set", *STAGE, "A=1")

        assert ("Error: <Q1>You must be authenticated to view this.", {"OLD"}) == (outcome.error, set(app.secrets))

    async def test_whoami(self, flyctl: Runner) -> None:
        """`auth whoami` names the owner of the token, or says why not."""
        good = await flyctl("auth", "whoami")
        bad = await flyctl("auth", "whoami", env={"FLY_API_TOKEN": "wrong"})

        assert (0, "dev@example.test\n") == (good.code, good.stdout)
        assert "Error: failed retrieving current user: <Q1>You must be authenticated to view this." == bad.error

    async def test_macaroons_go_out_with_a_scheme_of_their_own(self, real_flyctl: Runner, fly: Fly, app: App) -> None:
        """Alone to the Machines API, all of them to GraphQL and to releases; those that have ended stay at home."""
        good, over = (macaroon.macaroon(macaroon.until(int(time.time()) + left_s)) for left_s in (999, -999))
        fly.add_token(good)
        outcome = await real_flyctl(
            "secrets", "deploy", "-a", app.name, env={"FLY_API_TOKEN": f"test-token,{over},{good}"}
        )
        sent = {record.path.split("/")[1]: record.headers["Authorization"] for record in outcome.records}

        assert (0, {"graphql", "v1", "api"}) == (outcome.code, set(sent))
        assert (f"FlyV1 {good},test-token", f"FlyV1 {good}") == (sent["graphql"], sent["v1"])
        assert {"Bearer", good, "test-token"} == set(re.split("[ ,]", sent["api"]))

    async def test_status(self, flyctl: Runner, app: App) -> None:
        """It looks the app up, and shows machines with their whole configuration."""
        good = await flyctl("status", "--json", "--app", app.name)
        bad = await flyctl("status", "--json", "--app", "nope")
        shown = json.loads(good.stdout)

        assert (0, app.name, True, 1) == (good.code, shown["Name"], shown["Deployed"], shown["Version"])
        assert ["m0"] == [machine["id"] for machine in shown["Machines"]]
        assert ["POST /graphql", f"GET /v1/apps/{app.name}/machines", "POST /graphql"] == good.requests
        assert (1, "Error: failed to get app: <Q1>Could not find App") == (bad.code, bad.error)


class TestTraces:
    """What a call leaves on disk and on its streams."""

    async def test_values_are_written_to_the_log(self, any_flyctl: Runner, app: App) -> None:
        """Request bodies, values in clear, land in a file below the configuration directory."""
        await any_flyctl("secrets", "set", "--app", app.name, "--stage", "A=hunter2")

        assert any("hunter2" in text for text in _logs(any_flyctl.config))

    async def test_a_file_in_the_place_of_the_logs_prevents_that(self, any_flyctl: Runner, app: App) -> None:
        """Where `logs` is a regular file, no value lands anywhere, and the call is none the worse."""
        any_flyctl.config.mkdir()
        (any_flyctl.config / "logs").touch()
        outcome = await any_flyctl("secrets", "set", "--app", app.name, "--stage", "A=hunter2")
        found = [
            path
            for top in (any_flyctl.config, any_flyctl.home, any_flyctl.work)
            for path in top.rglob("*")
            if path.is_file()
        ]

        assert (0, "hunter2") == (outcome.code, app.secrets["A"])
        assert not [path for path in found if b"hunter2" in path.read_bytes()]
        assert b"" == (any_flyctl.config / "logs").read_bytes()

    async def test_the_logs_are_at_home_by_default(self, any_flyctl: Runner, app: App) -> None:
        """Without FLY_CONFIG_DIR everything is in `~/.fly`."""
        await any_flyctl("secrets", "set", "--app", app.name, "--stage", "A=hunter2", without=["FLY_CONFIG_DIR"])

        assert any("hunter2" in text for text in _logs(any_flyctl.home / ".fly"))

    async def test_debugging_shows_values(self, real_flyctl: Runner, app: App) -> None:
        """LOG_LEVEL=debug prints request bodies on standard error."""
        outcome = await real_flyctl(
            "secrets", "set", "--app", app.name, "--stage", "A=hunter2", env={"LOG_LEVEL": "debug"}
        )

        assert (0, True) == (outcome.code, "hunter2" in outcome.stderr)


class TestArguments:
    """How the command line is read."""

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["secrets", "set", "A=1", "--app"], "flag needs an argument: --app"),
            (["secrets", "set", "A=1", "-a"], "flag needs an argument: 'a' in -a"),
            (["secrets", "set", "-FOO=hunter2"], "unknown shorthand flag: 'F' in -FOO=hunter2"),
            (["secrets", "set", "--app", "x"], "requires at least 1 arg(s), only received 0"),
            (["secrets", "deploy", "--stage"], "unknown flag: --stage"),
            (["secrets", "list", "--nope"], "unknown flag: --nope"),
            (["machine", "start", "--nope"], "unknown flag: --nope"),
            (["secrets", "unset"], "requires at least 1 arg(s), only received 0"),
            (
                ["secrets", "sync", "--stage=x"],
                'invalid argument "x" for "--stage" flag: strconv.ParseBool: parsing "x": invalid syntax',
            ),
        ],
    )
    async def test_mistakes(self, flyctl: Runner, argv: list[str], said: str) -> None:
        """A mistake is explained on standard error, the usage goes to standard output, and nothing is sent."""
        outcome = await flyctl(*argv)

        assert (1, f"Error: {said}\n", []) == (outcome.code, outcome.stderr, outcome.requests)
        assert outcome.stdout.startswith(f"Usage:\n  {flyctl.name} {argv[0]} {argv[1]} [")
        assert outcome.stdout.endswith("      --verbose               Verbose output\n\n")

    async def test_an_unknown_command(self, flyctl: Runner) -> None:
        """A command that flyctl does not have is a mistake too."""
        outcome = await flyctl("frobnicate-it-all")

        assert (1, f"Run '{flyctl.name} --help' for usage.\n\n") == (outcome.code, outcome.stdout)
        assert f'Error: unknown command "frobnicate-it-all" for "{flyctl.name}"' == outcome.error

    async def test_the_app_from_elsewhere(self, flyctl: Runner, app: App) -> None:
        """The app can be named by FLY_APP or fly.toml, and must be named somewhere."""
        nowhere = await flyctl("secrets", "list", "--json")
        by_variable = await flyctl("secrets", "list", env={"FLY_APP": app.name, "FLY_JSON": "1"})
        (flyctl.work / "fly.toml").write_text(f"app = '{app.name}'")
        by_file = await flyctl("secrets", "list", "--json")

        assert (1, True) == (nowhere.code, "missing an app name" in nowhere.stderr)
        assert (0, "OLD") == (by_variable.code, json.loads(by_variable.stdout)[0]["name"])
        assert by_variable.stdout == by_file.stdout

    async def test_a_broken_file_in_the_working_directory(self, flyctl: Runner, app: App) -> None:
        """A fly.toml that cannot be read is fatal, even where the app is named."""
        (flyctl.work / "fly.toml").write_text("= broken")
        outcome = await flyctl("secrets", "list", "--app", app.name)

        assert (1, []) == (outcome.code, outcome.requests)
        assert outcome.error.startswith(f"Error: failed loading app config from {flyctl.work}/fly.toml: ")

    async def test_a_configuration_directory_that_is_a_file(self, flyctl: Runner, app: App) -> None:
        """Where the configuration directory cannot be, nothing is sent."""
        flyctl.config.touch()
        outcome = await flyctl("secrets", "list", "--app", app.name)

        text = f"Error: the path to the config directory ({flyctl.config}) is occupied by not a directory"
        assert (1, text, []) == (outcome.code, outcome.error, outcome.requests)


class TestVersion:
    """Which flyctl it is."""

    async def test_as_json(self, flyctl: Runner) -> None:
        """`version --json` is one line, needs no token, and sends nothing."""
        outcome = await flyctl("version", "--json", without=["FLY_API_TOKEN"])
        keys = ["Name", "Version", "Commit", "BranchName", "BuildDate", "OS", "Architecture", "Environment"]

        assert (0, 1, []) == (outcome.code, outcome.stdout.count("\n"), outcome.requests)
        assert keys == list(json.loads(outcome.stdout))

    async def test_as_text(self, flyctl: Runner) -> None:
        """`version` names version, system and commit in one line."""
        outcome = await flyctl("version")
        shown = json.loads((await flyctl("version", "--json")).stdout)

        assert re.match(flyctl.name + r" v[0-9]\S+ \w+/\w+ Commit: \S+ BuildDate: 20\S+Z", outcome.stdout)
        assert " {OS}/{Architecture} Commit: {Commit} BuildDate: ".format(**shown) in outcome.stdout

    async def test_what_the_installer_calls(self, any_flyctl: Runner) -> None:
        """`version -s` writes a configuration file that switches updates on."""
        outcome = await any_flyctl("version", "-s", "shell")

        assert (0, "", "set update channel to shell\n") == (outcome.code, outcome.stdout, outcome.stderr)
        assert "auto_update: true\n" in (any_flyctl.config / "config.yml").read_text()


async def test_the_stand_in_is_any_version(fly: Fly, tmp_path: Path) -> None:
    """A launcher says that the stand-in is the version it was made for."""
    flyctl = Runner(launcher(tmp_path / "flyctl", version="0.4.5"), fly, tmp_path)
    outcome = await flyctl("version", "--json")

    assert "0.4.5" == json.loads(outcome.stdout)["Version"]


async def test_the_stand_in_works_anywhere(fly: Fly, tmp_path: Path) -> None:
    """Odd variables and an odd locale do not matter to the stand-in."""
    app = fly.add_app("acme-web")
    flyctl = Runner(launcher(tmp_path / "flyctl"), fly, tmp_path)
    (flyctl.work / "json.py").write_text("raise SystemExit(9)")
    env = {"LC_ALL": "C", "PYTHONPATH": str(flyctl.work), "PYTHONHOME": "/nowhere", "PYTHONUTF8": "0"}
    outcome = await flyctl("secrets", "set", *STAGE, "A=ü€", env=env)

    assert (0, "ü€") == (outcome.code, app.secrets["A"])


def test_the_stand_in_loads_little(tmp_path: Path) -> None:
    """A sync calls it five times: it imports nothing that takes longer than a call."""
    path = launcher(tmp_path / "flyctl")
    path.write_text(path.read_text().replace(" -I ", " -I -X importtime ", 1))
    done = subprocess.run([path, "version"], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE))

    assert {"flysync.sim.flyctl", "flysync.sim.flyctl_client", "json", "socket"} <= loaded
    assert set() == loaded & {"asyncio", "dataclasses", "datetime", "inspect", "pathlib", "ssl", "subprocess", "urllib"}


def _logs(config: Path) -> list[str]:
    return [path.read_text() for path in (config / "logs").glob("flyctl-*.log")]

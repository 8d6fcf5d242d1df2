"""`FLYSYNC_TOKEN_COMMAND`, as a process: projects whose apps are in organizations of their own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from flysync.sim import macaroon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Done, Platform

#: Gives the token of a project, and notes that it was asked.
_COMMAND = """
import json, pathlib, sys
here, given = pathlib.Path(__file__).parent, json.load(sys.stdin)
with open(here / "asked", "a") as asked:
    print(given["project"], given["app"], file=asked)
print(json.dumps({"token": json.loads((here / "tokens").read_text()).get(given["project"])}))
"""


class Tenants:
    """Two projects, each with an app in an organization of its own, and the command that gives their tokens."""

    def __init__(self, platform: Platform) -> None:
        self.platform, fly = platform, platform.world.fly
        self.tokens: dict[str, str | None] = {}
        self.made: list[str] = []
        for project in ("one", "two"):
            app = fly.add_app(f"app-of-{project}", org=project, machines=["m0"])
            token = macaroon.macaroon(macaroon.organization(app.number))
            fly.add_token(token, org=project)
            self.tokens[project] = token
            self.made.append(token)
            platform.deploy(project, app.name)
            platform.store(project, KEY=f"of {project}")
        (platform.home / "token.py").write_text(_COMMAND)

    def run(self, *arguments: str, **more: str) -> Done:
        """Run a command that has no other token."""
        (self.platform.home / "tokens").write_text(json.dumps(self.tokens))
        (self.platform.home / "asked").write_text("")
        environ = {"FLYSYNC_TOKEN_COMMAND": f"{sys.executable} {self.platform.home / 'token.py'}", **more}
        return self.platform.flysync(*arguments, "--json", without=("FLY_API_TOKEN",), environ=environ)

    @property
    def asked(self) -> list[str]:
        """For what the last command has asked, in the order of the projects."""
        return sorted((self.platform.home / "asked").read_text().splitlines())

    def env(self, project: str) -> dict[str, str]:
        """Give what the machine of a project runs with."""
        return dict(self.platform.world.fly.world.apps[f"app-of-{project}"].deployed_env("m0"))


@pytest.fixture
def tenants(platform: Platform) -> Iterator[Tenants]:
    tenants = Tenants(platform)
    yield tenants
    for project in ("one", "two"):
        del platform.world.fly.world.apps[f"app-of-{project}"]
    for token in tenants.made:
        platform.world.fly.refuse_token(token)


BOTH = ["one app-of-one", "two app-of-two"]


@pytest.mark.parametrize("narrow", [{}, {"FLYSYNC_NARROW_TOKEN": "app"}], ids=["as usual", "for the app"])
def test_each_project_is_synced_with_its_own_token(tenants: Tenants, narrow: dict[str, str]) -> None:
    """Asked for once in a run; not where there is nothing to do. Both are looked at from one sandbox."""
    synced = tenants.run("sync-project", "--all", **narrow)
    asked = [tenants.asked]
    again = tenants.run("sync-project", "--all", **narrow)
    asked.append(tenants.asked)
    before = len(tenants.platform.world.daytona.requests("^POST /api/sandbox"))
    live = tenants.run("status", "--live", **narrow)
    asked.append(tenants.asked)

    assert (0, 0, 0) == (synced.code, again.code, live.code), synced.stdout + live.stdout
    assert [BOTH, [], BOTH] == asked
    assert ({"KEY": "of one"}, {"KEY": "of two"}) == (tenants.env("one"), tenants.env("two"))
    assert ["running", "running"] == [line["live"] for line in live.json["status"]]
    assert before + 1 == len(tenants.platform.world.daytona.requests("^POST /api/sandbox"))


@pytest.mark.parametrize(
    ("tokens", "code", "told", "scope"),
    [
        (lambda its: its | {"one": its["two"]}, 1, "access_denied", "app"),
        (lambda its: its | {"one": "fo1_nobody"}, 1, "access_denied", "app"),
        (lambda its: {"two": its["two"]}, 1, "token_failed", "app"),
        (lambda its: its | {"one": "not a token"}, 1, "token_failed", "app"),
    ],
    ids=["another tenant's", "one that Fly refuses", "none", "junk"],
)
def test_a_bad_token_is_its_own_projects_trouble(
    tenants: Tenants, tokens: object, code: int, told: str, scope: str
) -> None:
    """The other one goes on; `status --live` shows it, too."""
    assert callable(tokens)
    tenants.tokens = tokens(tenants.tokens)
    done = tenants.run("sync-project", "--all")
    live = tenants.run("status", "--live")
    one, two = done.json["projects"]

    assert (code, told, scope) == (done.code, one["error"]["code"], one["error"]["scope"]), done.stdout
    assert (None, "FLYSYNC_TOKEN_COMMAND") == (two["error"], one["error"]["setting"])
    assert ({}, {"KEY": "of two"}) == (tenants.env("one"), tenants.env("two"))
    assert ["unknown", "running"] == [line["live"] for line in live.json["status"]]
    assert BOTH == tenants.asked


def test_a_doctor_asks_the_command(tenants: Tenants) -> None:
    """For the project that is named, and for the newest; no other token is needed."""
    fine = tenants.run("doctor", "--project", "one")
    tenants.tokens["two"] = tenants.tokens["one"]
    newest = tenants.run("doctor")
    found = [{one["subject"]: one["verdict"] for one in done.json["doctor"]} for done in (fine, newest)]

    assert (0, "ok", "ok", "ok") == (fine.code, *(found[0][key] for key in ("token command", "token", "app")))
    assert (1, "ok", "ok", "failed") == (newest.code, *(found[1][key] for key in ("token command", "token", "app")))
    assert "FLYSYNC_TOKEN_COMMAND" == newest.json["error"]["setting"]


def test_a_program_that_is_not_there(tenants: Tenants) -> None:
    """It is told before anything is opened; a stray file names none."""
    missing = tenants.run("sync-project", "--project", "one", FLYSYNC_TOKEN_COMMAND="no-such-program x")
    (tenants.platform.home / ".env").write_text("FLYSYNC_TOKEN_COMMAND=cat\n")
    stray = tenants.platform.flysync("sync-project", "--project", "one")
    (tenants.platform.home / ".env").unlink()

    assert (2, "config", "FLYSYNC_TOKEN_COMMAND") == (
        missing.code,
        *(missing.json["error"][key] for key in ("code", "setting")),
    )
    assert (2, True) == (stray.code, "FLYSYNC_TOKEN_COMMAND (.env:1)" in stray.stderr)

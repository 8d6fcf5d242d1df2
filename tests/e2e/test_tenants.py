"""`FLYSYNC_TOKEN_COMMAND`, as a process: projects whose apps are in organizations of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from queue_of_tests import until as come_true
from test_watch import standing, stopped, until
from test_worker import backend, says

from flysync.sim import macaroon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Done, Platform
    from queue_of_tests import Backend

__all__ = ["backend"]

#: Gives the token of a project, and notes that it was asked; a number is a status to end with, below 0 after a minute.
_COMMAND = """
import json, pathlib, sys, time
here, given = pathlib.Path(__file__).parent, json.load(sys.stdin)
with open(here / "asked", "a") as asked:
    print(given["project"], given["app"], file=asked)
token = json.loads((here / "tokens").read_text()).get(given["project"])
if isinstance(token, int):
    time.sleep(60 * (token < 0))
    sys.exit(token)
print(json.dumps({"token": token}))
"""


class Tenants:
    """Two projects, each with an app in an organization of its own, and the command that gives their tokens."""

    def __init__(self, platform: Platform) -> None:
        self.platform, fly = platform, platform.world.fly
        self.tokens: dict[str, str | int | None] = {}
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
        self.note()
        return self.platform.flysync(*arguments, "--json", environ=self.environ | more)

    def note(self) -> None:
        """Let the command give the tokens as they are now."""
        (self.platform.home / "tokens").write_text(json.dumps(self.tokens))
        (self.platform.home / "asked").write_text("")

    @property
    def environ(self) -> dict[str, str]:
        """The command, and no other token."""
        return {"FLYSYNC_TOKEN_COMMAND": f"{sys.executable} {self.platform.home / 'token.py'}", "FLY_API_TOKEN": ""}

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


def test_the_example_gives_what_a_table_has(tenants: Tenants) -> None:
    """And none for a project that has no row."""
    example = Path(__file__).parents[2] / "docs/fly_token.py"
    tenants.platform.execute("CREATE TABLE fly_tokens (project_id text, token text)")
    tenants.platform.execute("INSERT INTO fly_tokens VALUES ('two', %s)", tenants.tokens["two"])
    done = tenants.run("sync-project", "--all", FLYSYNC_TOKEN_COMMAND=f"{sys.executable} {example}")

    assert ["token_failed", None] == [one["error"] and one["error"]["code"] for one in done.json["projects"]], done
    assert {"KEY": "of two"} == tenants.env("two")


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


@pytest.mark.slow
@pytest.mark.parametrize("status", [3, -1], ids=["a failure", "no answer"])
def test_who_watches_goes_on_where_the_command_fails_for_one(tenants: Tenants, status: int) -> None:
    """The others do not wait for it; it is tried again, and when its row changes."""
    platform, token = tenants.platform, tenants.tokens["one"]
    tenants.tokens["one"] = status
    tenants.note()
    watcher = platform.start("watch", "--every", "1s", environ=tenants.environ)
    until(lambda: tenants.env("two") == {"KEY": "of two"})
    meanwhile = standing(platform, "one")
    until(lambda: standing(platform, "one") == [(False, "token_failed")])
    platform.store("two", KEY="newer")
    until(lambda: tenants.env("two") == {"KEY": "newer"})
    again_at = platform.execute("SELECT try_at > now() FROM flysync_projects WHERE project_id = 'one'")
    tenants.tokens["one"] = token
    tenants.note()
    platform.store("one", KEY="newer")
    until(lambda: tenants.env("one") == {"KEY": "newer"})
    until(lambda: standing(platform, "one") == [(True, None)])
    lines = stopped(watcher)

    assert status > 0 or [] == meanwhile
    assert [(True,)] == again_at
    assert not [line for line in lines if "held" in str(line) or "fm2_" in str(line)]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["daytona", "local"])
async def test_a_worker_goes_on_where_the_command_fails_for_one(
    tenants: Tenants, backend: Backend, runner: str
) -> None:
    """A job that it fails for now is tried again, one that gets none fails; others do not wait, and nothing is held."""
    platform, token = tenants.platform, tenants.tokens["one"]
    tenants.tokens["one"] = 3
    tenants.note()
    worker = backend.worker("--runner", runner, "--health-port", "0", **tenants.environ)
    later = await backend.add("KEY", project="one", attempts=1000, backoff=50)
    assert ["completed"] == await backend.ended(*[await backend.add("KEY", project="two")])

    async def is_tried_again() -> bool:
        return bool((await backend.look(later)).attemptsMade)

    await come_true(is_tried_again)
    ready = await says(worker, "/readyz")
    tenants.tokens["one"] = None
    tenants.note()
    assert ["failed"] == await backend.ended(later)
    tenants.tokens["one"] = token
    tenants.note()
    assert ["completed"] == await backend.ended(*[await backend.add("KEY", project="one")])

    assert (200, "ready\n") == ready
    assert "token_failed" in (await backend.look(later)).failedReason
    assert [("app-of-one",), ("app-of-two",)] == platform.execute(
        "SELECT DISTINCT app FROM flysync_secrets WHERE state = 'deployed' ORDER BY app"
    )
    assert ({"KEY": "of one"}, {"KEY": "of two"}) == (tenants.env("one"), tenants.env("two"))

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from canary import VALUE, Canary, Log
from doubles import InMemoryFly, InMemoryFlyctl, InMemoryLock, InMemoryRecords, InMemorySandboxes, InMemorySecrets
from play import QuickClock, canary_of

import flysync
from flysync import library
from flysync.adapters.daytona import DaytonaSandbox
from flysync.errors import FlyUnavailable
from flysync.model.allowed import Allowed
from flysync.model.core import SyncOptions
from flysync.ports import AnswerLost, Services
from flysync.secret import Secret

if TYPE_CHECKING:
    from platform_of_tests import Platform

    from flysync.model.core import RunId
    from flysync.ports import OwnTokens

CANARY = Canary({"value": VALUE})

#: Calls of the ports that a sync makes, as "part.method".
CALLS = (
    "records.view",
    "records.request",
    "records.begin",
    "records.stored",
    "records.begin_rollout",
    "records.end_rollout",
    "records.finish",
    "lock.try_acquire",
    "sandboxes.create",
    "sandboxes.remove",
    "flyctl.prepare",
    "store.batches",
    "store.stage",
    "store.look",
    "store.deploy",
)


class Buggy:
    """A part whose method *call* fails in a way that nobody foresaw, and says the value."""

    def __init__(self, part: Any, call: str, fail: Any) -> None:
        self._part = part
        self._call = call
        self._instead = fail or self._fail

    def __getattr__(self, name: str) -> Any:
        if name == self._call:
            return self._instead
        return getattr(self._part, name)

    def _fail(self, *_: object, **__: object) -> Any:
        raise RuntimeError(f"cannot do it with {VALUE}")


class BuggyWorld:
    """The world in memory, one method of which has a bug; or, with *fail*, does that instead."""

    def __init__(self, broken: str, fail: Any = None) -> None:
        self._part, _, self._call = broken.partition(".")
        self._fail = fail
        records = InMemoryRecords()
        records.add_project("p", "acme", KEY=VALUE)
        self.fly = InMemoryFly()
        app = self.fly.add_app("acme")
        app.crashes = int(broken == "records.end_rollout")
        if broken == "store.look":  # which is called where a change does not show what there is
            self.fly.failures["look"] = [FlyUnavailable("away")]
        self.boxes = InMemorySandboxes()
        nothing: Any = None
        self.services = Services(
            records=self._broken("records", records),
            admin=nothing,
            lock=self._broken("lock", InMemoryLock()),
            sandboxes=self._broken("sandboxes", self.boxes),
            clock=QuickClock(),
            allowed=Allowed(),
            keep_days=90,
            flyctl=self._flyctl,
        )

    def _flyctl(self, sandbox: Any, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> Any:
        del run_id, end_at, tokens
        made: Any = InMemoryFlyctl(self.fly, sandbox)
        made.secrets = lambda app: self._broken("store", InMemorySecrets(self.fly, sandbox, app))
        return self._broken("flyctl", made)

    def _broken(self, name: str, part: object) -> Any:
        return Buggy(part, self._call, self._fail) if name == self._part else part


@pytest.mark.parametrize("broken", CALLS)
async def test_a_bug_comes_out_of_the_library_without_a_value(broken: str) -> None:
    """It is told by kind and place; no text, no exception behind it and no frame has the value."""
    log, world = Log(), BuggyWorld(broken)
    with log.listening(), pytest.raises(RuntimeError) as caught:
        await library.sync_credentials_to_flyio("p", ["KEY"], services=world.services)

    assert [] == CANARY.in_exception(caught.value)
    assert [] == CANARY.found("\n".join(log.lines))
    assert "RuntimeError" in str(caught.value)
    assert "_fail" in str(caught.value)


@pytest.mark.parametrize("broken", [call for call in CALLS if call.startswith(("flyctl.", "store."))])
async def test_a_bug_leaves_no_sandbox(broken: str) -> None:
    """Whatever happens in it, it is deleted."""
    world = BuggyWorld(broken)
    with pytest.raises(RuntimeError):
        await library.sync_credentials_to_flyio("p", ["KEY"], services=world.services)

    assert {} == world.boxes.live


class _BrokenClient:
    """A client that has a bug, and quotes what it was given."""

    async def execute_command(self, request: object) -> None:
        raise TypeError(f"bad request: {request}")


async def test_a_bug_of_the_client_is_a_lost_answer_without_a_value() -> None:
    """What it says may quote the request: nobody hears it, and nobody knows whether the command ran."""
    broken: Any = _BrokenClient()
    with pytest.raises(AnswerLost) as caught:
        await DaytonaSandbox("box", broken).run("true", {"V1": Secret(VALUE)}, timeout_s=1)

    assert [] == CANARY.in_exception(caught.value)
    assert [] == CANARY.in_exception(caught.value.cause)
    assert "TypeError" in caught.value.cause.message


#: A module in the place of Daytona's client, which quotes the key in an error that nobody foresaw.
_CLIENT = """
from types import SimpleNamespace
__version__ = "0"
class Configuration:
    def __init__(self, **given): pass
class CreateSandbox(Configuration): pass
class ApiClient:
    def __init__(self, configuration):
        self.default_headers, self.rest_client = {}, SimpleNamespace(ssl_context=True)
class SandboxApi:
    def __init__(self, client): self.client = client
    @property
    def create_sandbox(self): raise KeyError(self.client.default_headers)
    async def get_sandbox(self, name): raise ApiException
    async def list_sandboxes(self, **given): return SimpleNamespace(items=[])
class ApiException(Exception):
    status, headers, body = 404, {}, ""
"""


@pytest.mark.parametrize("more", [("-vv",), ("--json", "-vv")], ids=["text", "json"])
def test_a_bug_is_shown_by_the_command_line_without_a_value(
    platform: Platform, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """`internal_error`, exit 1, with the places it came through."""
    package = tmp_path / "broken" / "daytona_api_client_async"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_CLIENT)
    (package / "exceptions.py").write_text("from daytona_api_client_async import ApiException")
    platform.world.fly.add_app("buggy")
    platform.deploy("p", "buggy")
    platform.store("p", KEY=VALUE)
    places = os.pathsep.join(map(str, (package.parent, Path(flysync.__file__).parents[1])))
    done = platform.flysync("sync", "--project", "p", "--name", "KEY", *more, PYTHONPATH=places, cold=True)

    assert (1, []) == (done.code, canary_of(platform.world, VALUE).found(done.stdout + done.stderr))
    assert "in create" in done.stderr
    assert "KeyError" in done.stderr
    if "--json" in more:
        assert "internal_error" == done.json["error"]["code"]


_LAST_STOP = """
import os, sys
from flysync.cli import main as cli
@cli.app.command()
def broken() -> None:
    raise RuntimeError(os.environ["CANARY"]) from ValueError(os.environ["CANARY"])
sys.argv = ["flysync", *sys.argv[1:], "broken"]
cli.main()
"""


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_the_last_stop_tells_no_text_of_a_bug(more: tuple[str, ...]) -> None:
    """Even where no command's own care is left."""
    command = [sys.executable, "-c", _LAST_STOP, *more]
    done = subprocess.run(command, env=os.environ | {"CANARY": VALUE}, capture_output=True, check=False)

    assert (1, []) == (done.returncode, CANARY.found(done.stdout + done.stderr))
    assert b"RuntimeError" in done.stderr


@pytest.mark.parametrize("call", ["records.view", "store.stage", "store.deploy", "sandboxes.create"])
async def test_a_sync_that_is_cut_short_holds_no_value(call: str) -> None:
    """Cancelled or out of time in the middle of a call: the report's error and what is behind it are clean."""

    async def hold(*_: object, **__: object) -> None:
        revealed = VALUE
        await asyncio.sleep(60)
        del revealed

    services = BuggyWorld(call, hold).services
    report = await library.sync_credentials_to_flyio("p", ["KEY"], SyncOptions(timeout_s=0.2), services=services)

    assert report.error is not None
    assert report.error.temporary
    assert (None, None) == (report.error.__cause__, report.error.__context__)
    assert [] == CANARY.in_exception(report.error)

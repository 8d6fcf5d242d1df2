"""Proofs of the simulated world: it keeps each promise; where it is broken on purpose, the right line says so."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from parts import goes_away
from test_trust import named, sums

from flysync.handlers.prove.promises import PROMISES
from flysync.sim import flyctl as stand_in, macaroon
from flysync.sim.fly_machine import Crash
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from platform_of_tests import Done, Platform, Running

    from flysync.sim.fly_state import App

PREFIX = "FLYSYNC_PROVE_"
PROVE = ("prove", "--app", "throwaway", "--yes")


@pytest.fixture
def app(platform: Platform) -> Iterator[App]:
    """An app to break, which fails with the value that is meant for it; no secret of a proof is left there."""
    app = platform.world.fly.add_app("throwaway", machines=2, secrets={"ITS_OWN": "untouched"})
    for machine in app.machines:
        machine.crash = Crash(restarts=1_000_000, secrets={f"{PREFIX}CRASH": "1"})
    yield app
    assert {"ITS_OWN": "untouched"} == app.secrets


def environ(platform: Platform) -> dict[str, str]:
    """Give settings with which flyctl's sum is checked, and with which the network can be limited."""
    return {**named(platform), **sums(platform), "FLYSYNC_EGRESS": "open"}


def verdicts(done: Done) -> dict[str, str]:
    """Give what the lines came to, by name."""
    return {line["name"]: line["verdict"] for line in done.json["prove"]["lines"]}


def others(done: Done) -> dict[str, tuple[str, str]]:
    """Give those that are not proven, with what was seen."""
    lines = done.json["prove"]["lines"]
    return {line["name"]: (line["verdict"], line["seen"]) for line in lines if line["verdict"] != "proven"}


def prove(platform: Platform, *lines: str, **more: str) -> Done:
    """Prove some lines, or all."""
    only = [word for line in lines for word in ("--only", line)]
    return platform.flysync(*PROVE, *only, "--json", environ=environ(platform) | more)


def schemas(platform: Platform) -> list[tuple[Any, ...]]:
    """Give the schema of a proof, if it is there."""
    return platform.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'flysync_prove'")


@pytest.mark.usefixtures("app")
@pytest.mark.measured
@pytest.mark.slow
def test_all_of_it_is_proven_here(platform: Platform) -> None:
    """With parts, steps and settings, those that it names set already; no table of the platform has changed."""
    done = prove(platform, FLYSYNC_EGRESS="fly", FLYSYNC_NARROW_TOKEN="app")
    proof = done.json["prove"]

    assert (0, {}) == (done.code, others(done))
    assert [promise.name for promise in PROMISES] == [*verdicts(done)]
    assert {"FLYSYNC_NARROW_TOKEN": "app", "FLYSYNC_EGRESS": "fly"} == proof["settings"]
    assert {"create", "set", "deploy", "delete", "fence"} <= proof["steps"].keys()
    assert re.match(r"\d+\.\d+\.\d+", proof["parts"]["flyctl"])
    assert [] == schemas(platform) + platform.execute("SELECT 1 FROM flysync_runs")


def test_a_line_of_its_own(platform: Platform, app: App) -> None:
    """It makes what it needs, in text as well; the value is nowhere in it."""
    done = platform.flysync(*PROVE, "--only", "arrives", environ=environ(platform))

    assert 0 == done.code, done
    assert "✓ arrives: the value that arrives is the stored value, byte for byte: proven" in done.stdout
    assert "✓ leaves-nothing" in done.stdout
    assert [2, 2] == [*app.restarts.values()]
    assert [] == schemas(platform)


@contextmanager
def changed(thing: object, **methods: Callable[..., object]) -> Iterator[None]:
    """Let methods of a simulated thing do something else; each gets the original one first."""

    def other(original: Callable[..., object], method: Callable[..., object]) -> Callable[..., object]:
        return lambda *given, **more: method(original, *given, **more)

    for name, method in methods.items():
        setattr(thing, name, other(getattr(thing, name), method))
    try:
        yield
    finally:
        for name in methods:
            delattr(thing, name)


@contextmanager
def a_byte_is_changed(_: Platform, app: App) -> Iterator[None]:
    """On its way to Fly."""

    def update(original: Callable[..., int], values: dict[str, str | None], **more: Any) -> int:
        return original({name: value and value.replace("\r", "\n") for name, value in values.items()}, **more)

    with changed(app.vault, update=update):
        yield


@contextmanager
def each_deploy_restarts_twice(_: Platform, app: App) -> Iterator[None]:
    """The machine ends right after its update, and is started again."""

    def update(original: Callable[..., None], machine: Any, **more: Any) -> None:
        original(machine, **more)
        if machine.state == "started" and machine.restarts == 2:  # a deploy with them takes ten seconds
            machine.exit(requested=True)
            machine.start()

    with changed(app, update_machine=update):
        yield


@contextmanager
def old_secrets_are_used(_: Platform, app: App) -> Iterator[None]:
    """A machine is started with what it had."""

    def update(original: Callable[..., None], machine: Any, **more: Any) -> None:
        original(machine, **more | {"min_secrets_version": 0})

    with changed(app, update_machine=update):
        yield


@contextmanager
def nothing_is_unset(_: Platform, app: App) -> Iterator[None]:
    """Fly says that it has removed them."""

    def update(original: Callable[..., int], values: dict[str, str | None], **more: Any) -> int:
        return original({name: value for name, value in values.items() if value is not None}, **more)

    with changed(app.vault, update=update):
        yield


@contextmanager
def deletes_do_nothing(platform: Platform, _: App) -> Iterator[None]:
    """Daytona says that it has deleted a sandbox."""
    faults = platform.world.daytona.faults
    fault = Fault(match="DELETE /api/sandbox/", kind=FaultKind.STATUS, status=200, body="{}", times=1_000)
    faults.append(fault)
    yield
    faults.remove(fault)
    for sandbox in [*platform.world.daytona.sandboxes.values()]:
        platform.call(platform.world.daytona.delete(sandbox))


@contextmanager
def _tokens(platform: Platform, honoured: Callable[..., object]) -> Iterator[None]:
    with changed(platform.world.fly.world, honoured=honoured):
        yield


@contextmanager
def tokens_for_one_app_are_refused(platform: Platform, _: App) -> Iterator[None]:
    """Those that are narrowed in time alone are good."""

    def honoured(original: Callable[[str], Any], value: str) -> object:
        known = original(value)
        return None if known is not None and known.numbers is not None else known

    with _tokens(platform, honoured):
        yield


@contextmanager
def tokens_for_one_app_open_all(platform: Platform, _: App) -> Iterator[None]:
    """The caveat is ignored."""

    def honoured(original: Callable[[str], Any], value: str) -> object:
        known = original(value)
        return known and replace(known, numbers=None)

    with _tokens(platform, honoured):
        yield


@contextmanager
def tokens_never_end(platform: Platform, _: App) -> Iterator[None]:
    """The caveat is ignored."""
    whole = platform.environ["FLY_API_TOKEN"]

    def honoured(original: Callable[[str], Any], value: str) -> object:
        return original(value) or (original(whole) if macaroon.narrows(whole, value) else None)

    with _tokens(platform, honoured):
        yield


@contextmanager
def any_token_is_good(platform: Platform, _: App) -> Iterator[None]:
    """Whoever asks is let in."""

    def honoured(original: Callable[[str], Any], value: str) -> object:
        return original(value) or (original("test-token") if value.startswith("fo1_") else None)

    with _tokens(platform, honoured):
        yield


@contextmanager
def _looks(platform: Platform, app: App, listed: Callable[..., object]) -> Iterator[None]:
    """Let Fly's list be another for whoever only looks, from a sandbox in which none was set."""
    setting: set[str] = set()

    def update(original: Callable[..., int], values: dict[str, str | None], **more: Any) -> int:
        setting.update(platform.world.daytona.sandboxes)
        return original(values, **more)

    def told(original: Callable[..., object], moment: Any) -> object:
        is_look = not setting >= {*platform.world.daytona.sandboxes}
        return (listed if is_look else lambda found: found)(original(moment))

    with changed(app.vault, listed=told, update=update):
        yield


@contextmanager
def a_look_restarts(platform: Platform, app: App) -> Iterator[None]:
    """Whoever lists the secrets has a machine restarted."""

    def listed(found: object) -> object:
        app.machines[0].exit(requested=True)
        app.machines[0].start()
        return found

    with _looks(platform, app, listed):
        yield


@contextmanager
def the_list_lies(platform: Platform, app: App) -> Iterator[None]:
    """It has a digest that no value has."""

    def listed(found: list[dict[str, object]]) -> object:
        lies = {f"{PREFIX}QUOTES": {"digest": "0" * 16}}
        return [one | lies.get(str(one["name"]), {}) for one in found]

    with _looks(platform, app, listed):
        yield


@contextmanager
def failing_is_not_possible(_: Platform, app: App) -> Iterator[None]:
    """The image does not look at the value."""
    for machine in app.machines:
        machine.crash = None
    yield


BROKEN = [
    (a_byte_is_changed, "arrives", "FLYSYNC_PROVE_LINES in "),
    (old_secrets_are_used, "runs", "not what the row has: FLYSYNC_PROVE_ONE in "),
    (each_deploy_restarts_twice, "one-restart", "starts of the machines: 2, 2"),
    (a_look_restarts, "no-restart", "starts of the machines: "),
    (the_list_lies, "list", "status --live ended with exit 3"),
    (nothing_is_unset, "unsets", "it ended with "),
    (deletes_do_nothing, "leaves-nothing", "sandbox flysync-"),
    (tokens_for_one_app_are_refused, "app-alone", "Fly refuses a token that is narrowed to the app"),
    (tokens_for_one_app_open_all, "app-alone", "a token that is narrowed to another app opens this one"),
    (tokens_never_end, "token-ends", "a token that ended an hour ago opens the app"),
    (any_token_is_good, "says-no", "exit 0"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "line", "seen"), BROKEN, ids=lambda one: getattr(one, "__name__", None))
def test_the_right_line_says_what_is_broken(
    platform: Platform, app: App, fault: Callable[[Platform, App], Any], line: str, seen: str
) -> None:
    """And exit 1 does; what is left then, the next proof removes."""
    with fault(platform, app):
        done = prove(platform, line)
    found = {one["name"]: (one["verdict"], one["seen"]) for one in done.json["prove"]["lines"]}

    assert (1, "not_proven", "not proven") == (done.code, done.json["error"]["code"], found[line][0]), found
    assert seen in found[line][1]
    if found["leaves-nothing"][0] == "not proven":
        assert [(1,)] == schemas(platform)
        assert 0 == prove(platform, "token-ends").code
    assert [] == schemas(platform)


@pytest.mark.slow
def test_an_egress_limit_that_is_ignored(platform: Platform, app: App, tmp_path: Path) -> None:
    """In a sandbox whose curl reaches every host."""
    del app
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\ncase "$*" in *example.com*) printf 200 ;; *) exec /usr/bin/curl "$@" ;; esac\n')
    curl.chmod(0o755)
    platform.world.daytona.add_snapshot("open", files={"curl": curl})
    done = prove(platform, "egress", FLYSYNC_SNAPSHOT="open")

    assert (1, "not proven") == (done.code, verdicts(done)["egress"]), done
    assert "FLYSYNC_EGRESS=fly does not hold" in done.json["prove"]["lines"][0]["seen"]
    assert "FLYSYNC_EGRESS" not in done.json["prove"]["settings"]


@pytest.mark.slow
@pytest.mark.usefixtures("app")
def test_a_flyctl_that_cannot_be_downloaded_is_no_broken_promise(platform: Platform, tmp_path: Path) -> None:
    """Where the archive is out of reach, there is none whose sum could be another."""
    flyctl = stand_in.launcher(tmp_path / "flyctl")
    platform.world.daytona.add_snapshot("summed", files={"flyctl": flyctl})
    platform.world.fly.faults.append(Fault(match="GET /flyctl/flyctl_", status=404, times=1_000))
    own = hashlib.sha256(flyctl.read_bytes()).hexdigest()
    done = prove(platform, "sum", FLYSYNC_SNAPSHOT="summed", FLYSYNC_FLYCTL_SHA256=own)
    platform.world.fly.faults.clear()
    verdict, seen = others(done)["sum"]

    assert (0, "not possible here") == (done.code, verdict), done
    assert "flyctl's archive could not be downloaded; the flyctl on the PATH was not run" in seen


@pytest.mark.slow
def test_an_app_without_a_machine_proves_nothing_and_breaks_nothing(platform: Platform, app: App) -> None:
    """But for what a token may do."""
    app.machines.clear()
    done = prove(platform, "runs", "no-restart", "joins", "token-ends")
    seen = ("not possible here", "the app has no machine")

    assert (0, dict.fromkeys(("runs", "no-restart", "joins"), seen)) == (done.code, others(done)), done


@pytest.mark.slow
def test_a_machine_that_rests_breaks_no_promise(platform: Platform, app: App) -> None:
    """Fly keeps one as a standby where an app serves nothing, or has stopped one that nobody asks."""
    app.machines[1].exit(requested=True)
    done = prove(platform, "one-restart", "no-restart", "joins", "unsets")

    assert (0, {}) == (done.code, others(done)), done


@pytest.mark.slow
@pytest.mark.usefixtures("app")
def test_a_fly_that_is_busy_breaks_no_promise(platform: Platform) -> None:
    """It takes a request a second of each kind."""
    busy = [Fault(match="POST .*/exec$", status=status, times=2) for status in (429, 503)]
    platform.world.fly.faults.extend(busy)
    done = prove(platform, "arrives")

    assert (0, {}, [0, 0]) == (done.code, others(done), [fault.times for fault in busy]), done


@pytest.mark.slow
def test_what_is_not_possible_here_is_no_failure(platform: Platform, app: App) -> None:
    """It says why."""
    with failing_is_not_possible(platform, app):
        done = prove(platform, "fails")
    line = done.json["prove"]["lines"][0]

    assert (0, "not possible here") == (done.code, line["verdict"]), line
    assert "the app runs on with FLYSYNC_PROVE_CRASH=1" in line["seen"]


def begun(platform: Platform, app: App, *words: str) -> Running:
    """Start a proof, and wait until the app has values of it."""
    running = platform.start(*PROVE, *words, "--json", environ=environ(platform))
    end = time.monotonic() + 60
    while not any(name.startswith(PREFIX) for name in app.secrets):
        assert time.monotonic() < end
        assert running.process.poll() is None
        time.sleep(0.05)
    return running


@pytest.mark.slow
@pytest.mark.parametrize("where", [(), ("--embedded",)])
def test_what_a_killed_one_leaves_the_next_one_removes(platform: Platform, app: App, where: tuple[str, ...]) -> None:
    """Its secrets, its sandbox and its schema, or what nobody's records know; it goes on by itself after that."""
    running = begun(platform, app, *where)
    running.process.kill()
    running.done()
    assert ([] if where else [(1,)]) == schemas(platform)

    done = platform.flysync(*PROVE, *where, "--only", "hidden", "--json", environ=environ(platform))
    assert (0, {"hidden": "proven", "leaves-nothing": "proven"}) == (done.code, verdicts(done)), done
    assert [] == schemas(platform)


def commands_of(proof: int) -> list[int]:
    """Give the processes that a proof has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, parent = stat.read_bytes().rpartition(b") ")[2].split()[:2]
            found += [int(stat.parent.name)] if int(parent) == proof and state != b"Z" else []
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_no_command_outlives_the_proof(platform: Platform, number: signal.Signals) -> None:
    """Not even one that would run for ever; and the next proof removes what is left."""
    running = platform.start(*PROVE, "--only", "row-alone", "-v", environ=environ(platform))
    watching: list[int] = []
    end = time.monotonic() + 120
    while not watching:
        assert time.monotonic() < end
        words = {pid: Path(f"/proc/{pid}/cmdline") for pid in commands_of(running.process.pid)}
        with suppress(OSError):
            watching = [pid for pid, path in words.items() if b"\0watch\0" in path.read_bytes()]
        time.sleep(0.02)
    running.process.send_signal(number)
    running.done()
    try:
        assert goes_away(watching[0], "/nowhere")
    finally:
        with suppress(ProcessLookupError):
            os.kill(watching[0], signal.SIGKILL)

    assert 0 == prove(platform, "hidden").code
    assert [] == schemas(platform)


@pytest.mark.slow
def test_ctrl_c_ends_it_with_nothing_left(platform: Platform, app: App) -> None:
    """Exit 130."""
    running = begun(platform, app)
    os.kill(running.process.pid, signal.SIGINT)
    done = running.done()

    assert (130, "interrupted", []) == (done.code, done.json["error"]["code"], schemas(platform)), done


@pytest.mark.slow
def test_it_goes_no_further_than_it_may(platform: Platform, app: App) -> None:
    """In time and restarts; what it makes is removed all the same."""
    short = platform.flysync(*PROVE, "--timeout", "1s", "--json", environ=environ(platform))
    few = platform.flysync(*PROVE, "--only", "one-restart", "--restarts", "2", "--json", environ=environ(platform))

    seen = {line["name"]: line["seen"] for line in short.json["prove"]["lines"]}
    assert (1, {"not tried: the time was over (--timeout)"}) == (short.code, {seen["fails"], seen["hidden"]}), short
    line = few.json["prove"]["lines"][0]
    assert (1, "not proven") == (few.code, line["verdict"])
    assert max(app.restarts.values()) <= 3  # those of the short one
    assert "--restarts" in line["seen"]
    assert [] == schemas(platform)


@pytest.mark.slow
def test_it_asks_first_and_takes_nobodys_app(platform: Platform, app: App) -> None:
    """Nor a schema that it has not made, nor an app that is not allowed; nothing is begun then."""
    settings = environ(platform)
    asked = platform.flysync(*PROVE[:3], "--only", "token-ends", environ=settings)
    not_allowed = prove(platform, "token-ends", FLYSYNC_APPS="acme-*")
    no_line = platform.flysync(*PROVE, "--only", "magic", environ=settings)
    no_app = platform.flysync("prove", "--app", "nowhere", "--yes", "--json", environ=settings)
    later = prove(platform, "token-ends", DAYTONA_API_URL="http://127.0.0.1:9/api")
    assert [(1,)] == schemas(platform)
    assert 0 == prove(platform, "token-ends").code
    platform.execute("CREATE SCHEMA flysync_prove")
    not_ours = prove(platform, "token-ends")
    platform.execute("DROP SCHEMA flysync_prove")
    platform.deploy("p", app.name)
    not_mine = prove(platform, "token-ends")

    assert (75, "not_proven", True) == (later.code, later.json["error"]["code"], later.json["error"]["temporary"])
    assert (2, True) == (asked.code, "nobody can answer: Set, change and remove secrets FLYSYNC_PROVE_" in asked.stderr)
    assert (1, "not_allowed") == (not_allowed.code, not_allowed.json["error"]["code"])
    assert (1, "Fly.io knows no app nowhere") == (no_app.code, no_app.json["error"]["message"])
    assert (2, True) == (no_line.code, "there are arrives, runs, " in no_line.stderr)
    assert (2, True) == (not_ours.code, "a schema flysync_prove that" in not_ours.json["error"]["message"])
    assert (2, True) == (not_mine.code, "throwaway is the app of project p" in not_mine.json["error"]["message"])
    assert ([], [0, 0]) == (schemas(platform), [*app.restarts.values()])


@pytest.mark.slow
@pytest.mark.usefixtures("app")
def test_without_daytona_and_with_a_postgres_of_its_own(platform: Platform, tmp_path: Path) -> None:
    """All lines but the one about the sandbox's network."""
    (tmp_path / "bin").mkdir()
    stand_in.launcher(tmp_path / "bin" / "flyctl")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    where = ("--runner", "local", "--embedded", "--json")
    without = ("DATABASE_URL", "DAYTONA_API_KEY")
    with TemporaryDirectory() as directory:  # other tests have sandboxes on this machine as well
        Path(directory).chmod(0o711)  # the server runs as somebody else
        here = {"PATH": path, "TMPDIR": directory}
        done = platform.flysync(*PROVE, *where, environ=environ(platform) | here, without=without)

    assert ["egress: not possible here"] == [f"{name}: {verdict}" for name, (verdict, _) in others(done).items()], done
    assert 0 == done.code

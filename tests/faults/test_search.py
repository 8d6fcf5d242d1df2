from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

import psycopg
import pytest
from canary import VALUE, Canary, Log, forms
from play import rows

from flysync.model.macaroon import narrowed
from flysync.secret import Secret
from flysync.sim import macaroon as made
from flysync.sim.loopback import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import LiteralString

CANARY = Canary({"value": VALUE})


def record(method: str, path: str, *, body: str = "", query: str = "", **headers: str) -> Record:
    return Record(method=method, path=path, query=query, headers=headers, body=body.encode(), at=0.0)


@pytest.mark.parametrize("form", sorted({form for form, _ in forms(VALUE)}))
def test_each_form_is_found(form: str) -> None:
    """Whole, in part, by line, and in whatever way it was written down."""
    for piece in (piece for name, piece in forms(VALUE) if name == form):
        assert [] != CANARY.found(b"before " + piece + b" after")


@pytest.mark.parametrize(
    "write",
    [json.dumps, repr, shlex.quote, quote, lambda v: base64.b64encode(f"NAME={v}".encode()).decode()],
    ids=["JSON", "repr", "shell", "URL", "base64 within more"],
)
def test_what_others_write_is_found(write: Callable[[str], str]) -> None:
    """The forms are those that other programs produce."""
    assert [] != CANARY.found(write(VALUE))
    assert [] == CANARY.found(write("something else, of about the same length and shape"))


def test_a_secret_shows_none_of_it() -> None:
    """What the search would find is not in a Secret's texts."""
    secret = Secret(VALUE)

    assert [] == CANARY.found(f"{secret} {secret!r} {[secret]} {secret:>40}")


def test_files_are_searched(tmp_path: Path) -> None:
    """Contents and names, wherever they lie, whatever may be done with them."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_text(f"A={VALUE}", "utf-8")
    (tmp_path / "deep" / VALUE[-8:]).touch(0o700)

    assert 2 <= len(CANARY.in_files(tmp_path))


class _Loud(Exception):
    def __init__(self, message: str, told: object = None) -> None:
        super().__init__(message)
        self.told = told


def _caught(raiser: Callable[[], NoReturn]) -> BaseException:
    try:
        raiser()
    except Exception as error:  # noqa: BLE001 - any
        return error


def _in_text() -> NoReturn:
    raise _Loud(f"cannot send {VALUE}")


def _in_an_attribute() -> NoReturn:
    raise _Loud("quiet", told=VALUE)


def _behind() -> NoReturn:
    try:
        _in_text()
    except _Loud:
        raise _Loud("quiet") from None


def _in_the_cause() -> NoReturn:
    raise _Loud("quiet") from _Loud(VALUE)


@pytest.mark.parametrize("raiser", [_in_text, _in_an_attribute, _behind, _in_the_cause])
def test_exceptions_are_searched(raiser: Callable[[], NoReturn]) -> None:
    """Text, attributes, and what is behind them, hidden or not."""
    assert [] != CANARY.in_exception(_caught(raiser))
    assert [] == CANARY.in_exception(_Loud("quiet"))


def test_the_frames_of_an_exception_are_searched() -> None:
    """Locals of code that is no test's."""
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(VALUE)
    error = caught.value
    error.doc = ""

    assert [] != CANARY.in_exception(error)


@pytest.mark.parametrize(
    ("service", "sent"),
    [
        ("fly", record("GET", f"/v1/apps/{VALUE[:8]}/secrets")),
        ("fly", record("GET", "/graphql", **{"User-Agent": VALUE})),
        ("fly", record("POST", "/graphql", body=VALUE)),
        ("daytona", record("POST", "/api/sandbox", body=json.dumps({"env": {"A": VALUE}}))),
        (
            "daytona",
            record("POST", "/toolbox/1/process/execute", body=json.dumps({"command": f"steps/1-set {VALUE}"})),
        ),
        (
            "daytona",
            record("POST", "/toolbox/1/process/execute", body=json.dumps({"command": "1-list", "envs": {"V1": VALUE}})),
        ),
    ],
)
def test_requests_are_searched(service: str, sent: Record) -> None:
    """Everything that is sent, but for the places that have to carry a value."""
    assert [] != CANARY.in_records(service, [sent])


@pytest.mark.parametrize("app_id", [None, 7])
def test_a_token_that_is_not_narrowed_is_found(app_id: int | None) -> None:
    """Though it is where a token has to be; one that was made of it is not, nor is what flysync itself asks."""
    wide = made.macaroon(made.organization(9))
    search, less = Canary({"Fly token": wide}), narrowed(wide, until=2**31, app_id=app_id)

    def sent(token: str) -> list[str]:
        body = json.dumps({"command": "steps/1-list", "envs": {"V0": token}})
        step = record("POST", "/toolbox/1/process/execute", body=body)
        asked = record("GET", "/v1/apps/a", Authorization=f"FlyV1 {token}")
        return [*search.in_records("daytona", [step]), *search.in_records("fly", [asked])]

    assert 2 == len(sent(wide)) == len(sent(f"fm2_abc,{wide}"))
    assert [] == sent(less)
    own = {"Authorization": f"FlyV1 {wide}", "User-Agent": "flysync"}
    assert [] == search.in_records("fly", [record("GET", "/v1/apps/a", **own)])


def test_requests_that_must_carry_a_value_may() -> None:
    """One to Daytona, one to Fly."""
    command = json.dumps({"command": "steps/1-set", "envs": {"V1": VALUE}})
    secrets = json.dumps({"values": {"A": VALUE}})

    assert [] == CANARY.in_records("daytona", [record("POST", "/toolbox/1/process/execute", body=command)])
    assert [] == CANARY.in_records("fly", [record("POST", "/v1/apps/a/secrets", body=secrets)])


@contextlib.contextmanager
def _running(*argv: str, **environ: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()", *argv], env=environ, stdin=subprocess.PIPE) as process:
        time.sleep(0.05)  # until it is no longer this process' copy
        yield process.pid
        process.communicate(b"\n")


def test_processes_are_searched() -> None:
    """Arguments and environment, of any process but those of a sandbox."""
    canary = Canary({"value": "a0c3e9d1-only-in-this-test-7f2b"})
    value = canary.values["value"]
    nobody, nowhere = 0, Path("/nowhere")
    with _running(value) as pid:
        assert any(what.startswith(f"argv of {pid}") for what in canary.in_processes(mine=nobody, sandboxes=nowhere))
    with _running(A=value) as pid:
        assert any(f"environment of {pid}" in what for what in canary.in_processes(mine=pid, sandboxes=nowhere))
    with tempfile.TemporaryDirectory() as home, _running(value, HOME=home):
        assert [] == canary.in_processes(mine=nobody, sandboxes=Path(home))


def test_logs_are_searched() -> None:
    """Every logger, at its most verbose, with its tracebacks."""
    log = Log()
    with log.listening():
        logging.getLogger("somebody.else").debug("sending %s", VALUE)
    try:
        _in_text()
    except _Loud:
        with log.listening():
            logging.getLogger("somebody.else").exception("quiet")

    assert [True, True] == [CANARY.found(line) != [] for line in log.lines]


def test_rows_are_searched(database: str) -> None:
    """Each of the tables that flysync writes."""
    inserts: tuple[LiteralString, ...] = (
        "INSERT INTO project_actions (project_id, action, status, details) VALUES ('p', 'a', 's', %s)",
        "INSERT INTO flysync_secrets (app, name, project_id, state) VALUES ('a', %s, 'p', 'stored')",
        "INSERT INTO flysync_runs (run_id, project_id, names, origin, actor, reason, finished_at) "  # noqa: ISC004
        "VALUES ('r', 'p', '{}', 'cli', 'me', %s, now())",
    )
    for insert in inserts:
        value = json.dumps({"v": VALUE}) if "details" in insert else VALUE
        with psycopg.connect(database) as connection:
            connection.execute(insert, (value,))
        found = CANARY.found(asyncio.run(rows(database)))
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("TRUNCATE project_actions, flysync_secrets, flysync_runs")

        assert [] != found

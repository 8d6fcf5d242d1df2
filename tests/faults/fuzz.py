"""
Whatever comes in at an entrance of flysync, it ends with a report or an error of ours, and tells no value.

Each case is made by chance, of the seed, its entrance and its number: what a failure prints makes it again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import random
import re
import sys
import tempfile
import time
import traceback
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from aiohttp import web
from canary import Log
from doubles import InMemoryFly, InMemoryFlyctl, InMemoryJobs, InMemoryLock, InMemoryRecords, InMemorySandboxes
from odd import CANARY, Case

from flysync import SyncOptions, library, settings as settings_
from flysync.adapters.bullmq import BullmqJobs
from flysync.adapters.clock import RealClock
from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.daytona_snapshots import DaytonaSnapshots
from flysync.adapters.flyctl import FlyctlRecipe, FlyctlSandbox, Source, Steps
from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresRecords
from flysync.cli import render
from flysync.cli.main import _failed, app
from flysync.cli.output import Output
from flysync.errors import FlysyncError
from flysync.handlers.history import history
from flysync.handlers.status import status
from flysync.handlers.status_all import Selection, status_all
from flysync.handlers.sync.entry import sync_project, unset_secrets
from flysync.model.allowed import Allowed
from flysync.model.core import ProjectId, RunId, SecretName
from flysync.model.reports import Report
from flysync.ports import AnswerLost, NotSent, Services
from flysync.secret import Secret
from flysync.settings import dotenv
from flysync.sim.loopback import Loopback
from flysync.sim.postgres import EmbeddedPostgres
from flysync.worker.options import WorkerOptions
from flysync.worker.process import Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from flysync.ports import OwnTokens

    #: Tries a case, and gives what it tells: reports, errors, and whatever is shown of other things.
    Entrance = Callable[[Case], Awaitable[list[object]]]

P = ProjectId("p")
EXIT_CODES = {0, 1, 2, 3, 75, 129, 130, 143}
#: Seconds for a case: no call that is made here has a longer limit.
_LIMIT_S = 60
#: Settings with which every command comes as far as it can, and to nobody.
NOWHERE = {
    "DATABASE_URL": f"postgresql://u:{CANARY}@127.0.0.1:1/x",
    "REDIS_URL": f"redis://:{CANARY}@127.0.0.1:1/0",
    "DAYTONA_API_URL": "http://127.0.0.1:1",
    "DAYTONA_API_KEY": CANARY,
    "FLY_API_TOKEN": CANARY,
    "FLYSYNC_NO_KEYRING": "1",
}
#: The addresses of databases with all tables: one that looks at what a text is, and one that takes any bytes.
DATABASES: list[str] = []


class SkippingClock(RealClock):
    """A clock whose pauses are over at once."""

    def __init__(self) -> None:
        self.skipped_s = 0.0

    def monotonic(self) -> float:
        """Give the time with all that was skipped."""
        return super().monotonic() + self.skipped_s

    async def sleep(self, seconds: float) -> None:
        """Let others go on."""
        self.skipped_s += max(0.0, seconds)
        await asyncio.sleep(0)


def services(**parts: Any) -> Services:
    """Give a world in memory, with one project on one app, but for *parts*."""
    records, fly = InMemoryRecords(), InMemoryFly()
    records.add_project("p", "acme", A=CANARY, B="2")
    fly.add_app("acme", machines=1)
    world: dict[str, Any] = {"records": records, "lock": InMemoryLock(), "sandboxes": InMemorySandboxes()}
    world["flyctl"] = lambda sandbox, _run_id, **_: InMemoryFlyctl(fly, sandbox)
    world |= {"admin": None, "clock": SkippingClock(), "allowed": Allowed(), "keep_days": 90}
    return Services(**world | parts)


async def ended(work: Awaitable[object]) -> object:
    """Give the result, or the error of ours."""
    try:
        return await work
    except FlysyncError as error:
        return error
    except (NotSent, AnswerLost) as error:
        return error.cause


async def settings(case: Case) -> list[object]:
    """All settings, from the environment and from a file."""
    values = {name: case.text("1", "x", "http://127.0.0.1") for name in settings_.VARIABLES if case.perhaps(0.4)}
    values |= {name: CANARY + case.text() for name in settings_.SECRETS if case.perhaps(0.3)}
    values[case.text("FLYSYNC_X")] = case.text()
    content = "\n".join(f"{name}={value}" for name, value in values.items()).encode("utf-8", "surrogatepass")
    case.given = [values]
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        source = dotenv.read(Path(file.name), is_dot_env=case.perhaps())
    environment = settings_.Source(label="environment", values=values if case.perhaps() else {})
    report, given = settings_.survey([environment, source])
    return [report, await ended(asyncio.to_thread(given.complete, SyncOptions()))]


async def options(case: Case) -> list[object]:
    """The library's door."""

    def odd() -> Any:
        return case.choice([case.tree(), case.text(), b"A", Secret(CANARY), {"A": Secret(CANARY)}, object(), ("A",)])

    chosen = {name: odd() for name in case.sample(list(SyncOptions.__dataclass_fields__), case.randrange(3))}
    case.given = [project := case.choice(["p", odd()]), names := case.choice([["A"], [odd()], odd()]), chosen]
    try:
        how = SyncOptions(**chosen) if case.perhaps(0.9) else odd()
    except FlysyncError as error:
        return [error]
    if case.perhaps():
        return [await ended(library.sync_project(project, how, services=services()))]
    return [await ended(library.sync_credentials_to_flyio(project, names, how, services=services()))]


async def jobs(case: Case) -> list[object]:
    """Some jobs for a worker, with or without values of the callers'."""
    queue = InMemoryJobs(keep_values=True)
    work = Work(queue, services(), WorkerOptions(sync=SyncOptions(value_source="caller" if case.perhaps() else None)))
    for _ in range(20):
        name, project = (case.choice([likely, case.text(likely), case.tree()]) for likely in ("A", "p"))
        value = case.choice([None, Secret(CANARY), Secret(CANARY + case.text()), case.tree()])
        case.given.append((name, project, value))
        queue.add(name, project, value=value, attempts=1)
    running = asyncio.create_task(work.run())
    while {"waiting", "active"}.intersection(job.state for job in queue.jobs):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    running.cancel()
    await running
    return [repr(job.verdict) for job in queue.jobs]


# fmt: off
COMMANDS = ("sync", "sync-project", "unset", "status", "history", "config show", "db check", "worker", "snapshot", "db")
FLAGS = (
    "--project", "--name", "--app", "--sandbox", "--reason", "--timeout", "--lock-wait", "--concurrency", "--queue",
    "--grace", "--health-port", "--health-host", "--json", "--all", "--yes", "--value-stdin", "--force", "--dry-run",
    "--verify", "--env-file", "-v", "-q", "--limit", "--failed",
)
# fmt: on


async def words(case: Case) -> list[object]:
    """The command line, up to services that are out of reach."""
    argv = case.choice(COMMANDS).split()
    for _ in range(case.randrange(6)):
        argv += [case.choice([*FLAGS, case.text()]), *([case.text("p", "A", "1s", "1")] if case.perhaps(0.7) else [])]
    case.given, printed, output = [argv], io.StringIO(), Output(as_json="--json" in argv)

    def run() -> object:
        try:
            return app(argv, obj=output, prog_name="flysync", standalone_mode=False)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as `main` does
            return _failed(error, output)

    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(case.text().encode("utf-8", "surrogatepass")))
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            code = await asyncio.to_thread(run)
    finally:
        sys.stdin = before
    assert (code or 0) in EXIT_CODES, code
    return [printed.getvalue()]


# What flyctl prints, or our own script around it, by the name of the step's part.
_PRINTS: dict[str, tuple[Any, ...]] = {
    "look": (
        *['1 {"Version": "0.4.87"}\n'] * 5,
        f'{"a" * 64}\n{{"Version": "0.4.87"}}',
        f"1 is {'b' * 64}\n",
    ),
    "install": ('0 {"Version": "0.4.87"}\n', f"0 is {'b' * 64}\n"),
    "list": ([{"name": "A", "digest": "d" * 16, "status": "Deployed"}, {"name": "Z", "digest": "e", "status": "x"}],),
    "machines": (
        "machine\nid m0\nstate started\nhost_status ok\nmetadata\nlaunched\nrelease 7\nend\nnow 2000\n",
        "machine\nid m0\nstate stopped\ncheck\ncritical\nevent\nexit\nat 1000\ncode 1\nend\nnow 2000\n",
    ),
    "token": ("now 1\nat https://api.fly.io/v1\nhas Apps\nuntil 99\n",),
    "reach": ("200 https://api.fly.io/graphql\n000 https://github.com/\n",),
    "deploy": ("release v7 created\nUpdating machine\n",),
}
_ERRORS = ("", "Error: app not found", "Error: 401 unauthorized", "Error: failed to do it (status 500)", "panic: x")


class OddSandbox:
    """A sandbox (port `Sandbox`) whose steps print anything."""

    id = "box"

    def __init__(self, case: Case) -> None:
        self._case = case

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Answer each part of the step; what was not given a value cannot quote one."""
        del timeout_s
        case, told = self._case, ""
        nonce, parts = re.findall(r"printf \"(\w+):%s:%s|for p in ([a-z -]+);", script)
        for part in (nonce[1] or parts[1]).split():
            out, err = case.answer(*_PRINTS.get(part, ("",))), case.answer(*_ERRORS)
            code = case.choice([0, 0, 0, 0, 1, 124, 137, 65, 66, 255, case.text("0")])
            case.given.append((part, out[:500], err[:500], code))
            for name, text in (("out", out), ("err", err)):
                raw = (text if env else text.replace(CANARY, "")).encode("utf-8", "surrogatepass")
                told += f"{nonce[0] or parts[0]}:{part}:{name}:{base64.b64encode(raw).decode()}\n"
            told += f"{nonce[0] or parts[0]}:{part}:code:{code}\n"
        return case.answer(told) if case.perhaps(0.05) else told


async def flyctl(case: Case) -> list[object]:
    """All that flyctl and the shell around it can print, in a sync, a removal, a look and a check."""
    clock, sums = SkippingClock(), ("a" * 64,) if case.perhaps() else ()
    source = Source(version="0.4.87", install_url="https://fly.io/install.sh", sums=sums)

    def new(_sandbox: Any, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> FlyctlSandbox:
        box, token = OddSandbox(case), Secret(CANARY)
        steps = Steps(sandbox=box, run_id=run_id, token=token, base_urls={}, clock=clock, end_at=end_at, tokens=tokens)
        return FlyctlSandbox(steps, source=source)

    world, lone = services(flyctl=new, clock=clock), new(None, RunId("r"), end_at=clock.monotonic() + 600, tokens={})
    told = [
        await ended(sync_project(P, SyncOptions(verify=case.perhaps()), services=world)),
        await ended(unset_secrets(P, [SecretName("A")], SyncOptions(force=True), services=world)),
        await ended(status(P, services=world, live=True)),
        await ended(FlyctlRecipe(source, clock=clock).look(OddSandbox(case), timeout_s=60, was_checked=case.perhaps())),
        await ended(lone.prepare()),
    ]
    if not isinstance(told[-1], FlysyncError):
        told += [await ended(call()) for call in (lone.reach, lone.token, lone.sign_in)]
    return told


# fmt: off
_SANDBOX = {
    "id": "b0c", "organizationId": "o", "name": "box", "user": "daytona", "env": {}, "public": False, "target": "us",
    "labels": {"app": "flysync", "flysync-sandbox": "box", "flysync-run": "r", "flysync-ttl-s": "60"}, "snapshot": "s",
    "networkBlockAll": False, "cpu": 1, "gpu": 0, "memory": 1, "disk": 1, "state": "started", "toolboxProxyUrl": "URL",
    "createdAt": "2026-11-30T00:00:00Z", "updatedAt": "2026-11-30T00:00:00Z",
}
_SNAPSHOT = {
    "id": "s0", "general": False, "name": "s", "state": "active", "size": 1, "entrypoint": [], "cpu": 1, "gpu": 0,
    "mem": 1, "disk": 1, "errorReason": None, "createdAt": "2026-11-30T00:00:00Z", "updatedAt": "2026-11-30T00:00:00Z",
    "lastUsedAt": None, "buildInfo": {"dockerfileContent": "FROM x", "createdAt": "x", "updatedAt": "x"},
}
_PAGE = {"items": [_SANDBOX], "total": 1, "page": 1, "totalPages": 1, "nextCursor": None}
_ANSWERS = (
    _SANDBOX, _SNAPSHOT, _PAGE, {**_PAGE, "items": [_SNAPSHOT]}, {"exitCode": 0, "result": "x"}, {"url": "URL"},
    {"statusCode": 400, "error": "Bad Request", "message": f"no such thing {CANARY}"},
)
_CODES = (201, 204, 301, 307, 400, 401, 403, 404, 409, 410, 418, 429, 500, 502, 503, 504, 599)
_KINDS = ("text/html", "application/octet-stream", "application/json; charset=utf-16", "x")
_HEADERS = ({"Retry-After": "1"}, {"Retry-After": "x"}, {"Retry-After": "9" * 400}, {"Location": "/x"})
# fmt: on


class OddDaytona(Loopback):
    """An API that answers anything."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._case = case

    def routes(self) -> list[web.RouteDef]:
        """Answer everything."""
        return [web.route("*", "/{path:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        case, body = self._case, self._case.answer(*_ANSWERS).replace("URL", self.url)
        code, kind = case.choice([*[200] * 9, *_CODES]), case.choice([*["application/json"] * 8, *_KINDS])
        headers = {"Content-Type": kind} | case.choice([{}, *_HEADERS])
        case.given.append((request.method, request.path, code, headers, body[:500]))
        return web.Response(status=code, body=body.encode("utf-8", "surrogatepass"), headers=headers)


async def daytona(case: Case) -> list[object]:
    """Daytona's API, by the unmodified clients."""
    async with OddDaytona(case) as api, AsyncExitStack() as stack:
        account, clock = (Secret(CANARY), f"{api.url}/api", None), SkippingClock()
        boxes = DaytonaSandboxes(*account, snapshot=None, clock=clock)
        snapshots = DaytonaSnapshots(*account, clock=clock, call_s=2.0)
        stack.push_async_callback(boxes.aclose)
        stack.push_async_callback(snapshots.aclose)
        box: Any = await ended(boxes.create("box", {}, ttl_s=60, timeout_s=2))
        told = [box]
        if isinstance(box, FlysyncError):
            told.append(box := await ended(boxes.attach("box", timeout_s=2)))
        if not isinstance(box, FlysyncError):
            await ended(box.run("true", {"V1": Secret(CANARY)}, timeout_s=2))  # what it prints is its caller's
        told += [await ended(call) for call in (boxes.list(), snapshots.list(timeout_s=2))]
        told += [await ended(call("s", timeout_s=2)) for call in (snapshots.find, snapshots.activate)]
        return [*told, await ended(boxes.remove("box", timeout_s=2, gone=case.perhaps()))]


_INFO = "role:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nredis_version:7.2.0\r\n"
# fmt: off
_HEADS = (
    "+OK", "+PONG", ":1", ":x", "$-1", "*0", "*-1", "-ERR", "-NOAUTH", "-LOADING", "-NOPERM", "%1", "$99999999999", "_",
)
# fmt: on


async def redis(case: Case) -> list[object]:
    """A server in the place of Redis, before the worker takes its first job."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536) and not case.perhaps(0.2):
            text = case.answer(_INFO).encode("utf-8", "surrogatepass")
            head = case.text(*_HEADS).encode("utf-8", "surrogatepass") + b" x\r\n"
            case.given.append(answer := case.choice([b"$%d\r\n%b\r\n" % (len(text), text), head]))
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"redis://:{CANARY}@127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    queue = BullmqJobs(Secret(url), "q", SkippingClock(), keep_values=False)
    told = [await ended(queue.check()), await ended(queue.oldest_s())]
    await queue.close()
    server.close()
    return told


_TIMES = ("now()", "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'294276-12-31'", "NULL", "'0001-01-01'")


async def rows(case: Case) -> list[object]:
    """What Postgres can hold in the three tables."""

    def sql(text: str) -> str:
        escaped = "".join(rf"\x{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))
        return "NULL" if case.perhaps(0.05) else f"E'{escaped}'"

    ids, dsn = ["p", case.text(), case.text()], case.choice(DATABASES)
    statements = ["DELETE FROM cloud_credentials", "DELETE FROM project_deployments", "DELETE FROM project_actions"]
    for _ in range(case.randrange(1, 8)):
        project, at, details = sql(case.choice(ids)), case.choice(_TIMES), case.answer({"outcomes": {"A": "synced"}})
        row = {
            "cloud_credentials": (project, sql(case.text("A", "B")), sql(CANARY + case.text()), at),
            "project_deployments": (project, sql(case.text("acme", "b")), at),
            "project_actions": (project, sql("sync-flyio-secrets"), sql(case.text("success")), sql(details), at),
        }
        table = case.choice(list(row))
        columns = "(project_id, action, status, details, created_at)" if table == "project_actions" else ""
        statements.append(f"INSERT INTO {table} {columns} VALUES ({', '.join(row[table])})")
    case.given = [ids, *(statement[:500] for statement in statements)]
    with psycopg.connect(dsn, autocommit=True) as backend:
        for statement in statements:
            with suppress(psycopg.Error):  # what cannot be there
                backend.execute(statement.encode())
    connection = Connection(Secret(dsn))
    world, told = services(records=PostgresRecords(connection)), []
    for project in map(ProjectId, ids):
        reason, actor = (case.text()[:1_000] or None for _ in range(2))
        how = SyncOptions(dry_run=case.perhaps(), force=case.perhaps(), reason=reason, actor=actor)
        told += [await ended(sync_project(project, how, services=world)), await ended(status(project, services=world))]
        told.append(await ended(history(project, services=world)))
    told += [
        await ended(status_all(Selection(), services=world, live=True)),
        await ended(world.records.candidates(None, unsettled=True, everything=True, limit=100)),
        await ended(world.records.missing(None, project=None, notes=True, limit=100)),
    ]
    await connection.aclose()
    return told


ENTRANCES: dict[str, Entrance] = {
    one.__name__: one for one in (settings, options, jobs, words, flyctl, daytona, redis, rows)
}


def shown(told: object) -> Iterable[str]:
    """Give all that is shown of a report or an error; its code and its exit status have to be of the contract."""
    report = Report(error=told) if isinstance(told, FlysyncError) else told
    if not isinstance(report, Report):
        return [str(report)]
    assert report.exit_code in EXIT_CODES
    lines = [json.dumps(render.as_json("x", report)), *render.as_text(report), *render.notes_text(report.warnings)]
    return [*lines, *(render.error_text(report.error) if report.error else ()), *render.next_text(report.next)]


async def tried(case: Case, entrance: Entrance) -> None:
    """Try a case; whatever it raises is a fault."""
    log = Log()
    with log.listening():
        told = await asyncio.wait_for(entrance(case), _LIMIT_S)
    for text in itertools.chain(log.lines, *map(shown, told)):
        for word in (CANARY, "internal_error", "a bug in flysync"):
            assert word not in text, f"it tells {word}: …{text[max(0, text.find(word) - 300) :][:1_000]}"


async def fuzz(seed: int, seconds: float, case: str = "") -> tuple[int, list[str]]:
    """Try cases for so long, as long at each entrance, or *case* alone; give their number, and a text per fault."""
    only, _, number = case.partition(":")
    names = [only] if only else [*ENTRANCES]
    faults: dict[str, str] = {}
    count = 0
    with (
        EmbeddedPostgres() as server,
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as directory,
    ):
        patch.chdir(directory)  # no settings of whoever runs this
        for variable in settings_.VARIABLES:
            patch.setenv(variable, NOWHERE.get(variable, ""))
        DATABASES[:] = server.create_database("text"), server.create_database("bytes", encoding="SQL_ASCII")
        for dsn in DATABASES:
            await PostgresAdmin(connection := Connection(Secret(dsn))).init()
            await connection.aclose()
        for name in names:
            end = time.monotonic() + seconds / len(names)
            for one in (Case(seed, name, n) for n in ([int(number)] if number else itertools.count())):
                count += 1
                try:
                    await tried(one, ENTRANCES[name])
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    told = "".join(traceback.format_exception(error, limit=-12))[-4_000:]
                    where = f"{type(error).__name__} {traceback.extract_tb(error.__traceback__)[-1]}"
                    faults.setdefault(where, f"{one.again}\n{repr(one.given)[-2_000:]}\n{told}")
                if time.monotonic() > end:
                    break
    return count, list(faults.values())


def main() -> None:
    """Print the seed, how many cases were tried, and the faults; the exit status is 1 where there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--case", default="", metavar="ENTRANCE[:NUMBER]")
    given = parser.parse_args()
    print(f"seed {given.seed}")  # noqa: T201
    count, faults = asyncio.run(fuzz(given.seed, given.seconds, given.case))
    print(f"{count:,} cases", *faults, sep="\n\n")  # noqa: T201
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

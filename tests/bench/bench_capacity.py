"""
What ends first where many workers bring changes to 100,000 projects: Daytona, Fly, Postgres, Redis or the workers.

What a change costs is measured: a worker syncs one credential for each of some projects, all of them changed, against
services on loopback. What there is of each service is taken from its documentation or is its default. Each resource is
looked at alone, so the first line of the table is what ends first.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import redis.asyncio
from bullmq import Job, Queue
from figures import row, runs_wanted
from fleets import fill, slow
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flysync.sim.simulation import Simulation
from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.sim.loopback import Record

#: As many jobs as may run side by side: one that waits asks Postgres now and then, which is no part of a change.
RUNS = CONCURRENCY = 20
PROJECTS = 100_000
#: Seconds that a run takes with real services: assumed. flyctl watches a machine for ten of them (read: its source).
RUN_S = 20.0
#: Daytona, for one organization: creates and requests a minute, and sandboxes of one vCPU side by side (its page
#: "Limits"). Tier 3 is the first whose sandboxes reach Fly.
DAYTONA = {"tier 3": (500, 40_000, 250), "tier 4": (600, 50_000, 500)}
#: Fly: requests a second for one action on one app or machine; no limit for all apps together is documented (its page
#: "Working with the Machines API"), which are 3 for a moment.
FLY_PER_S, FLY_BURST = 1.0, 3.0
#: Postgres: connections (`max_connections`, by default and as a larger server has it; three are the superuser's), and
#: locks for each of them (`max_locks_per_transaction`).
CONNECTIONS, RESERVED, LOCKS_EACH = (100, 500), 3, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What a run has cost; seconds are a processor's."""

    daytona: float  #: Requests.
    fly: float
    fly_one_action: int  #: The most requests for one action on one app or machine,
    fly_too_soon: int  #: and how many of all come sooner than is documented.
    round_trips: float  #: To Postgres.
    postgres_s: float
    redis: float  #: Commands: those in scripts, and to add the job, among them.
    redis_s: float
    worker_s: float
    connections: float  #: To Postgres, at the most, of all runs side by side.
    locks: float  #: Advisory ones, likewise.


class RoundTrips:
    """Counts how often a client has waited for Postgres."""

    def __init__(self) -> None:
        self.count = 0

    @asynccontextmanager
    async def counted(self, dsn: str) -> AsyncIterator[str]:
        """Give another address of the same database."""
        given = conninfo_to_dict(dsn)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_there, there = await asyncio.open_connection(str(given["host"]), int(str(given["port"])))
            asked = [False]

            async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, asking: bool) -> None:
                while data := await source.read(2**16):
                    self.count += asking and not asked[0]
                    asked[0] = asking
                    target.write(data)
                target.close()

            await asyncio.gather(carry(reader, there, asking=True), carry(from_there, writer, asking=False))

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")


@dataclass
class Measured:
    """A world with a worker in it, and the most connections and locks that were seen of the worker."""

    world: Simulation
    trips: RoundTrips
    valkey: redis.asyncio.Redis
    worker: asyncio.subprocess.Process
    queue: Queue
    observer: psycopg.AsyncConnection[Any]
    connections: int = 0
    locks: int = 0

    async def used(self) -> dict[str, float]:
        """Give what has been used so far, by the names that `Costs` has for it."""
        assert self.world.postgres is not None
        info: dict[str, Any] = await self.valkey.info()
        return {
            "daytona": len(self.world.daytona.records),
            "fly": len(self.world.fly.records),
            "round_trips": self.trips.count,
            "postgres_s": processor_s(self.world.postgres.pid, without=self.observer.info.backend_pid),
            "redis": info["total_commands_processed"],
            "redis_s": info["used_cpu_user"] + info["used_cpu_sys"],
            "worker_s": processor_s(self.worker.pid),
        }

    async def sync(self, numbers: range) -> None:
        """Have a job done for each of these projects, whose credential has changed."""
        projects = [f"p{number}" for number in numbers]
        change = "UPDATE cloud_credentials SET credential_value = gen_random_uuid() WHERE project_id = ANY (%s)"
        await self.observer.execute(change, [projects])
        apps = [self.world.fly.world.apps[f"app-{number}"] for number in numbers]
        datas = [{"projectId": project, "credentialName": "KEY_1"} for project in projects]
        ids = [(await self.queue.add("sync-flyio-secrets", data)).id for data in datas]
        while not all(sum(app.restarts.values()) for app in apps):  # noqa: ASYNC110  to ask Redis would cost as well
            await asyncio.sleep(0.1)
        for job_id in ids:
            job: Any = None
            while job is None or not job.finishedOn:
                await asyncio.sleep(0.1)
                job = await Job.fromId(self.queue, job_id)
            assert "synced" == (job.returnvalue or {}).get("outcome"), job.failedReason

    async def watch(self) -> None:
        """Note the most connections and locks, for ever."""
        query: LiteralString = """
            SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flysync'),
                   (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
        """
        while True:
            connections, locks = await (await self.observer.execute(query)).fetchone() or (0, 0)
            self.connections, self.locks = max(self.connections, connections), max(self.locks, locks)
            await asyncio.sleep(0.1)


def processor_s(pid: int, *, without: int = 0) -> float:
    """Give the seconds that a process and its children have worked, also those that are gone, but for one of them."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has gone meanwhile
            fields = path.read_text("ascii", errors="replace").rpartition(")")[2].split()
            own, of_the_gone = (sum(map(int, fields[begin : begin + 2])) for begin in (11, 13))
            if int(path.parent.name) == pid:
                ticks += own + of_the_gone
            elif int(fields[1]) == pid and int(path.parent.name) != without:
                ticks += own
    return ticks / os.sysconf("SC_CLK_TCK")


def of_one_action(records: list[Record]) -> tuple[int, int]:
    """Give the most requests of a run for one action on one app or machine, and how many come sooner than they may."""
    times: dict[str, list[float]] = {}
    for record in records:
        if record.path.startswith("/v1/apps/"):
            times.setdefault(f"{record.method} {record.path}", []).append(record.at)
    return max(map(len, times.values())), sum(map(too_soon, times.values()))


def too_soon(times: list[float]) -> int:
    """Give how many of these requests Fly's documented limit refuses: a bucket that fills again with time."""
    left, before, refused = FLY_BURST, times[0], 0
    for at in times:
        left, before = min(FLY_BURST, left + (at - before) * FLY_PER_S), at
        if left >= 1:
            left -= 1
        else:
            refused += 1
    return refused


@asynccontextmanager
async def opened() -> AsyncIterator[Measured]:
    """Give a world with a worker that is ready."""
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey())
        world = await stack.enter_async_context(Simulation(shell="/bin/sh"))
        trips = RoundTrips()
        _ = world.daytona.add_snapshot("bench", files=world.daytona.snapshots.built_files)
        dsn = await stack.enter_async_context(trips.counted(world.dsn))
        slow(world)
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flysync", "worker", "--queue", "bench", "--quiet"),
            *("--concurrency", str(CONCURRENCY)),
            env=world.environ(DATABASE_URL=dsn, REDIS_URL=valkey.url, FLYSYNC_SNAPSHOT="bench", FLYSYNC_ACTOR="bench"),
            cwd="/",
            stdout=asyncio.subprocess.DEVNULL,
        )
        stack.push_async_callback(worker.wait)
        stack.callback(worker.terminate)
        queue = Queue("bench", {"connection": valkey.url})
        stack.push_async_callback(queue.close)
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(valkey.url))
        observer = await psycopg.AsyncConnection.connect(world.dsn, autocommit=True)
        yield Measured(world, trips, client, worker, queue, await stack.enter_async_context(observer))


async def measure(runs: int) -> Costs:
    """Measure what a run costs."""
    async with opened() as measured:
        await fill(measured.world.dsn, projects=runs + 1)
        for number in range(1, runs + 2):
            measured.world.fly.add_app(f"app-{number}", machines=1)
        await measured.sync(range(1, 2))  # once for what is loaded with the first
        before = await measured.used()
        watching = asyncio.create_task(measured.watch())
        await measured.sync(range(2, runs + 2))
        watching.cancel()
        after = await measured.used()
    side_by_side = min(runs, CONCURRENCY)
    most, soon = of_one_action(measured.world.fly.requests("/app-1[/?]"))  # it was alone
    return Costs(
        **{name: (after[name] - before[name]) / runs for name in before},
        fly_one_action=most,
        fly_too_soon=soon,
        connections=measured.connections / side_by_side,
        locks=measured.locks / side_by_side,
    )


def bounds(costs: Costs) -> list[tuple[float, str, str, str]]:
    """Give how many changes a second each resource allows, its name, what a change takes, and what there is."""
    found = []
    for tier, (creates, requests, sandboxes) in DAYTONA.items():
        each = f"{costs.daytona:.0f} requests"
        found += [
            (creates / 60, f"Daytona, creates ({tier})", "1 sandbox", f"{creates} a minute"),
            (requests / 60 / costs.daytona, f"Daytona, requests ({tier})", each, f"{requests:,} a minute"),
            (sandboxes / RUN_S, f"Daytona, sandboxes ({tier})", f"1 for {RUN_S:.0f} s", f"{sandboxes} side by side"),
        ]
    for connections in CONNECTIONS:
        each, has = f"{costs.connections:.2f} for {RUN_S:.0f} s", connections - RESERVED
        found.append((has / costs.connections / RUN_S, "Postgres, connections", each, f"max_connections {connections}"))
    locks = LOCKS_EACH * CONNECTIONS[0]
    each = f"{costs.postgres_s * 1000:.0f} ms, {costs.round_trips:.0f} round trips"
    return [
        *found,
        (locks / costs.locks / RUN_S, "Postgres, locks", f"{costs.locks:.2f} for {RUN_S:.0f} s", f"{locks:,}"),
        (1 / costs.postgres_s, "Postgres, a processor", each, "1"),
        (1 / costs.redis_s, "Redis", f"{costs.redis_s * 1000:.1f} ms, {costs.redis:.0f} commands", "1 processor"),
        (1 / costs.worker_s, "a worker's processor", f"{costs.worker_s * 1000:.0f} ms", "1"),
    ]


def main() -> int:
    """Print what is measured, and what follows."""
    costs = asyncio.run(measure(runs_wanted(RUNS)))
    print("| resource | a change takes | there is | changes a second | projects an hour |\n|---|---|---|---|---|")
    ordered = sorted(bounds(costs))
    for per_s, name, each, has in ordered:
        print(f"| {name} | {each} | {has} | {per_s:.1f} | {per_s * 3600:,.0f} |")
    most, soon = costs.fly_one_action, costs.fly_too_soon
    print(f"Fly: {costs.fly:.0f} requests a change, {most} at most for one action on one app or machine;")
    print(f"  sooner than the documented limit of an action allows: {soon}; for all apps no limit is documented")
    per_s, name, _, has = ordered[0]
    workers = math.ceil(per_s * RUN_S / CONCURRENCY)
    print(f"At {per_s:.1f} changes a second {per_s * RUN_S:.0f} runs are under way: {workers} workers of {CONCURRENCY}")
    what = f"{PROJECTS:,} projects, what ends first: {name} ({has})"
    row(what, f"{per_s:.1f} changes a second, {PROJECTS / per_s / 3600:.1f} h for all", "-", kept=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

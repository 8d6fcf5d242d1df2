"""How often a sync asks Postgres: as often as docs/performance.md says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psycopg
from postgres_wire import Wire

from flysync import SyncOptions, sync_project
from flysync.bootstrap import load_settings, open_services
from flysync.sim.flyctl import launcher
from flysync.sim.simulation import Simulation

#: What a client has executed: each message of the extended protocol, and each text of the simple one.
_EXECUTED = re.compile(rb"E\0\0\0\x09\0\0\0\0\0|Q\0\0..[^\0]+\0", re.DOTALL)


async def test_a_changed_credential_takes_fourteen_round_trips(database: str, tmp_path: Path) -> None:
    """
    Nine are transactions, each sent as a whole, on one connection; five are the lock's, on another one.

    Where nothing has changed, it is one. A process that has synced before connects no more. (Where flyctl is installed,
    the lock is asked for once more, before the set.)
    """
    counts = {}
    with psycopg.connect(database, autocommit=True) as backend:
        backend.execute("INSERT INTO project_deployments VALUES ('p', 'acme-web')")
        backend.execute("INSERT INTO cloud_credentials VALUES ('p', 'KEY', 'one')")
        async with Simulation(dsn=database) as world, Wire(database) as wire:
            world.fly.add_app("acme-web", machines=["m"])
            world.daytona.add_snapshot("with-flyctl", files={"flyctl": launcher(tmp_path / "flyctl")})
            environ = {**world.settings(), "DATABASE_URL": wire.dsn, "FLYSYNC_SNAPSHOT": "with-flyctl"}
            async with open_services(load_settings(list(environ), environ=environ, directory=Path("/"))) as services:
                for what in ("first", "changed", "unchanged"):
                    before, executed = [*wire.each, 0, 0], len(_EXECUTED.findall(wire.said))
                    report = await sync_project("p", SyncOptions(actor="test"), services=services)
                    turns = [now - then for now, then in zip(wire.each, before, strict=False)]
                    counts[what] = turns, len(_EXECUTED.findall(wire.said)) - executed
                    sys.stdout.write(
                        f"{what}: {report.outcome}, round trips by connection {turns}, executed {counts[what][1]}\n"
                    )
                    if what == "first":
                        backend.execute("UPDATE cloud_credentials SET credential_value = 'two'")

    assert {"changed": [9, 5], "unchanged": [1, 0]} == {what: counts[what][0] for what in ("changed", "unchanged")}

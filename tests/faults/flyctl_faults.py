"""
What the unmodified flyctl does with each fault at each of its requests, recorded for `tests/flyctl_player.py`.

    FLYSYNC_TEST_FLYCTL=/path/to/flyctl python tests/faults/flyctl_faults.py [COMMAND …]

Each command is run as flysync runs it, in the state in which it finds an app with one machine and one credential: once
without a fault, then with each fault of the matrix at each kind of request, once and for good. What does not answer is
ended by SIGTERM, and SIGKILL five seconds later, as `timeout` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

from calls import CALLS, FAULTS, Call
from flyctl_player import CUT, NONE, ODD, command_of
from flyctl_recordings import normal_run

from flysync.adapters.flyctl.script import KILL_AFTER_S
from flysync.sim.fly import Fly

RECORDINGS = Path(__file__).parents[1] / "flyctl_faults.json"
REAL = os.environ.get("FLYSYNC_TEST_FLYCTL", "")
APP = "app-name"
#: What stands for an answer that is none, by the fault that made it.
_KINDS = {
    "no answer": NONE,
    "cut before the work": CUT,
    "cut after the work": CUT,
    "half an answer": ODD,
    "HTML": ODD,
}
_AT_A_TIME = 10
#: Seconds that a run takes at most: flyctl waits a minute for a lease.
_LIMIT_S = 110.0
_MACHINE = "/v1/apps/[^/]+/machines/[^/?]+"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A call of flysync's, the requests that a fault may hit, and how long it may go unanswered."""

    argv: tuple[str, ...]
    requests: dict[str, Call]
    limit_s: float = 5.0
    #: Whether a secret is staged by then.
    is_staged: bool = False
    state: str = "started"

    @property
    def name(self) -> str:
        """Its words."""
        return command_of(list(self.argv))


def _of_matrix(*steps: str) -> dict[str, Call]:
    """Give the requests of the matrix that belong to one command, counted from its beginning."""
    found = {}
    for call in CALLS:
        step, _, what = call.key.partition(": ")
        if call.service == "fly" and step in steps:
            found[what] = replace(call, skip=int(what.endswith("complete")))
    return found


def _own(**matches: str) -> dict[str, Call]:
    return {
        what.replace("_", " "): Call(key=what, title="", service="fly", step="own", match=match)
        for what, match in matches.items()
    }


_LISTS = _of_matrix("list")
_NAMED = ("--app", APP)
COMMANDS = (
    Command(argv=("version", "--json"), requests={}),
    Command(
        argv=("secrets", "list", "--json", *_NAMED),
        requests={what: call for what, call in _LISTS.items() if what != "GET machines"},
        is_staged=True,
    ),
    Command(argv=("machine", "list", "--json", *_NAMED), requests={"GET machines": replace(_LISTS["GET machines"])}),
    Command(argv=("secrets", "set", "--stage", *_NAMED, "--", "KEY=value"), requests=_of_matrix("set")),
    Command(argv=("secrets", "unset", "--stage", *_NAMED, "--", "KEY"), requests=_of_matrix("set"), is_staged=True),
    Command(
        argv=("secrets", "deploy", "--dns-checks=false", *_NAMED),
        requests=_of_matrix("deploy"),
        limit_s=7.0,
        is_staged=True,
    ),
    Command(
        argv=("machine", "start", "m0", *_NAMED),
        requests=_own(
            GET_machine=f"GET {_MACHINE}$",
            POST_lease=f"POST {_MACHINE}/lease",
            POST_start=f"POST {_MACHINE}/start",
            DELETE_lease=f"DELETE {_MACHINE}/lease",
        ),
        state="stopped",
    ),
    Command(
        argv=("status", "--json", *_NAMED),
        requests=_own(look_the_app_up="POST /graphql", GET_machines="GET /v1/apps/[^/]+/machines$"),
    ),
    Command(argv=("auth", "whoami", "--json"), requests=_own(look_the_owner_up="POST /graphql")),
)


async def record(command: Command, what: str = "", fault: str = "", *, lasting: bool = False) -> dict[str, Any]:
    """Run a command with a fault at the request *what*, and give what came of it."""
    is_short = what == "GET wait" and lasting
    hits: list[int] = []
    async with Fly() as fly:
        config = {"deploy": {"wait_timeout": "2s"}} if is_short else None
        app = fly.add_app(APP, machines=["m0"], config=config)
        app.machines[0].state = command.state
        if command.is_staged:
            app.vault.update({"KEY": "value"}, at=fly.world.now())
        if fault:
            made = command.requests[what].fault(fault, lasting=lasting)
            fly.faults.append(replace(made, do=lambda: hits.append(len(fly.records) - 1)))
        with tempfile.TemporaryDirectory() as directory:
            config_directory = Path(directory) / "config"
            config_directory.mkdir()
            (config_directory / "logs").touch()
            if command.is_staged:
                (config_directory / "config.yml").write_text(f"app_secrets_minvers:\n    {APP}: 2\n")
            own = {"HOME": directory, "FLY_CONFIG_DIR": str(config_directory), "FLY_API_TOKEN": "test-token"}
            told = {"NO_COLOR": "1", "FLY_EMIT_RELEASE_JSON": "1", "PATH": os.environ["PATH"]}
            process = await asyncio.create_subprocess_exec(
                REAL,
                *command.argv,
                env=own | told | fly.environment,
                cwd=directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            stdout, stderr, ended_at = await _to_its_end(process, command.limit_s if fault == "no answer" else _LIMIT_S)
            over_at = time.monotonic()
        records = list(fly.records)

    def shown(text: str) -> str:
        text = normal_run(text, Path(directory)).replace(APP, "<app>")
        return re.sub(r'(?<="values":)\{.*?\}', '"<values>"', text)

    assert process.returncode is not None
    steps, is_a_list = [], command.name in ("secrets list", "machine list")
    ends = [*(one.at for one in records[1:]), over_at]
    for place, (one, next_at) in enumerate(zip(records, ends, strict=False)):  # no record, one end
        kind = _KINDS.get(fault, str(one.status)) if place in hits else str(one.status)
        if kind == ODD and not 200 <= one.status < 300:  # half of a refusal
            kind = str(one.status)
        # Which version of the secrets, and for how long it is waited, differs and makes no difference.
        query = "" if one.path.endswith("/secrets") else re.sub(r"timeout=\d+", "timeout=60", one.query)
        request = {
            "method": one.method,
            "path": shown(one.path + (f"?{query}" if query else "")),
            "body": shown(one.body.decode()),
            "nonce": "yes" if "fly-machine-lease-nonce" in one.headers else "",
        }
        # Another one came meanwhile (it keeps a lease, say), or it gave this one up by itself.
        is_left = (
            kind == NONE and not one.at < ended_at <= next_at and (one is not records[-1] or process.returncode >= 0)
        )
        steps.append((request, kind, round(next_at - one.at, 1) if is_left else None))
    return {
        "command": command.name,
        "request": what,
        "fault": fault,
        "times": ("for good" if lasting else "once") if fault else "",
        "code": process.returncode,
        "was_ended": ended_at < over_at,
        # A list that succeeds is made of the answers that the player gets.
        "stdout": "" if is_a_list and process.returncode == 0 else shown(stdout.decode()),
        "stderr": shown(stderr.decode()),
        "steps": steps,
    }


async def _to_its_end(process: asyncio.subprocess.Process, limit_s: float) -> tuple[bytes, bytes, float]:
    """Wait for a process as `timeout` does; give what it printed, and when it was told to end (monotonic seconds)."""
    output = asyncio.ensure_future(process.communicate())
    ended_at = float("inf")
    for wait_s, number in ((limit_s, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL)):
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(output), wait_s)
            break
        ended_at = min(ended_at, time.monotonic())
        process.send_signal(number)
    stdout, stderr = await output
    return stdout, stderr, ended_at


def is_by_chance(command: Command, run: dict[str, Any]) -> bool:
    """Tell whether flyctl sent a request again without its body, one time in five, or had no time to send any."""
    return bool(command.requests and not run["steps"]) or "with Body length 0" in run["stderr"]


async def recorded(command: Command) -> list[dict[str, Any]]:
    """Record all runs of a command, side by side."""
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def one(*what: str, lasting: bool = False) -> dict[str, Any]:
        async with gate:
            while is_by_chance(command, run := await record(command, *what, lasting=lasting)):
                pass
            return run

    cells = ((what, fault, lasting) for what in command.requests for fault in FAULTS for lasting in (False, True))
    return await asyncio.gather(one(), *(one(what, fault, lasting=lasting) for what, fault, lasting in cells))


def written(found: list[dict[str, Any]]) -> str:
    """Give the file's text: each request and each run is a line."""
    lines = sorted({json.dumps(step[0], sort_keys=True) for run in found for step in run["steps"]})
    places = {line: place for place, line in enumerate(lines)}
    shown = []
    for run in sorted(found, key=lambda run: [run[key] for key in ("command", "request", "fault", "times")]):
        flat = [(places[json.dumps(request, sort_keys=True)], kind, gave_up) for request, kind, gave_up in run["steps"]]
        steps = [[*step, len(list(same))] for step, same in groupby(flat)]
        shown.append(json.dumps({**run, "steps": steps}, sort_keys=True, ensure_ascii=False))
    return '{"requests": [\n' + ",\n".join(lines) + '\n],\n"runs": [\n' + ",\n".join(shown) + "\n]}\n"


def kept(names: set[str]) -> list[dict[str, Any]]:
    """Give the runs of other commands than *names*, as they were recorded."""
    if not RECORDINGS.exists():
        return []
    told = json.loads(RECORDINGS.read_text("utf-8"))
    found = [run for run in told["runs"] if run["command"] not in names]
    for run in found:
        run["steps"] = [
            (told["requests"][place], kind, gave_up)
            for place, kind, gave_up, count in run["steps"]
            for _ in range(count)
        ]
    return found


async def main(names: list[str]) -> None:
    """Record the commands with these *names*, or all."""
    chosen = [command for command in COMMANDS if not names or command.name in names]
    for command in chosen:
        RECORDINGS.write_text(written([*kept({command.name}), *await recorded(command)]), "utf-8")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

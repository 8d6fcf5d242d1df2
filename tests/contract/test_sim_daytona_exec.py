"""A command in a simulated sandbox runs as under the real daemon: shells, limits, signals, disconnects, replays."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import daytona as sdk_errors
import pytest
from sdk_client import sdk

from flysync.sim import sandboxes
from flysync.sim.daytona import Daytona

if TYPE_CHECKING:
    from collections.abc import Callable

    from daytona import AsyncSandbox

#: Sleeps on outside of the shell's process group; no output of the command's is held.
STRAY = "setsid sleep 60 </dev/null >/dev/null 2>&1 & "


async def post(daytona: Daytona, sandbox_id: str, **body: object) -> tuple[int, Any]:
    """What the toolbox answers to a request that the SDK would not send."""
    url = f"{daytona.url}/toolbox/{sandbox_id}/process/execute"
    headers = {"Authorization": f"Bearer {daytona.api_key}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None) if answer.content_length else None


async def strays(daytona: Daytona, sandbox: AsyncSandbox, *, expected: int) -> list[int]:
    """The processes of a sandbox, once there are as many as expected or much time has passed."""
    root = daytona.sandboxes[sandbox.id].local.root
    pids = sandboxes.started_in(root)
    for _ in range(3000):
        if len(pids) == expected:
            break
        await asyncio.sleep(0.01)
        pids = sandboxes.started_in(root)
    return pids


async def until(condition: Callable[[], object]) -> None:
    """Wait for what is about to happen."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.01)


def runs(daytona: Daytona, sandbox: AsyncSandbox, command: str) -> bool:
    """Whether a process of a sandbox is this command."""
    words = "\0".join([*command.split(), ""]).encode()
    for pid in sandboxes.started_in(daytona.sandboxes[sandbox.id].local.root):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == words:
                return True
    return False


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("exit 0", (0, "")),
        ("exit 255", (255, "")),
        ("echo out; echo err >&2; echo out", (0, "out\nerr\nout\n")),
        ("{ sh -c 'kill -9 $$'; } 2>/dev/null", (137, "")),
        ("echo before; kill -9 $$", (-1, "before\n")),
        ("printf 'a\\377b\\342\\202c'", (0, "a\ufffdb\ufffd\ufffdc")),
        ("cat; echo left", (0, "left\n")),
        ("cat\necho eaten by cat", (0, "echo eaten by cat")),
        ("nosuchprogram 2>/dev/null", (127, "")),
        ("cat /dev/stdin", (0, "")),
    ],
)
async def test_the_answer_is_the_shells(command: str, expected: tuple[int, str]) -> None:
    """Status, merged output and a script that its own children can read, under bash."""
    async with Daytona(shell=shutil.which("bash") or "sh") as server, sdk(server) as client:
        answer = await (await client.create()).process.exec(command, timeout=10)

    assert expected == (answer.exit_code, answer.result)


async def test_the_environment_is_the_sandboxs_own(daytona: Daytona) -> None:
    """HOME, PATH and TMPDIR are private, Daytona's variables are there, nothing of ours is."""
    async with sdk(daytona) as client:
        sandbox = await client.create(sdk_errors.CreateSandboxFromSnapshotParams(env_vars={"MINE": "1"}))
        answer = await sandbox.process.exec("env", env={"V0": "2"}, timeout=5)
    seen = dict(line.partition("=")[::2] for line in answer.result.splitlines())
    local = daytona.sandboxes[sandbox.id].local

    assert (str(local.home), str(local.tmp), "1", "2") == tuple(seen[k] for k in ("HOME", "TMPDIR", "MINE", "V0"))
    assert sandbox.id == seen["DAYTONA_SANDBOX_ID"]
    assert not {"LANG", "PYTEST_CURRENT_TEST", "NO_PROXY"} & seen.keys()
    assert (0o700, 0o700) == (local.root.stat().st_mode & 0o777, local.root.parent.stat().st_mode & 0o777)


async def test_the_working_directory_can_be_chosen(daytona: Daytona, sandbox: AsyncSandbox) -> None:
    """Its default is the sandbox's own; one that does not exist is a -1."""
    own = await sandbox.process.exec("pwd -P", timeout=5)
    other = await sandbox.process.exec("pwd -P", cwd="/", timeout=5)
    none = await sandbox.process.exec("pwd", cwd="/nonexistent", timeout=5)

    assert str(daytona.sandboxes[sandbox.id].local.work.resolve()) == own.result.strip()
    assert ("/\n", -1) == (other.result, none.exit_code)
    assert "chdir /nonexistent: no such file or directory" == none.result


@pytest.mark.parametrize(
    "body",
    [
        {"command": "true", "timeout": 1.5},
        {"command": "true", "timeout": -1},
        {"command": "true", "timeout": True},
        {"command": "true", "timeout": "1"},
        {"command": "true", "envs": {"A-B": "secret"}},
        {"command": "true", "envs": {"A\n": "secret"}},
        {"command": "true", "envs": {"": "secret"}},
        {"command": "true", "envs": {"A": 1}},
        {"command": " \n"},
        {"command": 1},
        {},
    ],
)
async def test_the_daemon_refuses_what_it_cannot_read(
    daytona: Daytona, sandbox: AsyncSandbox, body: dict[str, object]
) -> None:
    """Wrong types and names are a 400 that shows no value, and nothing runs."""
    status, answer = await post(daytona, sandbox.id, **body)

    assert (400, "BAD_REQUEST", False) == (status, answer["code"], "secret" in str(answer))
    assert [] == daytona.execs


async def test_a_command_out_of_time_is_killed_with_its_group(daytona: Daytona, sandbox: AsyncSandbox) -> None:
    """The answer is a 408 without output, whatever the children ignore."""
    start = time.monotonic()
    with pytest.raises(sdk_errors.DaytonaProcessExecutionTimeoutError, match="command execution timeout"):
        await sandbox.process.exec("trap '' TERM INT; echo lost; sleep 50 & sleep 50", timeout=1)

    assert 1 <= time.monotonic() - start < 6, "then the SDK itself gives up"
    assert [] == await strays(daytona, sandbox, expected=0)


async def test_who_left_the_group_survives_the_timeout_and_holds_the_answer(
    daytona: Daytona, sandbox: AsyncSandbox
) -> None:
    """The client gives up five seconds later in reality; here we only see that no answer comes."""
    command = "setsid sh -c 'until [ -e go ]; do sleep 0.05; done' & sleep 60"
    asking = asyncio.create_task(post(daytona, sandbox.id, command=command, timeout=1))
    await until(lambda: runs(daytona, sandbox, "sleep 60"))
    await until(lambda: not runs(daytona, sandbox, "sleep 60"))
    await asyncio.sleep(0.1)
    waiting = not asking.done()
    (daytona.sandboxes[sandbox.id].local.work / "go").touch()

    assert (True, 408) == (waiting, (await asking)[0])


async def test_a_delete_takes_every_process_along(daytona: Daytona) -> None:
    """Also those in another session, without our variables, or started by one that is gone."""
    bare = "env -i setsid sleep 60 </dev/null >/dev/null 2>&1 &"
    async with sdk(daytona) as client:
        sandbox = await client.create()
        await sandbox.process.exec(f"{STRAY} {bare} unset HOME DAYTONA_SANDBOX_ID; cd /; {STRAY} true", timeout=5)
        pids = await strays(daytona, sandbox, expected=3)
        running = asyncio.create_task(sandbox.process.exec("sleep 60", timeout=60))
        await until(lambda: len(daytona.execs) == 2)
        await client.delete(sandbox)
        with pytest.raises(sdk_errors.DaytonaBadGatewayError):
            await running

    assert (3, []) == (len(pids), [pid for pid in pids if alive(pid)])


async def test_the_end_of_the_server_is_the_end_of_all(tmp_path: Path) -> None:
    """Processes and directories are gone, also where requests were under way; what a link leads to stays."""
    async with Daytona() as server, sdk(server) as client:
        sandbox = await client.create()
        base = server.sandboxes[sandbox.id].local.root.parent
        await sandbox.process.exec(
            f"{STRAY} mkdir -p d/e; ln -s {tmp_path} l; chmod 0 d; echo kept > l/kept", timeout=5
        )
        pids = await strays(server, sandbox, expected=1)
        running = asyncio.create_task(sandbox.process.exec("sleep 60", timeout=60))
        await until(lambda: len(server.execs) == 2)
        running.cancel()

    assert (1, False, False) == (len(pids), alive(pids[0]), base.exists())
    assert ["kept"] == os.listdir(tmp_path)  # noqa: PTH208


async def test_a_client_that_goes_away_stops_nothing(daytona: Daytona, sandbox: AsyncSandbox) -> None:
    """The command runs to its end."""
    asking = asyncio.create_task(sandbox.process.exec("sleep 0.2; echo done > done", timeout=60))
    await until(lambda: daytona.execs)
    asking.cancel()
    await until(lambda: daytona.execs[0].exit_code is not None)

    assert "done\n" == (daytona.sandboxes[sandbox.id].local.work / "done").read_text()
    assert 0 == daytona.execs[0].exit_code


async def test_commands_run_side_by_side(sandbox: AsyncSandbox) -> None:
    """Twenty that wait for each other come to their ends."""
    all_there = "until [ $(ls | wc -l) = 20 ]; do sleep 0.05; done"
    commands = (sandbox.process.exec(f"touch {number}; {all_there}; echo {number}", timeout=60) for number in range(20))
    answers = [int(answer.result) for answer in await asyncio.gather(*commands)]

    assert list(range(20)) == answers


@pytest.mark.parametrize(("after_s", "first_s", "overlap"), [(1.0, 60.0, True), (None, 0.1, False)])
async def test_the_platform_may_run_a_command_twice(
    daytona: Daytona, sandbox: AsyncSandbox, *, after_s: float | None, first_s: float, overlap: bool
) -> None:
    """The answer is the second run's; the first may still be at it."""
    daytona.replay_next_exec, daytona.replay_after_s = 1, after_s
    command = f"mkdir mark 2>/dev/null && sleep {first_s} && echo first || echo second"
    answer = await sandbox.process.exec(command, timeout=50)
    ended = daytona.execs[0].ended_at
    once = await sandbox.process.exec("ls", timeout=50)

    assert ("second\n", "mark\n") == (answer.result, once.result)
    assert [(False, command), (True, command), (False, "ls")] == [(e.replayed, e.command) for e in daytona.execs]
    assert overlap == (ended == 0 or daytona.execs[1].started_at < ended)


async def test_a_large_request_is_not_replayed_but_lost(daytona: Daytona, sandbox: AsyncSandbox) -> None:
    """The proxy keeps no copy of it: the command runs once and the answer is a bare 502."""
    daytona.replay_next_exec = 1
    envs = {f"V{number}": "x" * 100_000 for number in range(3)}
    with pytest.raises(sdk_errors.DaytonaBadGatewayError):
        await sandbox.process.exec("sleep 0.1; echo ran > ran", env=envs, timeout=50)
    await until(lambda: daytona.execs[0].exit_code is not None)
    await asyncio.sleep(0.1)

    assert [(False, 0)] == [(record.replayed, record.exit_code) for record in daytona.execs]


async def test_a_sandbox_that_is_gone_is_not_found_or_not_allowed(daytona: Daytona, sandbox: AsyncSandbox) -> None:
    """404 while the proxy remembers who was let in, then 401; 401 for one that never was."""
    await sandbox.delete()
    with pytest.raises(sdk_errors.DaytonaNotFoundError, match="sandbox container not found"):
        await sandbox.process.exec("true", timeout=5)
    daytona.access_cached = False
    with pytest.raises(sdk_errors.DaytonaAuthenticationError, match="Bearer token is invalid"):
        await sandbox.process.exec("true", timeout=5)

    assert 401 == (await post(daytona, "never", command="true"))[0]


async def test_a_shell_that_is_not_there_is_a_minus_one() -> None:
    """As is everything else that keeps it from starting."""
    async with Daytona(shell="/nonexistent/sh") as server, sdk(server) as client:
        answer = await (await client.create()).process.exec("true", timeout=5)

    assert (-1, "fork/exec /nonexistent/sh: no such file or directory") == (answer.exit_code, answer.result)


async def test_a_process_with_a_terminal_is_no_sandboxs(daytona: Daytona, sandbox: AsyncSandbox) -> None:
    """Who looks around in a sandbox's directory survives its end."""
    master, terminal = os.openpty()
    work = daytona.sandboxes[sandbox.id].local.work
    looking = "import fcntl, termios, time; fcntl.ioctl(0, termios.TIOCSCTTY, 0); print(1, flush=True); time.sleep(99)"
    visitor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", looking,
        stdin=terminal, stdout=asyncio.subprocess.PIPE, cwd=work, env={}, start_new_session=True,
    )  # fmt: skip
    assert visitor.stdout is not None
    await visitor.stdout.readline()
    await sandbox.delete()
    survived = visitor.returncode is None and alive(visitor.pid)
    visitor.kill()
    await visitor.communicate()
    os.close(master)
    os.close(terminal)

    assert survived

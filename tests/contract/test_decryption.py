"""The command of FLYSYNC_DECRYPT: what it is given, what it may answer, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flysync.adapters.command import CommandDecryption
from flysync.errors import ConfigError, DecryptFailed
from flysync.model.core import ProjectId, SecretName
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = ProjectId("p")
#: Answers with what it was given, turned round.
TURNS = """
import json, sys
given = json.load(sys.stdin)
values = {name: value[::-1] for name, value in given["values"].items()}
json.dump({"values": values, "failed": {}}, sys.stdout)
"""


async def decrypt(code: str, limit_s: float = 20.0, **stored: str) -> Mapping[SecretName, str]:
    """Ask a program in Python, and give the values."""
    decryption = CommandDecryption(shlex.join([sys.executable, "-c", code]), limit_s=limit_s)
    given = {SecretName(name): Secret(value) for name, value in (stored or {"A": "x", "B": "y"}).items()}
    return {name: secret.reveal() for name, secret in (await decryption.decrypt(PROJECT, given)).items()}


async def test_values_come_back_as_they_are() -> None:
    """Whatever is in them; both ways at once, so that neither side waits for the other."""
    long = "0123456789" * 100_000
    odd = "line\nbreak \r\t\"quotes' \\ \x01 \u20ac \U0001f511 "

    assert {"LONG": long[::-1], "ODD": odd[::-1]} == await decrypt(TURNS, LONG=long, ODD=odd)
    streams = "import sys\nfor part in iter(lambda: sys.stdin.read(1000), ''): sys.stdout.write(part)"
    assert {"A": long} == await decrypt(streams, A=long)


async def test_more_than_one_answer_may_hold() -> None:
    """So many are decrypted one part after the other."""
    many = {f"N{number}": chr(228 + number) * 60_000 for number in range(60)}

    assert many == await decrypt(TURNS, 20.0, **many)


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        ('{"values": {"A": "1", "B": "2", "C": "3"}, "failed": {}}', {"A": "1", "B": "2"}),
        ('{"values": {"A": "1"}, "failed": {"B": "gone"}}', {"A": "1"}),
        ('{"values": {"A": "1", "B": "2"}, "failed": {"B": "gone"}}', {"A": "1"}),
        ('{"values": {"A": "1"}}', {"A": "1"}),
        ('{"values": {"A": 1, "B": null}, "failed": {}}', {}),
        ('{"values": {"A": "", "B": ["2"]}, "failed": {}, "more": 1}', {"A": ""}),
    ],
)
async def test_a_name_in_both_or_in_neither_has_failed(answer: str, values: dict[str, str]) -> None:
    """As one whose value is no text; what was not asked for is ignored."""
    assert values == await decrypt(f"print({answer!r})")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('print(\'{"values": {"A": "CANARY"}\'); raise SystemExit(3)', "ended with 3"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
        ("print('CANARY')", "did not answer with an object of JSON"),
        ("", "did not answer with an object of JSON"),
        ("print('[' * 100_000)", "did not answer with an object of JSON"),
        ("print('[1]')", "did not answer with an object of JSON"),
        ("print('{}')", "did not answer with values"),
        ("print('{\"values\": []}')", "did not answer with values"),
        ('print(\'{"values": {}, "failed": ["A"]}\')', "did not answer with values"),
        ("import sys; sys.stdout.buffer.write(b'\\xff{}')", "did not answer with an object of JSON"),
        ("while True: print('CANARY' * 1000)", "answered with more than 4,194,304 bytes"),
    ],
)
async def test_a_command_that_fails_as_a_whole(code: str, words: str) -> None:
    """It is for now; what it said and its error are shown nowhere."""
    code = f"import sys\nprint('CANARY', file=sys.stderr)\n{code}"
    with pytest.raises(DecryptFailed, match=words) as caught:
        await decrypt(code)

    assert (True, 75, "service") == (caught.value.temporary, caught.value.exit_code, caught.value.scope)
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.__cause__ is None


async def test_whoever_does_not_read_may_answer() -> None:
    """Half of a question that nobody wants is no fault."""
    assert {"A": "1"} == await decrypt('print(\'{"values": {"A": "1"}}\')', A="x" * 1_000_000)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_nothing_of_it_is_left(tmp_path: Path, is_cancelled: bool) -> None:
    """What takes too long is ended with whatever it has started, as when the run is stopped."""
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}\\n')\ntime.sleep(100)"
    )
    task = asyncio.ensure_future(decrypt(code, limit_s=60.0 if is_cancelled else 2.0))
    if is_cancelled:
        while not (pids.exists() and pids.read_text().endswith("\n")):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else DecryptFailed):
        await task
    for pid in pids.read_text().split():
        await asyncio.to_thread(_ends, int(pid))


def _ends(pid: int) -> None:
    """Wait for a process to end."""
    give_up = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and ") Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < give_up, "it is still there"
        time.sleep(0.01)


async def test_what_it_leaves_behind_ends_with_it() -> None:
    """A child of its own that has its output is no reason to wait."""
    code = "import subprocess\nsubprocess.Popen(['sleep', '100'], stdout=-3)\nprint('{\"values\": {\"A\": \"1\"}}')"

    assert {"A": "1"} == await decrypt(code)


async def test_what_leaves_its_group_keeps_no_pipe_of_ours(recwarn: pytest.WarningsRecorder) -> None:
    """Its output stays open, so that the answer never ends: for now, and nothing is left open here."""
    code = "import subprocess\nsubprocess.Popen(['sleep', '5'], start_new_session=True)\nprint('{\"values\": {}}')"
    await decrypt(TURNS)  # what the first process opens stays
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(DecryptFailed, match="gave no answer within 2 s"):
        await decrypt(code, limit_s=2.0)
    await asyncio.sleep(0.1)  # asyncio closes them in its next round

    assert before >= len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert [] == list(recwarn)


async def test_no_process_can_be_started_for_now() -> None:
    """It passes, and is no fault of the setting's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))  # noqa: PTH208
    try:
        with pytest.raises(DecryptFailed, match="could not be started: Too many open files"):
            await decrypt(TURNS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_it_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Fly's nor Daytona's; what else there is in the environment it may need."""
    for name in ("FLY_API_TOKEN", "FLY_ACCESS_TOKEN", "FLYCTL_ACCESS_TOKEN", "DAYTONA_API_KEY", "VAULT_ADDR"):
        monkeypatch.setenv(name, "x")
    code = "import json, os\nprint(json.dumps({'values': {'A': ' '.join(sorted(os.environ))}}))"
    names = (await decrypt(code))[SecretName("A")].split()

    assert "VAULT_ADDR" in names
    assert not [name for name in names if name.startswith(("FLY", "DAYTONA"))]


async def test_it_is_not_asked_to_end_by_our_terminal() -> None:
    """Ctrl-C goes to a process group, and it is in none of ours."""
    code = "import json, os\nprint(json.dumps({'values': {'A': str(os.getpgid(0))}}))"

    assert str(os.getpgid(0)) != (await decrypt(code))[SecretName("A")]


async def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    """It is the setting's fault, for every project."""
    (tmp_path / "program").write_text("#!/nowhere/at/all\n")
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(ConfigError, match="cannot be run: No such file") as caught:
        await CommandDecryption(str(tmp_path / "program")).decrypt(PROJECT, {SecretName("A"): Secret("x")})

    assert "FLYSYNC_DECRYPT" == caught.value.setting

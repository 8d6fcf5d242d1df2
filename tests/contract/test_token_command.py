"""The command of FLYSYNC_TOKEN_COMMAND: what it is given, what it may answer, and whom its failures concern."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from flysync.adapters.command import CommandTokens
from flysync.errors import ConfigError, Scope, TokenFailed
from flysync.model.core import AppName, ProjectId
from flysync.secret import MASK, Secret, redact
from flysync.sim import macaroon

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = macaroon.macaroon(macaroon.organization(9))


async def asked(code: str, *, narrowed: bool = False, limit_s: float = 20.0) -> Secret:
    """Ask a program in Python for the token of an app."""
    tokens = CommandTokens(shlex.join([sys.executable, "-c", code]), narrowed=narrowed, limit_s=limit_s)
    return await tokens.token(ProjectId("p"), AppName("acme"))


def answers(answer: object) -> str:
    """Give the text of a program that answers so, whatever it is asked."""
    return f"import json\nprint({json.dumps(answer)!r})"


async def test_what_it_is_given() -> None:
    """The project and the app, and none of our keys."""
    code = (
        "import json, os, sys\ngiven = json.load(sys.stdin)\nkeys = [name for name in os.environ if 'FLY_' in name]\n"
        "print(json.dumps({'token': '-'.join([*sorted(given), *given.values(), *keys])}))"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLY_API_TOKEN", "x")
        token = await asked(code)

    assert "app-project-p-acme" == token.reveal()


@pytest.mark.parametrize("token", ["fo1_abc", "WHOLE", "FlyV1 WHOLE", "FlyV1 WHOLE,WHOLE"])
@pytest.mark.parametrize("end", ["", "\n"])
async def test_a_token_comes_as_it_is(token: str, end: str) -> None:
    """Whatever else is in the answer; while somebody holds it, it is masked in what others say."""
    token = token.replace("WHOLE", WHOLE)
    given = await asked(answers({"token": token + end, "more": [1]}))

    assert token == given.reveal()
    assert f"they said {MASK}." == redact(f"they said {token}.", [])


@pytest.mark.parametrize(
    ("token", "narrowed", "words"),
    [
        (None, False, "gave no token for acme of p"),
        ("", False, "gave no token for acme of p"),
        (" \n", False, "gave no token for acme of p"),
        (1, False, "gave no token for acme of p"),
        (["CANARY"], False, "gave no token for acme of p"),
        ({"CANARY": 1}, False, "gave no token for acme of p"),
        ("CANARY x", False, "gave for acme of p contains whitespace"),
        ("CANARY\nx", False, "gave for acme of p contains whitespace"),
        ("CANARY\0", False, "gave for acme of p contains whitespace"),
        ("CANARY\ud800", False, "gave for acme of p contains whitespace"),
        ("'CANARY'", False, "gave for acme of p contains a quote"),
        ("$CANARY", False, "gave for acme of p contains a quote"),
        ("CANARY" * 20_000, False, "gave for acme of p has more than 65,536 characters"),
        ("fm2_CANARY", False, "gave for acme of p begins like a macaroon but is not a valid one"),
        ("CUT", False, "gave for acme of p begins like a macaroon but is not a valid one"),
        ("fo1_CANARY", True, "FLYSYNC_NARROW_TOKEN needs a macaroon, and what the command gave for acme of p is none"),
        ("WHOLE,fo1_CANARY", True, "FLYSYNC_NARROW_TOKEN needs a macaroon"),
    ],
)
async def test_an_answer_without_a_token_that_can_be_used(token: object, narrowed: bool, words: str) -> None:
    """It is about this app, and asking again does not help."""
    if isinstance(token, str):
        token = token.replace("WHOLE", WHOLE).replace("CUT", WHOLE[:-20])
    with pytest.raises(TokenFailed, match=words) as caught:
        await asked(answers({"token": token}), narrowed=narrowed)

    error = caught.value
    assert (False, 1, Scope.APP, "FLYSYNC_TOKEN_COMMAND") == (
        error.temporary,
        error.exit_code,
        error.scope,
        error.setting,
    )
    assert "CANARY" not in f"{error} {error.hint} {error.__cause__} {error.__context__}"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('print(\'{"token": "CANARY"}\'); raise SystemExit(3)', "ended with 3"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
        ("print('CANARY')", "did not answer with an object of JSON"),
        ("", "did not answer with an object of JSON"),
        ("print('\"CANARY\"')", "did not answer with an object of JSON"),
        ("print('[' * 100_000)", "did not answer with an object of JSON"),
        ("while True: print('CANARY' * 1000)", "answered with more than 4,194,304 bytes"),
        ("import time; time.sleep(100)", "gave no answer within 2 s"),
    ],
)
async def test_a_command_that_fails(code: str, words: str) -> None:
    """For now, and for this app: one tenant's trouble holds nobody else. What it said is shown nowhere."""
    code = f"import sys\nprint('CANARY', file=sys.stderr)\n{code}"
    with pytest.raises(TokenFailed, match=f"the command of FLYSYNC_TOKEN_COMMAND {words}") as caught:
        await asked(code, limit_s=2.0 if "sleep" in code else 20.0)

    assert (True, 75, Scope.APP) == (caught.value.temporary, caught.value.exit_code, caught.value.scope)
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"


async def test_no_process_can_be_started_for_now() -> None:
    """That is this machine's trouble, and everybody's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))  # noqa: PTH208
    try:
        with pytest.raises(TokenFailed, match="could not be started: Too many open files") as caught:
            await asked(answers({"token": "fo1_a"}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (True, Scope.SERVICE) == (caught.value.temporary, caught.value.scope)


async def test_a_program_that_is_just_being_replaced(tmp_path: Path) -> None:
    """It passes: whoever installs a new version has not asked anybody to stop."""
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    with program.open("ab"), pytest.raises(TokenFailed, match="could not be started: Text file busy") as caught:
        await CommandTokens(str(program), narrowed=False).token(ProjectId("p"), AppName("acme"))

    assert (True, Scope.SERVICE) == (caught.value.temporary, caught.value.scope)


async def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    """It is the setting's fault, for every project."""
    (tmp_path / "program").write_text("#!/nowhere/at/all\n")
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(ConfigError, match=r"FLYSYNC_TOKEN_COMMAND: .*cannot be run: No such file") as caught:
        await CommandTokens(str(tmp_path / "program"), narrowed=False).token(ProjectId("p"), AppName("acme"))

    assert ("FLYSYNC_TOKEN_COMMAND", Scope.SETUP) == (caught.value.setting, caught.value.scope)

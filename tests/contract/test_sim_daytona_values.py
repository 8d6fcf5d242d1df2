"""Values travel byte for byte into a simulated sandbox and on into a program's arguments, in every shell."""

from __future__ import annotations

import base64
import os
import random
import secrets
import shutil
from typing import TYPE_CHECKING

import pytest
from sdk_client import sdk

from flysync.sim.daytona import Daytona

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from daytona import AsyncSandbox

#: One path for each program; on some systems sh is dash, on others bash.
SHELLS = {os.path.realpath(path) for name in ("sh", "bash", "zsh", "dash") if (path := shutil.which(name))}

#: Runs a program with words that hold the values, and brings both of its streams back as base64 lines with a nonce.
BODY = """ulimit -c 0
exec 4>&1
set -- {words}
unset {variables}
e=$({{ o=$({{ timeout --foreground -k 5 90 {program} "$@" </dev/null 2>&3 3>&- 4>&-; printf "\\n%s" "$?"; }} \
| base64 | tr -d "\\n")
printf "%s:O:%s\\n" {nonce} "$o" >&4; }} 3>&1 | base64 | tr -d "\\n")
printf "%s:E:%s\\n" {nonce} "$e"
exit 0
"""

TEXTS = [
    *("", " ", "-", "--", "-n", "=", "a=b", "=a", "a==b", "#", "a#b", "a # b", "//", "~", "~root", "*", "?", "[a]"),
    *("$HOME", "${HOME}", "$(id)", "`id`", "$$", "$'\\n'", "\\", "\\\\", "\\n", "\\0", "\\x41", "%s", "%n%d", "%%"),
    *("'", '"', "''", '""', "'a'", '"a"', '"""', "a'b\"c`d", "it's", "';exit 1;'", "$(exit 1)", "&& id", "|| id"),
    *("; id", "| id", "& id", "> f", "< f", ">> f", "2>&1", "<<EOF", "EOF", "!", "!!", "!1", "^a^b", "{a,b}", "{1..3}"),
    *(
        "\n",
        "\n\n",
        "a\n",
        "\na",
        "a\nb",
        "a\r\nb",
        "\r",
        "a\r",
        "\t",
        "\ta\t",
        "a  b",
        " a ",
        "\v\f",
        "\x01\x02\x1b[31m",
    ),
    *(
        "\x7f",
        "\x80\x9f",
        "é",
        "e\u0301",
        "日本語",
        "🔑",
        "👩\u200d💻",
        "\ufeffbom",
        "\u2028",
        "\u202e",
        "\ufffd",
        "\U0010ffff",
    ),
    *("a" * 5_000, "ü" * 4_000, "\n" * 3_000, "'" * 3_000, "\\" * 3_000, "x" * 120_000, '{"a": ["b\\n", null]}'),
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ/+==\n-----END PRIVATE KEY-----\n",
    "postgres://user:p%40ss@host:5432/db?sslmode=require#x",
    "nonce:O:aGVsbG8=\n",
]
ALPHABET = "".join(chr(code) for code in range(1, 128)) + "éß日\u0301\u200d\ufeff\U0001f511\ufffd"


def random_texts(count: int) -> list[str]:
    """The same unlikely texts on every run, dense in what shells care about."""
    chance = random.Random(20261124)
    dense = ALPHABET + "'\"\\$`\n\r #=-!{}[]()<>|&;*?~%" * 4
    return ["".join(chance.choices(dense, k=chance.randint(1, 80))) for _ in range(count)]


@pytest.fixture(params=sorted(SHELLS))
async def sandbox(request: pytest.FixtureRequest, isolated_sdk: None) -> AsyncIterator[AsyncSandbox]:
    """A sandbox whose daemon uses one of the shells."""
    del isolated_sdk
    async with Daytona(shell=request.param) as server, sdk(server) as client:
        yield await client.create()


async def run(
    sandbox: AsyncSandbox, program: str, values: Sequence[str], *, name: str = "W", unset: bool = True
) -> tuple[int, bytes, bytes]:
    """Status, output and errors of *program* with the words W0=value, W1=value …"""
    nonce = secrets.token_hex(8)
    words = " ".join(f'"{name}{number}=$V{number}"' for number in range(len(values)))
    variables = " ".join(f"V{number}" for number in range(len(values))) if unset else "NOTHING"
    body = BODY.format(words=words, variables=variables, program=program, nonce=nonce)
    answer = await sandbox.process.exec(
        f"exec /bin/sh -c '{body}' flysync </dev/null",
        env={f"V{number}": value for number, value in enumerate(values)},
        timeout=100,
    )
    assert 0 == answer.exit_code, answer.result
    lines = dict(line.split(":")[1:] for line in answer.result.splitlines() if line.startswith(f"{nonce}:"))
    output, _, status = base64.b64decode(lines["O"]).rpartition(b"\n")
    return int(status), output, base64.b64decode(lines["E"])


async def test_awkward_values_arrive_whole(sandbox: AsyncSandbox) -> None:
    """More than 300 texts come out of a program's arguments as they went into the request."""
    texts = TEXTS + random_texts(330 - len(TEXTS))
    for start in range(0, len(texts), 66):
        batch = texts[start : start + 66]
        status, output, errors = await run(sandbox, 'printf "%s\\000"', batch)
        expected = b"".join(f"W{number}={text}\0".encode() for number, text in enumerate(batch))

        assert (0, b"") == (status, errors)
        assert expected == output


async def test_both_streams_come_back_apart(sandbox: AsyncSandbox) -> None:
    """Bytes that are no text included."""
    script = 'sh -c "printf out\\\\\\\\377; printf err\\\\\\\\376 >&2; exit 7"'

    assert (7, b"out\xff", b"err\xfe") == await run(sandbox, script, ["unused"])


async def test_a_nul_cannot_be_passed(sandbox: AsyncSandbox) -> None:
    """The shell is not even started, and the answer does not show the value."""
    answer = await sandbox.process.exec("true", env={"V0": "secret\0value"}, timeout=5)

    assert (-1, "exec: environment variable contains NUL") == (answer.exit_code, answer.result)


async def test_a_variable_has_a_limit(sandbox: AsyncSandbox) -> None:
    """Name, equals sign, value and final NUL have 131,072 bytes; then the shell does not start."""
    fits = await sandbox.process.exec("printf %s ${#V0}", env={"V0": "x" * 131_068}, timeout=5)
    too_long = await sandbox.process.exec("true", env={"V0": "x" * 131_069}, timeout=5)

    assert (0, "131068") == (fits.exit_code, fits.result)
    assert (-1, True) == (too_long.exit_code, too_long.result.endswith(": argument list too long"))


async def test_a_word_has_a_limit(sandbox: AsyncSandbox) -> None:
    """NAME=value may have 131,071 bytes; one more and no program starts: 126, or 127 where the shell says so."""
    fits = await run(sandbox, "printf %.6s", ["x" * (131_071 - 6)], name="NAME")
    too_long, output, _ = await run(sandbox, "printf %.6s", ["x" * (131_072 - 6)], name="NAME")

    assert (0, b"NAME0=") == fits[:2]
    assert (True, b"") == (too_long in {126, 127}, output)


# aiohttp's client warns of bodies over 1 MiB, whoever sends them.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_values_that_stay_in_the_environment_count_twice(sandbox: AsyncSandbox) -> None:
    """Twenty of 100,000 bytes pass once the variables are unset; otherwise eleven are too many."""
    unset = await run(sandbox, "printf %.4s", ["x" * 100_000] * 20)
    kept = await run(sandbox, "printf %.4s", ["x" * 100_000] * 11, unset=False)

    assert (0, 126) == (unset[0], kept[0])


async def test_a_lone_surrogate_becomes_a_replacement(sandbox: AsyncSandbox) -> None:
    """Go reads it so; the client cannot tell from the answer."""
    answer = await sandbox.process.exec("printf %s $V0", env={"V0": "a\ud800b"}, timeout=5)

    assert "a\ufffdb" == answer.result


async def test_nothing_of_a_value_is_on_disk(sandbox: AsyncSandbox) -> None:
    """No file of the sandbox holds it while a command with it runs, nor afterwards."""
    value = secrets.token_hex(16)
    search = 'grep -rlF "$V0" . "$HOME" "$TMPDIR" "$HOME/../bin"'
    during = await sandbox.process.exec(search, env={"V0": value}, timeout=10)

    assert (1, "") == (during.exit_code, during.result)


def test_the_shells_that_matter_were_tried() -> None:
    """The real daemon picks zsh, else bash; where one is missing the other tests say less."""
    missing = {name for name in ("sh", "bash", "zsh") if shutil.which(name) is None}
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")

from __future__ import annotations

import random
import shutil
import string
from typing import TYPE_CHECKING

import pytest
from parts import cases

if TYPE_CHECKING:
    from platform_of_tests import Platform

#: Values per shell, in calls of as many names as one sandbox is given; 5,000 and more in all.
PER_SHELL = 1_700
SEED = 20_261_124

AWKWARD = [
    "-",
    "--stage",
    "=",
    " ",
    " both ends ",
    "trailing\n",
    "\n",
    "a\r\nb",
    "\r",
    "#",
    "a#b",
    '"',
    "'",
    '"""',
    "''",
    "a\"b'c",
    "$HOME ${HOME} $(id) `id` \\",
    "%s %n",
    "*",
    "~",
    "!x",
    "\t",
    "\x01\x02\x7f\x1b[31m",
    "\u00a0\u0085\u2028\u2029",
    "\ufeffbom",
    "<>&",
    "💾é\u0301",
    "{}[]",
    "x" * 131_040,
]


def random_value(chance: random.Random) -> str:
    """Give a value of one of several alphabets, up to 80 characters long."""
    alphabet = chance.choice(
        [
            string.ascii_letters + string.digits + "+/=",
            string.printable,
            "".join(map(chr, range(1, 256))),
            "#\"'\\$`\n\r =-",
            "".join(chr(code) for code in range(0x400, 0x2FFF)),
        ]
    )
    return "".join(chance.choice(alphabet) for _ in range(chance.randint(1, 80)))


@cases(("shell", "count"), [("sh", 170), *((shell, PER_SHELL) for shell in ("sh", "bash", "zsh"))], quick=1)
def test_every_value_arrives_byte_for_byte(platform: Platform, shell: str, count: int) -> None:
    """From the row in Postgres through SDK, shell and flyctl to Fly's API, and to the machine."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} on this machine")
    chance = random.Random(f"{SEED}-{shell}")
    values = {f"N{number}": value for number, value in enumerate(AWKWARD)}
    values |= {f"R{number}": random_value(chance) for number in range(count)}
    app = platform.world.fly.add_app(f"values-{shell}-{count}", machines=1)
    platform.deploy("p", app.name)
    platform.store_all("p", values)
    usual, platform.world.daytona.shell = platform.world.daytona.shell, path
    try:
        done = platform.flysync("sync-project", "--project", "p", "--json")
    finally:
        platform.world.daytona.shell = usual

    assert (0, "synced") == (done.code, done.json["outcome"])
    assert [] == [name for name, value in values.items() if app.secrets.get(name) != value]
    assert [values] == list(app.running().values())

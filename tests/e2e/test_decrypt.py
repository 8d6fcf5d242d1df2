"""Values that the platform stores encrypted, and the commands of docs/ that decrypt them."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from parts import need

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

DOCS = Path(__file__).parents[2] / "docs"
KEY = os.urandom(32)
COMMANDS = {"python": f"{sys.executable} {DOCS / 'decrypt.py'}", "node": f"node {DOCS / 'decrypt.mjs'}"}
#: Nothing is to be lost on the way.
ODD = "line\nbreak \"quotes' \\ \x01 € 🔑 $HOME `id` \n"


def sealed(value: str, key: bytes = KEY) -> str:
    """Encrypt a value, as the platform does: another text each time."""
    nonce = os.urandom(12)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, value.encode(), None)).decode()


def sync(platform: Platform, command: str, *arguments: str) -> Done:
    """Sync the project, with the command."""
    given = {"FLYSYNC_DECRYPT": command, "CREDENTIALS_KEY": base64.b64encode(KEY).decode()}
    return platform.flysync("sync-project", "--project", "p", "--json", *arguments, environ=given)


@pytest.mark.parametrize("language", COMMANDS)
def test_the_commands_of_the_docs(platform: Platform, language: str) -> None:
    """The value arrives; another key changes nothing; one that nobody can decrypt fails alone."""
    need(None if shutil.which(COMMANDS[language].split()[0]) else f"no {language} on this machine")
    app = platform.world.fly.add_app(f"decrypt-{language}", machines=["m0"])
    platform.deploy("p", app.name)
    platform.store("p", A=sealed(ODD), B=sealed("two"), EMPTY=sealed(""))
    first = sync(platform, COMMANDS[language])
    platform.store("p", A=sealed(ODD), B=sealed("three", os.urandom(32)))
    turned = platform.execute("SELECT credential_name, state FROM flysync_status WHERE project_id = 'p'")
    second = sync(platform, COMMANDS[language])
    told = platform.execute("SELECT credential_name, state FROM flysync_status WHERE project_id = 'p'")
    third = sync(platform, "false")

    codes = [{one["name"]: one["code"] for one in done.json["credentials"]} for done in (first, second)]
    assert [
        {"A": None, "B": None, "EMPTY": "invalid_credential"},
        {"A": None, "B": "decrypt_failed", "EMPTY": "invalid_credential"},
    ] == codes
    assert ({"A": ODD, "B": "two"}, 1) == (app.deployed_env("m0"), app.restarts["m0"])
    assert {"A": "changed since", "B": "changed since", "EMPTY": "never sent"} == dict(turned)
    assert {"A": "deployed", "B": "changed since", "EMPTY": "never sent"} == dict(told)
    assert (1, 1, 75) == (first.code, second.code, third.code)
    assert "the command of FLYSYNC_DECRYPT ended with 1" == third.json["error"]["message"]


def test_a_program_that_is_not_there(platform: Platform) -> None:
    """It is told before anything is opened; a stray file names none."""
    missing = sync(platform, "no-such-program --key x")
    (platform.home / ".env").write_text("FLYSYNC_DECRYPT=cat\n")
    stray = platform.flysync("sync-project", "--project", "p")
    (platform.home / ".env").unlink()

    assert (2, "config", "FLYSYNC_DECRYPT") == (
        missing.code,
        *(missing.json["error"][key] for key in ("code", "setting")),
    )
    assert (2, True) == (stray.code, "FLYSYNC_DECRYPT (.env:1)" in stray.stderr)

"""A sync where flyctl runs on this machine, by the command line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from flysync.sim import flyctl as stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from platform_of_tests import Platform

VALUE = "it's #1\n \t\"ü"


def local(tmp_path: Path) -> dict[str, str]:
    """Give the settings: the stand-in on PATH, a place of its own, and no key of Daytona's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    stand_in.launcher(tmp_path / "bin" / "flyctl")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {"FLYSYNC_RUNNER": "local", "DAYTONA_API_KEY": "", "PATH": path, "TMPDIR": str(tmp_path / "tmp")}


def test_a_value_arrives_without_daytona(platform: Platform, tmp_path: Path) -> None:
    """Byte for byte; nobody asks Daytona, and nothing is left here; then it is unset."""
    app = platform.world.fly.add_app("on-this-machine", machines=2)
    platform.deploy("p", "on-this-machine")
    platform.store("p", A=VALUE)
    environ = local(tmp_path)
    asked = len(platform.world.daytona.requests("POST /api/sandbox"))

    report = platform.flysync("sync", "--project", "p", "--name", "A", "--json", environ=environ).json
    assert "synced" == report["credentials"][0]["outcome"], json.dumps(report)
    assert [{"A": VALUE}] * 2 == list(app.running().values())

    live = platform.flysync("status", "--project", "p", "--live", "--json", environ=environ)
    assert 0 == live.code, live.stderr
    platform.execute("DELETE FROM cloud_credentials WHERE project_id = 'p'")
    gone = platform.flysync("unset", "--project", "p", "--name", "A", "--yes", "--json", environ=environ)
    assert 0 == gone.code, gone.stdout
    assert [{}] * 2 == list(app.running().values())
    assert asked == len(platform.world.daytona.requests("POST /api/sandbox"))
    assert [] == [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]

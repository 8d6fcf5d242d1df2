"""What may be touched, with everything real but the clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flysync
from flysync.bootstrap import load_settings

if TYPE_CHECKING:
    from platform_of_tests import Platform

#: What would act on flyctl, or on a shell, if a name were more than a text in the sandbox.
ODD = {
    "LD_PRELOAD": "/nowhere.so",
    "PATH": "/nowhere",
    "BASH_ENV": "/nowhere",
    "FLY_API_TOKEN": "theirs",
    "FLY_APP": "other",
    "V0": "zero",
    "V1": "one",
}


async def test_no_entrance_touches_what_it_may_not(platform: Platform) -> None:
    """
    Neither the command line, be it for one project or all, nor the library; the rest is brought.

    What is not reserved is carried under whatever name, and does nothing on its way.
    """
    allowed, outside = (platform.world.fly.add_app(name) for name in ("touch-user", "touch-other"))
    for project, app in (("p", "touch-user"), ("q", "touch-other")):
        platform.deploy(project, app)
        platform.store(project, A="1", **ODD)
    first = platform.flysync("sync-project", "--project", "p", "--json")
    assert (0, {"A": "1", **ODD}) == (first.code, allowed.secrets), first
    for project in "pq":
        platform.store(project, A="2", **dict.fromkeys(ODD, "2"))
    limits: dict[str, Any] = {"FLYSYNC_APPS": "touch-u*", "FLYSYNC_RESERVED_NAMES": "LD_*, PATH, BASH_ENV FLY_*,V?"}

    fleet = platform.flysync("sync-project", "--all", "--json", **limits)
    removed = platform.flysync("unset", "--project", "p", "--name", "PATH", "--force", "--yes", **limits)
    settings = load_settings(environ=platform.environ | limits, directory=platform.home)
    options = flysync.SyncOptions(force=True, take_over=True)
    library = await flysync.sync_credentials_to_flyio("q", ["A"], options, settings=settings)

    assert (1, 1, 1) == (fleet.code, removed.code, library.exit_code)
    of_p, of_q = ({one["name"]: one["code"] for one in each["credentials"]} for each in fleet.json["projects"])
    assert {"A": None, **dict.fromkeys(ODD, "not_allowed")} == of_p
    assert dict.fromkeys(["A", *ODD], "not_allowed") == of_q
    assert "PATH is reserved: FLYSYNC_RESERVED_NAMES has PATH" in removed.stderr + removed.stdout
    assert ("not_allowed", "FLYSYNC_APPS") == (
        getattr(library.error, "code", None),
        getattr(library.error, "setting", None),
    )
    assert ({"A": "2", **ODD}, {}) == (allowed.secrets, outside.secrets)
    assert [("touch-user",)] == platform.execute("SELECT app FROM flysync_apps")
    assert [("touch-user",)] == platform.execute("SELECT DISTINCT app FROM flysync_secrets")

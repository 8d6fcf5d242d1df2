"""What a sandbox may run and reach, as a process: sums of flyctl, and a limit to Fly's hosts."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from parts import cases
from test_bad_input import refused
from test_doctor_command import examined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from platform_of_tests import Platform

SYNC = ("sync-project", "--project", "p")
OTHER = "0" * 64
#: To who asks, it is the right version; whoever runs it is noted.
SPY = "#!/bin/sh\nenv >>'@HEARD@'\necho '{\"Version\": \"0.4.87\"}'\n"


@pytest.fixture
def heard(platform: Platform, tmp_path: Path) -> Iterator[Path]:
    """What a flyctl has heard that nobody trusts, which is in all sandboxes."""
    spy = tmp_path / "flyctl"
    spy.write_text(SPY.replace("@HEARD@", str(tmp_path / "heard")))
    spy.chmod(0o755)
    default = next(iter(platform.world.daytona.snapshots.by_name.values()))
    default.files = {"flyctl": spy}
    yield tmp_path / "heard"
    default.files = {}


def sums(platform: Platform, *others: str) -> dict[str, str]:
    """Give the settings for a download that is trusted."""
    url = f"{platform.world.fly.url.replace('127.0.0.1', 'localhost')}/flyctl/flyctl_{{version}}_Linux_{{arch}}.tar.gz"
    right = platform.world.fly.tarball_sha256("0.4.87")
    return {"FLYSYNC_FLYCTL_SHA256": " ".join((*others, right)), "FLYSYNC_FLYCTL_INSTALL_URL": url}


def named(platform: Platform) -> dict[str, str]:
    """Give the settings for a limit to hosts, which takes no addresses."""
    settings = {name: url for name, url in platform.environ.items() if name.startswith(("FLY_", "FLYSYNC_FLYCTL"))}
    names = {name: url.replace("127.0.0.1", "localhost") for name, url in settings.items() if "://" in url}
    return names | {"FLYSYNC_EGRESS": "fly"}


@contextmanager
def tier_that_takes_no_list(platform: Platform) -> Iterator[None]:
    """One whose organization has a list of its own."""
    platform.world.daytona.network_restricted = True
    yield
    platform.world.daytona.network_restricted = False


def deployed(platform: Platform, app: str) -> None:
    """Deploy the project to an app that is there, and store a credential."""
    platform.world.fly.add_app(app, machines=1)
    platform.deploy("p", app)
    platform.store("p", A="canary")


@cases("borrowed", [False, True], quick=1)
def test_a_flyctl_with_another_sum_hears_nothing(platform: Platform, heard: Path, *, borrowed: bool) -> None:
    """The sync is done by one that is downloaded, and says so; in a sandbox of somebody's own as well."""
    deployed(platform, f"trust-found-{borrowed}".lower())
    more = []
    if borrowed:
        more = ["--sandbox", platform.call(platform.world.daytona.create({"name": "trust-lent"})).id]
    done = platform.flysync(*SYNC, *more, "--json", environ=sums(platform, OTHER))
    (warning,) = done.json["warnings"]

    assert (0, "synced", "flyctl_changed") == (done.code, done.json["outcome"], warning["code"])
    assert "the flyctl on the PATH was not run: its sum is " in warning["message"]
    assert f"not {OTHER[:12]}... or " in warning["message"]
    assert not heard.exists()
    if borrowed:
        platform.call(platform.world.daytona.delete(platform.world.daytona.find("trust-lent")))


def test_a_download_with_another_sum_is_refused(platform: Platform, heard: Path) -> None:
    """Nothing is stored, and nothing is run."""
    deployed(platform, "trust-download")
    settings = sums(platform) | {"FLYSYNC_FLYCTL_SHA256": OTHER}
    refused(platform, SYNC, "flyctl_changed", 1, OTHER[:12], "FLYSYNC_FLYCTL_SHA256", environ=settings)

    assert {} == platform.world.fly.world.apps["trust-download"].secrets
    assert not heard.exists()


def test_a_limit_to_hosts_is_set_for_each_sandbox(platform: Platform) -> None:
    """That of a sync and that of a doctor, which looks whether it holds: here the last host is out of reach."""
    deployed(platform, "trust-limit")
    settings = named(platform) | sums(platform)
    before = len(platform.world.daytona.requests("^POST /api/sandbox"))
    done = platform.flysync(*SYNC, "--json", environ=settings)
    looked, found = examined(platform, "--project", "p", **settings)
    sent = [json.loads(one.body) for one in platform.world.daytona.requests("^POST /api/sandbox")[before:]]

    assert (0, "synced", 0) == (done.code, done.json["outcome"], looked.code), looked.stdout
    assert ("ok", "ok") == (found["egress"][0], found["flyctl"][0])
    assert "its sum is one of those that are set" in found["flyctl"][1]
    hosts = "api.fly.io,api.machines.dev,localhost,fly.io,github.com,objects.githubusercontent.com"
    assert [f"{hosts},release-assets.githubusercontent.com"] * 2 == [one["domainAllowList"] for one in sent]


def test_a_limit_that_does_not_hold_is_a_warning(platform: Platform) -> None:
    """Found from inside."""
    platform.controls = (platform.world.daytona.url, platform.world.daytona.url)
    done, found = examined(platform, **named(platform))

    assert (0, "warning") == (done.code, found["egress"][0])
    assert "FLYSYNC_EGRESS=fly does not hold" in found["egress"][1]
    assert "FLYSYNC_FLYCTL_SHA256 is not set" in found["flyctl"][1]


@pytest.mark.slow
def test_a_tier_that_takes_no_list(platform: Platform) -> None:
    """That is a setting, for a sync and for a doctor; no address can be in a list either."""
    deployed(platform, "trust-tier")
    with tier_that_takes_no_list(platform):
        refused(platform, SYNC, "config", 2, "FLYSYNC_EGRESS", "tier to 3", environ=named(platform))
        done, found = examined(platform, **named(platform))
    refused(
        platform, SYNC, "config", 2, "FLY_API_BASE_URL (environment) has no plain name of a host", FLYSYNC_EGRESS="fly"
    )

    assert (1, "config", "failed") == (done.code, done.json["error"]["code"], found["egress"][0])

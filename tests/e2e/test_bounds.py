"""What somebody else has written may be of any size: it costs little memory, and fails alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from flysync.sim.loopback import Fault

if TYPE_CHECKING:
    from platform_of_tests import Platform

#: The most that a process may take, whatever it is given.
MOST_MIB = 300


#: Runs flysync and says how much memory it had: a process that the tests themselves start is said to have had theirs.
LAUNCHER = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "flysync", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mib(platform: Platform, *arguments: str) -> tuple[dict[str, Any], float]:
    """Run a command as it is, and give its JSON and the most memory that it had."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *arguments, "--json"],
        env=platform.environ,
        cwd=platform.home,
        capture_output=True,
        check=True,
        timeout=300,
    )
    told, peak = done.stdout.splitlines()
    return json.loads(told), int(peak) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "view"])
def test_a_row_of_200_mb(platform: Platform, kind: str) -> None:
    """It is told by its size, and the others of its project are synced; no list of others' is any larger for it."""
    app = platform.world.fly.add_app(f"large-{kind}", machines=1)
    platform.deploy("p", app.name)
    platform.store("p", A="1")
    platform.execute("INSERT INTO cloud_credentials VALUES ('p', 'LARGE', repeat('x', 200000000))")
    platform.execute("ALTER TABLE cloud_credentials DROP CONSTRAINT cloud_credentials_project_id_credential_name_key")
    platform.execute("INSERT INTO cloud_credentials VALUES ('p', 'LARGER_' || repeat('N', 50000000), 'x')")
    platform.execute("DROP INDEX project_deployments_newest, project_deployments_app")
    platform.execute(
        "INSERT INTO project_deployments VALUES ('q', repeat('x', 200000000)), (repeat('x', 200000000), 'x')"
    )
    platform.execute(
        "UPDATE project_deployments SET created_at = now() WHERE project_id = 'p'"
    )  # the last that is found
    if kind == "view":
        platform.execute("ALTER TABLE cloud_credentials RENAME TO kept")
        platform.execute(
            "CREATE VIEW cloud_credentials AS SELECT project_id, credential_name,"
            " concat(credential_value, '') AS credential_value, updated_at FROM kept"
        )
    told, most = peak_mib(platform, "sync-project", "--project", "p")
    outcomes = {one["name"][:7]: (one["outcome"], one["code"]) for one in told["credentials"]}
    seen, most_seen = peak_mib(platform, "status")
    _, most_asked = peak_mib(platform, "db", "check")

    assert ("synced", None) == outcomes.pop("A")
    assert {"LARGE": ("failed", "invalid_credential"), "LARGER_": ("failed", "invalid_credential")} == outcomes
    assert "200,000,000 bytes" in str(told)
    assert {"A", "LARGE"} <= {line["name"] for line in seen["status"]}
    assert max(most, most_seen, most_asked) < MOST_MIB


@pytest.mark.slow
def test_many_rows_that_are_large_together(platform: Platform) -> None:
    """They are too much for one run, which says so; one of them, by its name, is not."""
    app = platform.world.fly.add_app("many", machines=1)
    platform.deploy("p", app.name)
    platform.execute(
        "INSERT INTO cloud_credentials"
        " SELECT 'p', 'A' || number, repeat('é', 50000) FROM generate_series(1, 5000) AS number"
    )
    told, most = peak_mib(platform, "sync-project", "--project", "p")
    one, most_of_one = peak_mib(platform, "sync", "--project", "p", "--name", "A7")
    seen, most_seen = peak_mib(platform, "status")

    assert ("invalid_credential", "synced") == (told["error"]["code"], one["outcome"])
    assert {"values_not_compared"} <= {note["code"] for note in seen["warnings"]}
    assert max(most, most_of_one, most_seen) < MOST_MIB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("match", "code"),
    [
        ("POST /toolbox/.*/process/execute", "outcome_unknown"),
        (r"POST /api/sandbox(\?|$)", "daytona_unavailable"),
    ],
    ids=["sandbox", "Daytona"],
)
def test_an_answer_of_150_mb(platform: Platform, match: str, code: str) -> None:
    """Whatever it holds; the next run finds the credential as it was."""
    app = platform.world.fly.add_app("loud", machines=1)
    platform.deploy("p", app.name)
    platform.store("p", A="1")
    loud = Fault(match=match, status=200, body=f'{{"exitCode": 0, "result": "{"é" * 75_000_000}"}}', times=99)
    platform.world.daytona.faults.append(loud)
    told, most = peak_mib(platform, "sync-project", "--project", "p", "--timeout", "60s")
    platform.world.daytona.faults.remove(loud)
    again = platform.flysync("sync-project", "--project", "p", "--json")

    assert (code, "synced") == (told["error"]["code"], again.json["outcome"])
    assert most < MOST_MIB


def test_standard_input_has_an_end(platform: Platform) -> None:
    """What goes on for longer than any value is not read."""
    done = platform.flysync("sync", "--project", "p", "--name", "A", "--value-stdin", "--json", stdin=b"x" * 2**21)

    assert (2, "usage") == (done.code, done.json["error"]["code"])
    assert "more than 1,048,576 bytes" in done.json["error"]["message"]

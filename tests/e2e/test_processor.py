"""docs/processor.mjs: a real queue, from the backend's `queue.add` to the machines, and how each job ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from node_of_tests import until
from parts import cases
from queue_of_tests import REMOVAL, contents

from flysync.sim.fly_machine import Crash
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from node_of_tests import Backend
    from platform_of_tests import Platform

    from flysync.sim.valkey import EmbeddedValkey

    Start = Callable[..., "Processor"]

PROCESSOR = Path(__file__).parents[2] / "docs" / "processor.mjs"
MARK = "canary-5c1e"
VALUE = f"it's {MARK} #1\n{MARK} #2\n"


class Processor:
    """The processor as a process; its output is in a file."""

    def __init__(self, script: Path, environ: dict[str, str], directory: Path) -> None:
        self.output = directory / "processor.log"
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                ["node", script], env=environ, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def says(self, words: str, *, times: int = 1) -> None:
        """Wait until it says *words*, or has ended."""
        until(lambda: self.output.read_text().count(words) >= times or self.process.poll() is not None)

    def stop(self, *, signals: int = 1) -> int:
        """Stop it, with a second signal where it is not to wait for what it does, and give its exit code."""
        for number in range(signals):
            self.process.send_signal(signal.SIGTERM)
            self.says("SIGTERM received", times=number + 1)
        return self.process.wait(60)


@pytest.fixture
def start(platform: Platform, backend: Backend, node: Path, valkey: EmbeddedValkey) -> Iterator[Start]:
    """Start the processor on the backend's queue; in words of *instead* where it takes too long as it is."""
    started: list[Processor] = []

    def start(*, instead: dict[str, str] | None = None, path: str = "", **environ: str) -> Processor:
        text = PROCESSOR.read_text()
        for words, others in (instead or {}).items():
            assert 1 == text.count(words)
            text = text.replace(words, others)
        script = platform.home / "processor.mjs"
        script.write_text(text)
        if not started:
            (platform.home / "node_modules").symlink_to(node / "node_modules")
        ours = {
            "REDIS_URL": valkey.url,
            "FLYSYNC_QUEUE": backend.queue,
            "PATH": path or os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONDONTWRITEBYTECODE": "",  # else each flysync compiles Daytona's SDK: 3.5 s, not 1.5 (measured)
        }
        started.append(Processor(script, platform.environ | ours | environ, platform.home))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            assert 0 == one.stop(signals=2), one.output.read_text()
        assert MARK not in one.output.read_text()
    platform.world.fly.faults.clear()
    platform.world.daytona.faults.clear()


def in_redis(server: EmbeddedValkey, queue: str) -> bytes:
    """The queue's keys and all that they hold."""
    return contents(server.url, f"*{queue}*").encode()


def deploy(platform: Platform, project: str, *, machines: int = 1, **values: str) -> Any:
    """A project with credentials and an app."""
    app = platform.world.fly.add_app(f"{platform.home.name}-{project}".replace("_", "-"), machines=machines)
    platform.deploy(project, app.name)
    platform.store(project, **values)
    return app


def held(platform: Platform, app: Any) -> Fault:
    """Let Fly take its time to answer the next request that brings secrets to *app*."""
    fault = Fault(match=f"POST /v1/apps/{app.name}/secrets", kind=FaultKind.HOLD)
    platform.world.fly.faults.append(fault)
    return fault


def let_go(platform: Platform, fault: Fault) -> None:
    """Let it answer."""
    platform.loop.call_soon_threadsafe(fault.let_go.set)


def job_of(project: str, name: str = "A", **more: str) -> dict[str, str]:
    """What the backend puts into the queue."""
    return {"projectId": project, "credentialName": name, **more}


#: Stands in for flysync where it has to behave oddly, or only to take its time: what it does depends on the project.
ODD = """#!/bin/sh
printf '%s\\n' "$@" > "$HOME/arguments"
case "$3" in
  garbage) echo 'Traceback: {"exit_code": 1}'; exit 1 ;;
  silent) exit 0 ;;
  lying) echo '{"exit_code": 0}'; exit 1 ;;
  killed) kill -KILL $$ ;;
  stuck) trap "" TERM; exec sleep 60 ;;
  terminated) [ -e "$HOME/once" ] || { touch "$HOME/once"; kill -TERM $$; } ;;
  patient) touch "$HOME/at work"; until [ -e "$HOME/go" ]; do sleep 0.05; done ;;
  abandoned) [ -e "$HOME/once" ] || { touch "$HOME/once"; while kill -0 $PPID; do sleep 0.1; done; exit; } ;;
esac
cat > "$HOME/input"
echo '{"exit_code": 0, "outcome": "synced", "run_id": "r", "app": "a", "warnings": []}'
"""


@pytest.fixture
def odd(platform: Platform) -> str:
    """A PATH with the odd flysync, and no other."""
    flysync = platform.home / "bin" / "flysync"
    flysync.parent.mkdir()
    flysync.write_text(ODD)
    flysync.chmod(0o755)
    others = [place for place in os.environ["PATH"].split(os.pathsep) if not Path(place, "flysync").exists()]
    return os.pathsep.join([str(flysync.parent), *others])


def test_a_job_becomes_a_secret(platform: Platform, backend: Backend, start: Start, valkey: EmbeddedValkey) -> None:
    """With a small result, and no value in all of Redis from the moment that the job is at work."""
    app = deploy(platform, "p", A=VALUE)
    fault = held(platform, app)
    job_id = backend.add(job_of("p", credentialValue=VALUE, trace="kept"))
    before = in_redis(valkey, backend.queue)
    start()
    until(lambda: not fault.times)
    at_work = in_redis(valkey, backend.queue)
    let_go(platform, fault)
    job = backend.ended(job_id)

    assert ("completed", {"outcome": "synced", "app": app.name}) == (
        job["state"],
        {key: value for key, value in job["returnvalue"].items() if key != "run_id"},
    )
    assert [(job["returnvalue"]["run_id"],)] == platform.execute("SELECT run_id FROM flysync_runs")
    assert [{"A": VALUE}] == list(app.running().values())
    assert [True, False, False] == [
        MARK.encode() in found for found in (before, at_work, in_redis(valkey, backend.queue))
    ]
    assert job_of("p", trace="kept") == job["data"]


@pytest.mark.slow
def test_a_removal_becomes_none(platform: Platform, backend: Backend, start: Start, valkey: EmbeddedValkey) -> None:
    """What is there again is left alone, what was never ours is refused; a value in such a job is of no account."""
    app = deploy(platform, "p", A="1", B="2")
    assert 0 == platform.flysync("sync-project", "--project", "p").code
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'A'")
    start(FLYSYNC_VALUE_SOURCE="caller", instead={"concurrency: 4,": "concurrency: 1,"})
    opts: dict[str, Any] = {"name": REMOVAL, "attempts": 5, "timestamp": 1}  # long ago: its transaction is over
    ids = [backend.add(job_of("p", name, credentialValue=VALUE), **opts) for name in ("A", "B", "NEVER")]
    jobs = [backend.ended(job_id) for job_id in ids]

    assert ["completed", "completed", "failed"] == [job["state"] for job in jobs]
    assert ["synced", "unchanged"] == [job["returnvalue"]["outcome"] for job in jobs[:2]]
    assert ["superseded: still in cloud_credentials, and not removed: B"] == jobs[1]["logs"]
    assert (True, 1) == (jobs[2]["failedReason"].startswith("usage: flysync never wrote"), jobs[2]["attemptsMade"])
    assert [{"B": "2"}] == list(app.running().values())
    assert MARK.encode() not in in_redis(valkey, backend.queue)


@pytest.mark.slow
def test_a_removal_whose_transaction_is_not_over(platform: Platform, backend: Backend, start: Start) -> None:
    """A job that is younger than a minute waits for it; of a deleted project, too."""
    app = deploy(platform, "p", A="1")
    assert 0 == platform.flysync("sync", "--project", "p", "--name", "A").code
    start()
    job_id = backend.add(job_of("p"), name=REMOVAL, backoff=10, attempts=99)
    until(lambda: backend.job(job_id)["attemptsMade"])
    platform.execute("TRUNCATE cloud_credentials, project_deployments")
    job = backend.ended(job_id)

    assert ("completed", "superseded", "synced") == (
        job["state"],
        job["failedReason"].split(":")[0],
        job["returnvalue"]["outcome"],
    )
    assert [{}] == list(app.running().values())


@pytest.mark.slow
def test_nothing_to_do_is_done(platform: Platform, backend: Backend, start: Start) -> None:
    """Completed where there is nothing to give it to, no machine yet, or nothing to change; the reason is logged."""
    platform.store("not-deployed", A="1")
    deploy(platform, "no-machines", machines=0, A="1")
    start()
    ids = {project: backend.add(job_of(project)) for project in ("not-deployed", "no-machines")}
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}

    assert {
        "not-deployed": ("completed", "skipped", ["not_deployed"]),
        "no-machines": ("completed", "staged", ["no_machines"]),
    } == {
        project: (job["state"], job["returnvalue"]["outcome"], [line.split(":")[0] for line in job["logs"]])
        for project, job in jobs.items()
    }


@pytest.mark.slow
def test_what_cannot_succeed_fails_at_once(
    platform: Platform, backend: Backend, start: Start, valkey: EmbeddedValkey
) -> None:
    """Whatever attempts the producer allowed; with flysync's code, and nothing of the value."""
    platform.store("elsewhere", B="1")
    platform.execute("INSERT INTO project_deployments SELECT 'two', unnest(ARRAY['one', 'two']), now()")
    platform.store("two", A="1")
    deploy(platform, "empty", A="")
    gone = deploy(platform, "gone", A="1")
    assert 0 == platform.flysync("sync", "--project", "gone", "--name", "A").code
    platform.store("gone", A="2")
    del platform.world.fly.world.apps[gone.name]
    deploy(platform, "unwritten", A="1")
    platform.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';"
        "CREATE TRIGGER refuse BEFORE INSERT ON project_actions"
        " FOR EACH ROW WHEN (new.project_id = 'unwritten') EXECUTE FUNCTION refuse()"
    )
    expected = {
        "nowhere": "project_not_found",
        "two": "ambiguous_deployment",
        "empty": "invalid_credential",
        "gone": "app_not_visible",
        "elsewhere": "credential_not_found",
        "unwritten": "config",
    }
    start()
    opts: dict[str, Any] = {"attempts": 5, "backoff": 10, "timestamp": 1}  # long ago: its transaction is over
    ids = {project: backend.add(job_of(project, credentialValue=VALUE), **opts) for project in expected}
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}

    assert {project: ("failed", code, 1) for project, code in expected.items()} == {
        project: (job["state"], job["failedReason"].split(":")[0], job["attemptsMade"]) for project, job in jobs.items()
    }
    platform.execute("DROP TRIGGER refuse ON project_actions")
    assert MARK.encode() not in in_redis(valkey, backend.queue)


def test_what_is_no_job_of_ours_fails_at_once(backend: Backend, start: Start, valkey: EmbeddedValkey) -> None:
    """Another name, other types, too long: the field is named, flysync not asked, and the value goes all the same."""
    start(path=str(Path(shutil.which("node") or "").parent))
    good = job_of("p", credentialValue=VALUE)
    bad: list[Any] = [7.5, None, True, ["p"], {"$ne": ""}, "a\0b", "\ud800", "x" * 257]
    none: list[Any] = [None, "text", {}, [], 7]
    data = [(key, {**good, key: one}) for one in bad for key in job_of("p")] + [("projectId", one) for one in none]
    ids = [backend.add(good, name="another", attempts=5), *(backend.add(one, attempts=5) for _, one in data)]
    jobs = [backend.ended(job_id) for job_id in ids]

    assert [("failed", 1)] * len(ids) == [(job["state"], job["attemptsMade"]) for job in jobs]
    assert "usage: it is not a job of ours" == jobs[0]["failedReason"]
    assert [] == [
        (field, job["failedReason"])
        for (field, _), job in zip(data, jobs[1:], strict=True)
        if not job["failedReason"].startswith(f"usage: the job's {field} ")
    ]
    assert MARK.encode() not in in_redis(valkey, backend.queue)


def test_a_value_that_is_no_text_stays_with_its_job(backend: Backend, start: Start) -> None:
    """Where it counts: nobody else may have it, and nothing was begun."""
    start(path=str(Path(shutil.which("node") or "").parent), FLYSYNC_VALUE_SOURCE="caller")
    job = backend.ended(backend.add({**job_of("p"), "credentialValue": [VALUE]}, attempts=5))

    assert "usage: the job's credentialValue is missing or not a string" == job["failedReason"]
    assert ("failed", [VALUE]) == (job["state"], job["data"]["credentialValue"])


@pytest.mark.slow
def test_what_may_succeed_later_is_tried_again(platform: Platform, backend: Backend, start: Start) -> None:
    """As often as the producer allows: a failure for a time, and one that turns out to be for good."""
    apps = {project: deploy(platform, project, A="1") for project in ("set", "lost", "always")}
    secrets, lost = (f"POST /v1/apps/{apps[one].name}/" for one in ("set", "lost"))
    apps["always"].machines[0].crash = Crash(secrets={"A": "1"}, after_s=0.2)
    platform.world.fly.faults += [
        Fault(match=secrets + "secrets", times=3),  # of flysync's own tries
        Fault(match=lost + "secrets", kind=FaultKind.DROP_AFTER, times=3),
    ]
    start()
    ids = {project: backend.add(job_of(project), attempts=5, backoff=10) for project in apps}
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}

    assert {
        "set": ("completed", 2, "flyctl_failed"),
        "lost": ("completed", 2, "outcome_unknown"),
        "always": ("failed", 2, "deploy_failed"),
    } == {
        project: (job["state"], job["attemptsMade"], job["failedReason"].split(":")[0]) for project, job in jobs.items()
    }
    assert "Error: deploy_incomplete" in jobs["always"]["stacktrace"][0]


@pytest.mark.slow
def test_a_database_that_is_away(platform: Platform, backend: Backend, start: Start) -> None:
    """No attempt is counted, whatever the producer allows; each knows how often it was put off, and all are done."""
    platform.store("p", A="1")
    postgres = platform.world.postgres
    assert postgres is not None
    postgres.stop()
    try:
        processor = start(instead={"[10, 5_000, 600_000]": "[10, 200, 2_000]"})
        ids = [backend.add(job_of("p"), attempts=1) for _ in range(8)]
        processor.says("waits: database_unavailable", times=6)
        tried = processor.output.read_text().count("waits: ")
        jobs = [backend.job(job_id) for job_id in ids]
    finally:
        postgres.start()

    assert {0} == {job["attemptsMade"] for job in jobs}
    assert {"waiting", "delayed", "active"} >= {job["state"] for job in jobs}
    assert ["completed"] * 8 == [backend.ended(job_id)["state"] for job_id in ids]
    assert tried <= 12


@pytest.mark.slow
def test_a_credential_whose_transaction_is_not_over(platform: Platform, backend: Backend, start: Start) -> None:
    """A job that is younger than a minute waits for it."""
    platform.store("p", B="1")
    start()
    job_id = backend.add(job_of("p"), backoff=10, attempts=9)
    until(lambda: backend.job(job_id)["attemptsMade"])
    platform.store("p", A="1")
    job = backend.ended(job_id)

    assert ("completed", "credential_not_found") == (job["state"], job["failedReason"].split(":")[0])


@pytest.mark.slow
def test_a_service_that_says_when(platform: Platform, backend: Backend, start: Start) -> None:
    """A job is not tried again before, whatever the producer's backoff."""
    deploy(platform, "p", A="1")
    fault = Fault(match="POST /api/sandbox", status=429, headers={"Retry-After": "1"}, times=10**6)
    platform.world.daytona.faults.append(fault)
    start(instead={"[10, 5_000,": "[10, 10,"})
    job = backend.ended(backend.add(job_of("p"), attempts=1, backoff=1), "delayed")

    assert (0, True) == (job["attemptsMade"], 1000 < job["delay"] <= 1020)


@pytest.mark.slow
def test_an_app_that_is_held_and_time_that_runs_out(platform: Platform, backend: Backend, start: Start) -> None:
    """Somebody holds the app's lock, a service does not answer: told as it is within the limit, and tried again."""
    locked, silent = deploy(platform, "locked", A="1"), deploy(platform, "silent", A="1")
    fault = Fault(match=f"POST /v1/apps/{silent.name}/secrets", kind=FaultKind.HANG, times=9)
    platform.world.fly.faults.append(fault)
    with psycopg.connect(platform.dsn) as somebody:
        somebody.execute("SELECT pg_advisory_xact_lock(hashtextextended('flysync:' || %s, 0))", [locked.name])
        start(instead={"[600, 30]": "[25, 30]", "[10, 5_000,": "[10, 500,"})
        ids = [backend.add(job_of(project)) for project in ("locked", "silent")]
        until(lambda: all(backend.job(job_id)["attemptsMade"] for job_id in ids))
        while_locked = backend.job(ids[0])["failedReason"]
    fault.times = 0
    jobs = [backend.ended(job_id) for job_id in ids]

    assert ["completed", "completed"] == [job["state"] for job in jobs]
    assert "locked" == while_locked.split(":")[0]
    assert jobs[1]["failedReason"].split(":")[0] in {"timeout", "outcome_unknown"}
    assert ({"A": "1"}, {"A": "1"}) == (locked.secrets, silent.secrets)


@pytest.mark.slow
def test_an_app_that_moves_while_we_run(platform: Platform, backend: Backend, start: Start) -> None:
    """Twice during one run: that is tried again, and ends at the last one."""
    apps = [platform.world.fly.add_app(f"moves-{number}", machines=1) for number in range(3)]
    platform.deploy("p", apps[0].name)
    platform.store("p", A="1")
    start(instead={"[10, 5_000,": "[10, 100,"})
    holds = [Fault(match=f"POST /v1/apps/{app.name}/secrets", kind=FaultKind.HOLD) for app in apps[:2]]
    platform.world.fly.faults += holds
    job_id = backend.add(job_of("p"))
    for hold, app in zip(holds, apps[1:], strict=True):
        until(partial(_has_begun, hold))
        platform.deploy("p", app.name)
        let_go(platform, hold)
    job = backend.ended(job_id)

    assert ("completed", "app_moved", 2) == (job["state"], job["failedReason"].split(":")[0], job["attemptsMade"])
    assert ({"A": "1"}, apps[2].name) == (apps[2].secrets, job["returnvalue"]["app"])


def _has_begun(hold: Fault) -> bool:
    return not hold.times


@pytest.mark.slow
def test_settings_that_are_wrong(platform: Platform, backend: Backend, start: Start) -> None:
    """Jobs wait until somebody has mended them."""
    deploy(platform, "p", A="1")
    platform.execute("ALTER TABLE flysync_runs RENAME TO away")
    processor = start(instead={"[10, 5_000,": "[10, 500,"})
    job_id = backend.add(job_of("p"), attempts=1)
    processor.says("waits: config", times=2)
    platform.execute("ALTER TABLE away RENAME TO flysync_runs")

    assert ("completed", 1) == ((job := backend.ended(job_id))["state"], job["attemptsMade"])


@pytest.mark.slow
def test_what_the_setup_refuses_one_job_alone(platform: Platform, backend: Backend, start: Start) -> None:
    """It waits until another one has got through, and fails then: it would wait for ever."""
    for project in ("own", "p"):
        deploy(platform, project, A="1")
    platform.execute("ALTER TABLE project_actions ADD CHECK (project_id <> 'own')")
    processor = start(instead={"[10, 5_000,": "[10, 500,"})
    refused = backend.add(job_of("own"), attempts=3)
    processor.says("waits: config", times=2)
    passed = backend.ended(backend.add(job_of("p")))
    job = backend.ended(refused)

    assert ("completed", "failed", 1) == (passed["state"], job["state"], job["attemptsMade"])
    assert "config: Postgres refuses" in job["failedReason"]


@pytest.mark.slow
def test_two_jobs_of_one_project_at_once(platform: Platform, backend: Backend, start: Start) -> None:
    """Both are done, with two restarts at most: flysync's own lock is the only one that is needed."""
    app = deploy(platform, "p", A="1", B="2")
    ids = [backend.add(job_of("p", name)) for name in "AB"]
    start()
    jobs = [backend.ended(job_id) for job_id in ids]

    assert [("completed", 1)] * 2 == [(job["state"], job["attemptsMade"]) for job in jobs]
    assert [{"A": "1", "B": "2"}] == list(app.running().values())
    assert max(app.restarts.values()) <= 2


def test_one_signal_lets_jobs_finish(platform: Platform, backend: Backend, start: Start, odd: str) -> None:
    """What is at work is done, what waits is left, and the exit code is that of success."""
    processor = start(path=odd)
    at_work = backend.add(job_of("patient"))
    until((platform.home / "at work").exists)
    processor.process.send_signal(signal.SIGTERM)
    processor.says("SIGTERM received")
    waiting = backend.add(job_of("patient"))
    (platform.home / "go").touch()

    assert 0 == processor.process.wait(60)
    assert ("completed", "waiting") == (backend.job(at_work)["state"], backend.job(waiting)["state"])


@pytest.mark.slow
def test_a_second_signal_hands_jobs_back(
    platform: Platform, backend: Backend, start: Start, valkey: EmbeddedValkey
) -> None:
    """Flysync cleans up, no attempt is counted, and the next processor does the job; with the caller's value."""
    app = deploy(platform, "p", A="not this")
    fault = held(platform, app)
    processor = start(FLYSYNC_VALUE_SOURCE="caller")
    job_id = backend.add(job_of("p", credentialValue=VALUE), attempts=1)
    until(lambda: not fault.times)
    at_work = in_redis(valkey, backend.queue)
    assert 0 == processor.stop(signals=2)
    job = backend.job(job_id)

    assert {} == platform.world.daytona.sandboxes
    assert (True, 0, VALUE) == (
        job["state"] in {"delayed", "waiting"},
        job["attemptsMade"],
        job["data"]["credentialValue"],
    )
    let_go(platform, fault)
    start(FLYSYNC_VALUE_SOURCE="caller")
    assert ("completed", [{"A": VALUE}]) == (backend.ended(job_id)["state"], list(app.running().values()))
    assert [False, False] == [MARK.encode() in found for found in (at_work, in_redis(valkey, backend.queue))]


@pytest.mark.slow
def test_a_redis_that_is_away(
    platform: Platform, backend: Backend, start: Start, odd: str, valkey: EmbeddedValkey
) -> None:
    """A job that ended meanwhile is completed when it is back, and its work is not done twice."""
    processor = start(path=odd)
    job_id = backend.add(job_of("patient"))
    until((platform.home / "at work").exists)
    valkey.stop()
    (platform.home / "go").touch()
    processor.says("ECONNREFUSED")
    valkey.start()
    job = backend.ended(job_id)

    assert ("completed", 1, 1) == (job["state"], job["attemptsMade"], job["attemptsStarted"])


@pytest.mark.slow
def test_a_redis_that_stays_away(backend: Backend, start: Start, odd: str, valkey: EmbeddedValkey) -> None:
    """It does not keep the processor from ending: the job is at work for Redis, and the next one takes it over."""
    processor = start(path=odd, instead={"grace + 20_000": "grace + 200"})
    job_id = backend.add(job_of("patient"))
    until(lambda: backend.job(job_id)["state"] == "active")
    valkey.stop()
    try:
        assert 1 == processor.stop(signals=2)
    finally:
        valkey.start()

    assert "active" == backend.job(job_id)["state"]


@pytest.mark.slow
def test_a_flysync_that_does_not_answer(backend: Backend, start: Start, odd: str) -> None:
    """Tried again, whatever it was; also one that outlives its time."""
    start(path=odd, instead={"[LIMIT_S, CLEANING_S] = [600, 30]": "[LIMIT_S, CLEANING_S] = [0, 1.5]"})
    expected = {"garbage": "1", "silent": "0", "lying": "1", "killed": "SIGKILL", "stuck": "time limit"}
    ids = {project: backend.add(job_of(project), attempts=2, backoff=10) for project in expected}
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}

    assert {
        project: ("failed", 2, f"flysync gave no answer that can be read ({what})")
        for project, what in expected.items()
    } == {project: (job["state"], job["attemptsMade"], job["failedReason"]) for project, job in jobs.items()}


@pytest.mark.slow
def test_a_flysync_that_is_not_there_yet(platform: Platform, backend: Backend, start: Start, odd: str) -> None:
    """Jobs wait for it, and a number is a project's id."""
    flysync = platform.home / "bin" / "flysync"
    flysync.rename(platform.home / "later")
    processor = start(path=odd, FLYSYNC_QUEUE_PREFIX="", instead={"[10, 5_000,": "[10, 100,"})
    job_id = backend.add({**job_of("p"), "projectId": 123}, attempts=1)
    processor.says("waits: flysync cannot be started (ENOENT)")
    (platform.home / "later").rename(flysync)

    assert "completed" == backend.ended(job_id)["state"]
    assert "123" == (platform.home / "arguments").read_text().splitlines()[2]


@cases("source", ["caller", "database"], quick=1)
def test_where_a_value_goes(platform: Platform, backend: Backend, start: Start, odd: str, source: str) -> None:
    """To standard input where the caller's counts, and nowhere else; also after somebody has ended flysync."""
    start(path=odd, FLYSYNC_VALUE_SOURCE=source, instead={"[10, 5_000,": "[10, 5,"})
    job = backend.ended(backend.add(job_of("terminated", credentialValue=VALUE), attempts=1))
    arguments = (platform.home / "arguments").read_text().splitlines()

    assert ("completed", 1, 2) == (job["state"], job["attemptsMade"], job["attemptsStarted"])
    assert ["sync", "--project", "terminated", "--name", "A", "--timeout", "600s", "--json"] == arguments[:8]
    expected = ([], "") if source == "database" else (["--value-stdin"], VALUE)
    assert expected == (arguments[8:], (platform.home / "input").read_text())


def test_a_removal_needs_no_value(
    platform: Platform, backend: Backend, start: Start, odd: str, valkey: EmbeddedValkey
) -> None:
    """One that its job has goes nowhere, though the caller's count, and does not stay in Redis."""
    start(path=odd, FLYSYNC_VALUE_SOURCE="caller")
    job = backend.ended(backend.add(job_of("p", credentialValue=VALUE), name=REMOVAL))
    arguments = "unset --project p --name A --timeout 600s --json --if-gone --yes"

    assert ("completed", job_of("p")) == (job["state"], job["data"])
    assert (arguments.split(), "") == (
        (platform.home / "arguments").read_text().splitlines(),
        (platform.home / "input").read_text(),
    )
    assert MARK.encode() not in in_redis(valkey, backend.queue)


@cases("source", ["caller", "database"], quick=1)
def test_a_processor_that_is_killed(platform: Platform, backend: Backend, start: Start, odd: str, source: str) -> None:
    """Another one does its job, without an attempt counted; a value that only the killed one had is lost."""
    how: Any = {"path": odd, "FLYSYNC_VALUE_SOURCE": source}
    how["instead"] = {"concurrency: 4,": "concurrency: 4, lockDuration: 1000, stalledInterval: 500,"}
    processor = start(**how)
    job_id = backend.add(job_of("abandoned", credentialValue=VALUE), attempts=1)
    until((platform.home / "once").exists)
    processor.process.kill()
    start(**how)

    assert ("completed", 1) == ((job := backend.ended(job_id))["state"], job["attemptsMade"])
    assert "--value-stdin" not in (platform.home / "arguments").read_text()

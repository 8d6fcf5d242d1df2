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
from queue_of_tests import contents

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


def in_redis(server: EmbeddedValkey) -> bytes:
    """All keys and all that they hold."""
    return contents(server.url, "*").encode()


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
    before = in_redis(valkey)
    start()
    until(lambda: not fault.times)
    at_work = in_redis(valkey)
    let_go(platform, fault)
    job = backend.ended(job_id)

    assert ("completed", {"outcome": "synced", "app": app.name}) == (
        job["state"],
        {key: value for key, value in job["returnvalue"].items() if key != "run_id"},
    )
    assert [(job["returnvalue"]["run_id"],)] == platform.execute("SELECT run_id FROM flysync_runs")
    assert [{"A": VALUE}] == list(app.running().values())
    assert [True, False, False] == [MARK.encode() in found for found in (before, at_work, in_redis(valkey))]
    assert job_of("p", trace="kept") == job["data"]


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
    refused = deploy(platform, "refused", A="1")
    fault = Fault(match=f"POST /v1/apps/{refused.name}/secrets", status=401, body='{"error": "unauthorized"}')
    platform.world.fly.faults.append(fault)
    gone = deploy(platform, "gone", A="1")
    assert 0 == platform.flysync("sync", "--project", "gone", "--name", "A").code
    platform.store("gone", A="2")
    del platform.world.fly.world.apps[gone.name]
    expected = {
        "nowhere": "project_not_found",
        "two": "ambiguous_deployment",
        "empty": "invalid_credential",
        "refused": "access_denied",
        "gone": "app_not_visible",
        "elsewhere": "credential_not_found",
    }
    start()
    opts: dict[str, Any] = {"attempts": 5, "backoff": 10, "timestamp": 1}  # long ago: its transaction is over
    ids = {project: backend.add(job_of(project, credentialValue=VALUE), **opts) for project in expected}
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}

    assert {project: ("failed", code, 1) for project, code in expected.items()} == {
        project: (job["state"], job["failedReason"].split(":")[0], job["attemptsMade"]) for project, job in jobs.items()
    }
    assert MARK.encode() not in in_redis(valkey)


def test_what_is_no_job_of_ours_fails_at_once(backend: Backend, start: Start, valkey: EmbeddedValkey) -> None:
    """Another name, other types; flysync is not asked, and the value goes all the same."""
    start(path=str(Path(shutil.which("node") or "").parent))
    good = job_of("p", credentialValue=VALUE)
    bad: list[Any] = [7, None, ["p"], {"$ne": ""}, "a\0b", "\ud800"]
    data: list[Any] = [{**good, key: one} for one in bad for key in job_of("p")]
    data += [None, "text", {}, {**good, "credentialValue": [VALUE]}]
    ids = [backend.add(good, name="another", attempts=5), *(backend.add(one, attempts=5) for one in data)]
    jobs = [backend.ended(job_id) for job_id in ids]

    assert [("failed", "no job of ours, or what it holds is no text", 1)] * len(ids) == [
        (job["state"], job["failedReason"], job["attemptsMade"]) for job in jobs
    ]
    assert MARK.encode() not in in_redis(valkey)


@pytest.mark.slow
def test_what_may_succeed_later_is_tried_again(platform: Platform, backend: Backend, start: Start) -> None:
    """As often as the producer allows: a failure for a time, and one that turns out to be for good."""
    apps = {project: deploy(platform, project, A="1") for project in ("set", "lost", "always", "record")}
    secrets, lost = (f"POST /v1/apps/{apps[one].name}/" for one in ("set", "lost"))
    apps["always"].machines[0].crash = Crash(secrets={"A": "1"}, after_s=0.2)
    platform.world.fly.faults += [
        Fault(match=secrets + "secrets", times=3),  # of flysync's own tries
        Fault(match=lost + "secrets", kind=FaultKind.DROP_AFTER, times=3),
    ]
    platform.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';"
        "CREATE TRIGGER refuse BEFORE INSERT ON project_actions"
        " FOR EACH ROW WHEN (new.project_id = 'record') EXECUTE FUNCTION refuse()"
    )
    start()
    ids = {project: backend.add(job_of(project), attempts=5, backoff=10) for project in apps}
    until(lambda: backend.job(ids["record"])["attemptsMade"])
    platform.execute("DROP TRIGGER refuse ON project_actions")
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}

    assert {
        "set": ("completed", 2, "flyctl_failed"),
        "lost": ("completed", 2, "outcome_unknown"),
        "always": ("failed", 2, "deploy_failed"),
        "record": ("completed", 2, "not_recorded"),
    } == {
        project: (job["state"], job["attemptsMade"], job["failedReason"].split(":")[0]) for project, job in jobs.items()
    }
    assert "Error: deploy_incomplete" in jobs["always"]["stacktrace"][0]


@pytest.mark.slow
def test_a_database_that_is_away(platform: Platform, backend: Backend, start: Start) -> None:
    """The producer's attempts count, ours where it set none; a backoff of the producer's own making hangs nobody."""
    platform.store("p", A="1")
    postgres = platform.world.postgres
    assert postgres is not None
    postgres.stop()
    try:
        start(instead={"[10, 5_000,": "[10, 1_000,"})
        ours = backend.add(job_of("p"))
        theirs = [backend.add(job_of("p"), attempts=1), backend.add(job_of("p"), attempts=2, backoff=10)]
        odd = backend.add(job_of("p"), attempts=9, backoff={"type": "of another's making"})
        delayed = [backend.ended(job_id, "delayed") for job_id in (ours, odd)]
        failed = [backend.ended(job_id) for job_id in theirs]
    finally:
        postgres.start()

    assert [("failed", 1), ("failed", 2)] == [(job["state"], job["attemptsMade"]) for job in failed]
    assert [(True, "database_unavailable")] * 2 == [
        (0.5 <= job["delay"] / 1000 / 2 ** (job["attemptsMade"] - 1) <= 1, job["failedReason"].split(":")[0])
        for job in delayed
    ]
    assert ["completed", "completed"] == [backend.ended(job_id)["state"] for job_id in (ours, odd)]


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
    job = backend.ended(backend.add(job_of("p"), attempts=5, backoff=1), "delayed")

    assert ("rate_limited", True) == (job["failedReason"].split(":")[0], 1000 < job["delay"] <= 1160)


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
    """Nothing is gained by trying again."""
    deploy(platform, "p", A="1")
    start(FLYSYNC_SNAPSHOT="nowhere")
    first = backend.ended(backend.add(job_of("p"), attempts=5))
    platform.execute("DROP TABLE flysync_runs")
    second = backend.ended(backend.add(job_of("p"), attempts=5))

    assert [("failed", "sandbox_not_found", 1), ("failed", "config", 1)] == [
        (job["state"], job["failedReason"].split(":")[0], job["attemptsMade"]) for job in (first, second)
    ]


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
    at_work = in_redis(valkey)
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
    assert [False, False] == [MARK.encode() in found for found in (at_work, in_redis(valkey))]


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
def test_a_flysync_that_does_not_answer(platform: Platform, backend: Backend, start: Start, odd: str) -> None:
    """Tried again, whatever it was; also one that outlives its time, and one that is not there."""
    start(path=odd, instead={"[LIMIT_S, CLEANING_S] = [600, 30]": "[LIMIT_S, CLEANING_S] = [0, 1.5]"})
    expected = {"garbage": "1", "silent": "0", "lying": "1", "killed": "SIGKILL", "stuck": "time limit"}
    ids = {project: backend.add(job_of(project), attempts=2, backoff=10) for project in expected}
    jobs = {project: backend.ended(job_id) for project, job_id in ids.items()}
    (platform.home / "bin" / "flysync").unlink()
    jobs["absent"] = backend.ended(backend.add(job_of("absent"), attempts=2, backoff=10))

    assert {
        project: ("failed", 2, f"flysync gave no answer that can be read ({what})")
        for project, what in (expected | {"absent": "ENOENT"}).items()
    } == {project: (job["state"], job["attemptsMade"], job["failedReason"]) for project, job in jobs.items()}


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

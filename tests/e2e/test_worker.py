from __future__ import annotations

import asyncio
import itertools
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from monitoring import ALERTS, TARGETS, needed, series
from parts import cases
from queue_of_tests import REMOVAL, Backend, logged, until

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from platform_of_tests import Platform, Running

    from flysync.sim.fly_state import App
    from flysync.sim.valkey import EmbeddedValkey

_NUMBERS = itertools.count(1)
SET = "POST /v1/apps/[^/]+/secrets"


@pytest.fixture
async def backend(platform: Platform, valkey: EmbeddedValkey) -> AsyncIterator[Backend]:
    """A backend with a queue of its own."""
    backend = Backend(platform, valkey, f"queue-{next(_NUMBERS)}")
    yield backend
    for running in platform.started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(running.done)
    platform.world.fly.faults.clear()
    platform.world.daytona.faults.clear()
    await backend.close()


@pytest.fixture
def app(platform: Platform) -> App:
    """An app with one machine, the project on it, and three credentials that were never sent."""
    app = platform.world.fly.add_app(f"worked-{next(_NUMBERS)}", machines=["m0"])
    platform.deploy("p", app.name)
    platform.store("p", **{name: f"value-{name}" for name in "ABC"})
    return app


async def test_jobs_that_arrive_together_are_one_restart(backend: Backend, app: App) -> None:
    """One sandbox, set and deploy; each job has its own outcome; no value stays in Redis or gets into the log."""
    jobs = [await backend.add(name) for name in "ABC"]
    sandboxes = len(backend.platform.world.daytona.requests("POST /api/sandbox"))
    hold = Fault(match="POST /api/sandbox$", kind=FaultKind.HOLD)  # on a slow machine they come one by one
    backend.platform.world.daytona.faults.append(hold)
    worker = backend.worker()
    await until(lambda: hold.times == 0 and "value-" not in backend.everything())  # all are in hand
    backend.platform.loop.call_soon_threadsafe(hold.let_go.set)
    states = await backend.ended(*jobs)
    results = [(await backend.look(job)).returnvalue for job in jobs]
    worker.process.send_signal(signal.SIGTERM)
    done = await asyncio.to_thread(worker.done)

    assert (["completed"] * 3, 0) == (states, done.code)
    assert [("synced", app.name)] * 3 == [(result["outcome"], result["app"]) for result in results]
    assert ({name: f"value-{name}" for name in "ABC"}, 1) == (app.deployed_env("m0"), app.restarts["m0"])
    assert 1 == len({result["covered_by"] or result["run_id"] for result in results})
    assert 1 == len(backend.platform.world.daytona.requests("POST /api/sandbox")) - sandboxes
    assert "value-" not in backend.everything() + done.stdout + done.stderr
    assert len([line for line in logged(done.stderr) if line.get("job_id") and line.get("run_id")]) == 3


@pytest.mark.slow
async def test_a_job_that_comes_later_goes_with_the_run_under_way(backend: Backend, app: App) -> None:
    """Until its deploy: one restart, and everything is there."""
    hold = Fault(match=SET, kind=FaultKind.HOLD)
    backend.platform.world.fly.faults.append(hold)
    backend.worker()
    first = await backend.add("A")
    await until(lambda: hold.times == 0)
    others = [await backend.add(name) for name in "BC"]
    await until(lambda: "value-" not in backend.everything())
    backend.platform.loop.call_soon_threadsafe(hold.let_go.set)

    assert ["completed"] * 3 == await backend.ended(first, *others)
    assert ({name: f"value-{name}" for name in "ABC"}, 1) == (app.deployed_env("m0"), app.restarts["m0"])


@pytest.mark.slow
async def test_removals_that_arrive_together_are_one_restart(backend: Backend, app: App) -> None:
    """After the sync that is at work; each has its own outcome. No value is needed, and none stays in Redis."""
    platform = backend.platform
    assert 0 == platform.flysync("sync-project", "--project", "p").code
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name IN ('A', 'B')")
    platform.store("p", D="sealed")
    hold = Fault(match=SET, kind=FaultKind.HOLD)
    platform.world.fly.faults.append(hold)
    worker = backend.worker(FLYSYNC_VALUE_SOURCE="caller")
    sync = await backend.add("D")
    await until(lambda: hold.times == 0)
    removals = [await backend.add(name, job=REMOVAL, timestamp=_ago_ms(61)) for name in ("A", "B", "C", "NEVER")]

    async def are_in_hand() -> bool:
        return {"active"} == {str(await job.getState()) for job in removals}

    await until(are_in_hand)
    await asyncio.sleep(0.2)
    platform.loop.call_soon_threadsafe(hold.let_go.set)
    states = await backend.ended(sync, *removals)
    told = [await backend.look(job) for job in removals]
    worker.process.send_signal(signal.SIGTERM)
    done = await asyncio.to_thread(worker.done)

    assert (["completed"] * 4 + ["failed"], 0) == (states, done.code)
    assert ["synced", "synced", "unchanged"] == [job.returnvalue["outcome"] for job in told[:3]]
    assert [[], [], ["superseded"]] == [job.returnvalue["warnings"] for job in told[:3]]
    assert told[3].failedReason.startswith("usage: flysync never wrote these to ")
    assert ({"C": "value-C", "D": "value-D"}, 3) == (app.deployed_env("m0"), app.restarts["m0"])
    assert [({"A": "synced", "B": "synced"},)] == platform.execute(
        "SELECT details -> 'outcomes' FROM project_actions WHERE action = 'unset-flyio-secrets'"
    )
    assert "removal of A of p: synced" in done.stderr
    assert "value-" not in backend.everything() + done.stdout + done.stderr


@pytest.mark.slow
async def test_removals_of_what_is_about_to_go_and_of_a_project_that_is_gone(backend: Backend, app: App) -> None:
    """The first is tried again until its deletion is committed; of the other no row is left, and its app is known."""
    platform = backend.platform
    assert 0 == platform.flysync("sync-project", "--project", "p").code
    backend.worker()
    early = await backend.add("A", job=REMOVAL, attempts=1000, backoff=50)

    async def is_tried_again() -> bool:
        return bool((await backend.look(early)).attemptsMade)

    await until(is_tried_again)
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'A'")
    states = await backend.ended(early)
    platform.execute("TRUNCATE cloud_credentials, project_deployments")
    states += await backend.ended(*[await backend.add(name, job=REMOVAL) for name in "BC"])

    assert ["completed"] * 3 == states
    assert (await backend.look(early)).failedReason.startswith("superseded: A is still in cloud_credentials")
    assert {} == app.deployed_env("m0")


@cases(
    ("project", "credential", "age_s", "state", "told"),
    [
        ("p", "NOPE", 0, "delayed", "credential_not_found"),
        ("nobody", "A", 0, "failed", "project_not_found"),
        ("new", "A", 0, "completed", "skipped"),
        ("p", "NOPE", 61, "failed", "credential_not_found"),
        ("gone", "A", 0, "completed", "skipped"),
        ("twice", "A", 0, "failed", "ambiguous_deployment"),
        ("empty", "A", 0, "failed", "invalid_credential"),
        ("p", "not a name", 0, "failed", "invalid_credential"),
        ("p", "A=b", 0, "failed", "(3 characters) is not valid: character 2 is an equals sign"),
        ("p", 7, 0, "failed", "credentialName is a number"),
        ("p\ud800", "A", 0, "failed", "projectId contains a character"),
        ("p" * 257, "A", 0, "failed", "projectId has 257 characters"),
        ("", "A", 0, "failed", "usage: the job's projectId is missing"),
        ("bare", "A", 0, "completed", "staged"),
    ],
    quick=3,
)
async def test_what_becomes_of_a_job(
    backend: Backend, app: App, project: str, credential: object, age_s: float, state: str, told: str
) -> None:
    """Each row of the queue's column: done, failed at once, or tried again; with code and message, and no trace."""
    platform = backend.platform
    for one in ("new", "gone", "twice", "bare"):
        platform.store(one, A="1")
    platform.store("empty", A="")
    platform.deploy("gone", f"gone-{app.name}")
    platform.deploy("empty", app.name)
    platform.deploy("bare", platform.world.fly.add_app(f"bare-{app.name}", machines=0).name)
    platform.execute("INSERT INTO project_deployments SELECT 'twice', v, now() FROM unnest(ARRAY['a', 'b']) v")
    backend.worker()
    job = await backend.add(credential, project=project, timestamp=_ago_ms(age_s))

    async def is_so() -> bool:
        return str(await job.getState()) == state

    await until(is_so)
    seen = await backend.look(job)
    assert told in str(seen.failedReason or seen.returnvalue)
    assert ([], 1) == (seen.stacktrace, seen.attemptsMade)


def _ago_ms(seconds: float) -> int:
    return round((time.time() - seconds) * 1000)


async def test_a_refused_token_holds_jobs(backend: Backend, app: App) -> None:
    """The next one would fail as well; no attempt is lost, and the probe says why."""
    worker = backend.worker("--health-port", "0", FLY_API_TOKEN="refused")
    job = await backend.add("A", attempts=1)
    await until_it_says(worker, 503, "jobs are held: ", "(access_denied)")

    assert ("active", {}) == (str(await job.getState()), app.secrets)


@cases("service", ["postgres", "daytona", "fly"], quick=1)
@pytest.mark.slow
async def test_an_outage_costs_no_attempt(backend: Backend, app: App, service: str) -> None:
    """Jobs wait until the service is back, though their producer has allowed one attempt only."""
    platform = backend.platform
    platform.deploy("q", platform.world.fly.add_app(f"other-{app.name}", machines=1).name)
    platform.store("q", A="value-A")
    match = "POST /graphql" if service == "fly" else "POST /api/sandbox$"
    faults = [Fault(match=match, status=503, times=99)]
    gate = backend.gate()
    if service == "postgres":
        gate.shut()
    else:
        getattr(platform.world, service).faults = faults
    worker = backend.worker("--health-port", "0", DATABASE_URL=gate.dsn)
    jobs = [await backend.add("A", project=project, attempts=1) for project in ("p", "q")]
    sent = {"fly": 24, "daytona": 6, "postgres": 0}[service]  # three tries of each job, flyctl's four times
    await until(lambda: faults[0].times <= 99 - sent)
    code = {"postgres": "database"}.get(service, service) + "_unavailable"
    await until_it_says(worker, 503, "jobs are held: ", f"({code})")
    before, (_, figures) = [str(await job.getState()) for job in jobs], await says(worker, "/metrics")
    faults[0].times = 0
    gate.open()

    assert ["active"] * 2 == before
    assert f'flysync_service_out_of_reach{{service="{service}"}} 1.0' in figures
    assert (service != "postgres") == ("\nflysync_projects_behind " in figures)
    assert ["completed"] * 2 == await backend.ended(*jobs)
    assert [1, 1] == [(await backend.look(job)).attemptsMade for job in jobs]
    assert {"A": "value-A"} == app.secrets
    worker.process.send_signal(signal.SIGTERM)
    said = [line["message"] for line in logged((await asyncio.to_thread(worker.done)).stderr)]
    assert [line for line in said if line.startswith("p waits: ") and line.endswith(f"({code})")]


@pytest.mark.slow
async def test_what_fails_is_tried_again_with_pauses(backend: Backend, app: App) -> None:
    """A roll-out that failed: the producer has set no attempts, and it is well in the end."""
    backend.platform.world.fly.faults.append(Fault(match="POST .*/machines/m0$", status=400, times=1))
    backend.worker()
    job = await backend.add("A")

    assert ["completed"] == await backend.ended(job)
    runs = "SELECT error_code, outcome FROM flysync_runs ORDER BY started_at"
    assert [("deploy_incomplete", "staged"), (None, "synced")] == backend.platform.execute(runs)
    assert {"A": "value-A"} == app.deployed_env("m0")


async def test_sigterm_lets_end_what_runs(backend: Backend, app: App) -> None:
    """Within the grace; nothing new is taken, and the exit code is 0."""
    hold = Fault(match=SET, kind=FaultKind.HOLD)
    backend.platform.world.fly.faults.append(hold)
    worker = backend.worker("--health-port", "0")
    job = await backend.add("A")
    await until(lambda: hold.times == 0)
    worker.process.send_signal(signal.SIGTERM)
    await until_it_says(worker, 503, "the worker is shutting down")
    late = await backend.add("B")
    backend.platform.loop.call_soon_threadsafe(hold.let_go.set)

    assert 0 == (await asyncio.to_thread(worker.done)).code
    assert ("completed", "waiting") == (str(await job.getState()), str(await late.getState()))
    assert {"A": "value-A"} == app.deployed_env("m0")


@pytest.mark.slow
async def test_sigterm_gives_back_what_does_not_end(backend: Backend, app: App) -> None:
    """After the grace it is cut short, cleaned up, and done by the next worker; no attempt is lost."""
    hang = Fault(match=SET, kind=FaultKind.HANG)
    backend.platform.world.fly.faults.append(hang)
    worker = backend.worker("--grace", "0s")
    job = await backend.add("A")
    await until(lambda: hang.times == 0)
    worker.process.send_signal(signal.SIGTERM)
    done = await asyncio.to_thread(worker.done)
    between = (
        str(await job.getState()),
        (await backend.look(job)).attemptsMade,
        backend.platform.world.daytona.sandboxes,
    )
    backend.worker()

    assert (0, ("delayed", 0, {})) == (done.code, between)
    assert ["completed"] == await backend.ended(job)
    assert {"A": "value-A"} == app.deployed_env("m0")


@pytest.mark.slow
async def test_a_second_signal_leaves_at_once_and_loses_nothing(backend: Backend, app: App) -> None:
    """The job is found stalled, and the run fenced, by the next worker."""
    hang = Fault(match=SET, kind=FaultKind.HANG)
    backend.platform.world.fly.faults.append(hang)
    worker = backend.worker("--health-port", "0")
    job = await backend.add("A")
    await until(lambda: hang.times == 0)
    worker.process.send_signal(signal.SIGTERM)
    await until_it_says(worker, 503, "the worker is shutting down")
    worker.process.send_signal(signal.SIGTERM)
    done = await asyncio.to_thread(worker.done)
    backend.worker()

    assert 143 == done.code
    assert ["completed"] == await backend.ended(job)
    assert ({"A": "value-A"}, {}) == (app.deployed_env("m0"), backend.platform.world.daytona.sandboxes)


async def test_a_worker_that_is_killed_is_replaced_by_another(backend: Backend, app: App) -> None:
    """The other one does the job, after the fence: the dead run's sandbox is gone before anything is written."""
    hang = Fault(match=SET, kind=FaultKind.HANG)
    backend.platform.world.fly.faults.append(hang)
    first = backend.worker()
    job = await backend.add("A")
    await until(lambda: hang.times == 0)
    second = backend.worker()
    first.process.send_signal(signal.SIGKILL)

    assert ["completed"] == await backend.ended(job)
    assert ({"A": "value-A"}, {}) == (app.deployed_env("m0"), backend.platform.world.daytona.sandboxes)
    query = "SELECT finished_at IS NOT NULL, outcome FROM flysync_runs ORDER BY started_at"
    assert [(True, "unknown"), (True, "synced")] == backend.platform.execute(query)
    assert second.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
async def test_workers_that_are_stopped_in_a_roll_out_lose_no_job(
    backend: Backend, app: App, how: signal.Signals
) -> None:
    """Two of them, each between two machines: the job is neither failed nor its value given up."""
    app.add_machine("m1")
    job = await backend.add("A")
    for _ in range(2):
        amid = Fault(match="POST /v1/apps/.*/machines/[^/]+$", kind=FaultKind.HANG, skip=1)
        backend.platform.world.fly.faults.append(amid)
        worker = backend.worker("--grace", "1s")
        await until(lambda: amid.times == 0)  # noqa: B023 - it is asked at once
        worker.process.send_signal(how)
        await asyncio.to_thread(worker.done)
    backend.worker()

    assert ["completed"] == await backend.ended(job)
    assert [{"A": "value-A"}] * 2 == list(app.running().values())
    assert {} == backend.platform.world.daytona.sandboxes


@pytest.mark.slow
async def test_redis_may_go_and_come_back(backend: Backend, app: App, valkey: EmbeddedValkey) -> None:
    """What runs ends, its job is completed, and the next one is taken; the worker says so."""
    hold = Fault(match=SET, kind=FaultKind.HOLD)
    backend.platform.world.fly.faults.append(hold)
    worker = backend.worker()
    job = await backend.add("A")
    await until(lambda: hold.times == 0)
    await asyncio.to_thread(valkey.stop)
    await asyncio.sleep(11)  # it looks every 5 seconds
    await asyncio.to_thread(valkey.start)
    backend.platform.loop.call_soon_threadsafe(hold.let_go.set)
    later = await backend.add("B")

    assert ["completed"] * 2 == await backend.ended(job, later)
    assert {"A": "value-A", "B": "value-B"} == app.deployed_env("m0")
    worker.process.send_signal(signal.SIGTERM)
    said = [line["message"] for line in logged((await asyncio.to_thread(worker.done)).stderr)]
    assert "no job can be taken: Redis refuses the connection: nothing listens there" in "".join(said)
    assert "jobs can be taken again" in said


@pytest.mark.slow
@pytest.mark.usefixtures("app")
async def test_jobs_of_another_name_are_put_back(backend: Backend) -> None:
    """They are neither failed nor changed, and the log says what to do."""
    worker = backend.worker()
    stranger = await backend.add("A", job="send-mail")
    ours = await backend.add("A")
    await backend.ended(ours)

    async def is_back() -> bool:
        return str(await stranger.getState()) == "delayed"

    await until(is_back)
    seen = await backend.look(stranger)
    assert (0, "value-A", None) == (seen.attemptsMade, seen.data["credentialValue"], seen.failedReason)
    worker.process.send_signal(signal.SIGTERM)
    assert "give flysync a queue of its own" in (await asyncio.to_thread(worker.done)).stderr


@pytest.mark.slow
async def test_ten_jobs_of_a_project_are_one_restart(backend: Backend, app: App) -> None:
    """A tenth of a second apart, of three projects, to two workers; one that cannot be done fails alone."""
    platform, names = backend.platform, [f"KEY_{number}" for number in range(9)]
    hold = Fault(match="POST /api/sandbox$", kind=FaultKind.HOLD, times=3)
    platform.world.daytona.faults.append(hold)
    apps = {"p": app} | {name: platform.world.fly.add_app(f"{name}-{app.name}", machines=["m0"]) for name in "qr"}
    for project, its in apps.items():
        platform.deploy(project, its.name)
        platform.store(project, **dict.fromkeys(names, "1"))
    for _ in range(2):
        backend.worker()
    jobs = []
    for name in [*names, "NOPE"]:
        jobs += [await backend.add(name, project=project, timestamp=_ago_ms(100)) for project in apps]
        await asyncio.sleep(0.1)
    await until(lambda: hold.times == 0 and "value-" not in backend.everything())
    await asyncio.sleep(5)  # whoever waits for the other worker's run looks every 1.5 s, at most
    platform.loop.call_soon_threadsafe(hold.let_go.set)
    states = await backend.ended(*jobs)

    assert (["completed"] * 27, ["failed"] * 3) == (states[:27], states[27:])
    assert [1] * 3 == [its.restarts["m0"] for its in apps.values()]
    assert [dict.fromkeys(names, "1")] * 3 == [its.deployed_env("m0") for its in apps.values()]


@pytest.mark.slow
async def test_values_of_callers_come_from_the_jobs(backend: Backend, app: App) -> None:
    """They are taken out of Redis all the same, kept for the retry, and several are one restart."""
    backend.platform.world.fly.faults.append(Fault(match=SET, status=400, times=3))
    jobs = [await backend.add(name) for name in "AB"]
    backend.platform.execute("UPDATE cloud_credentials SET credential_value = 'sealed'")
    backend.worker(FLYSYNC_VALUE_SOURCE="caller")

    async def is_scrubbed() -> bool:
        return "value-" not in backend.everything()

    await until(is_scrubbed)
    assert ["completed"] * 2 == await backend.ended(*jobs)
    assert 2 == max([(await backend.look(job)).attemptsMade for job in jobs])
    assert {"A": "value-A", "B": "value-B"} == app.deployed_env("m0")
    assert app.restarts["m0"] <= 2


async def test_health_is_shown(backend: Backend, app: App) -> None:
    """Ready while Redis answers; each series and label that the dashboard and the alerts ask for is there."""
    backend.platform.deploy("empty", app.name)
    backend.platform.store("empty", A="")
    worker = backend.worker("--health-port", "0")
    await backend.ended(await backend.add("A"), await backend.add("A", project="empty"))

    assert [(200, "ok\n"), (200, "ready\n")] == [await says(worker, path) for path in ("/healthz", "/readyz")]
    _, figures = await says(worker, "/metrics")
    for line in (
        'flysync_jobs_total{outcome="synced"} 1.0',
        'flysync_runs_total{code="",outcome="synced"} 1.0',
        'flysync_step_seconds_count{step="deploy"} 1.0',
        "flysync_commit_to_deployed_seconds_count 1.0",
        "flysync_sandboxes_open 0.0",
        "flysync_restarts_total 1.0",
        "flysync_oldest_waiting_job_seconds 0.0",
        "flysync_projects_given_up 1.0",
        'flysync_projects_failed{code="invalid_credential"} 1.0',
    ):
        assert line in figures, [one for one in figures.splitlines() if one.startswith(line.split("{")[0].split()[0])]
    backend.valkey.stop()
    try:
        await until_it_says(worker, 503, "jobs are held: Redis refuses the connection", "(redis_unavailable)")
        figures += (await says(worker, "/metrics"))[1]
    finally:
        backend.valkey.start()
    watcher = backend.platform.start("watch", "--health-port", "0")
    await until_it_says(watcher, 200, "ready")
    figures += (await says(watcher, "/metrics"))[1]
    told, asked = series(figures), [needed(one["expr"]) for one in (*TARGETS, *ALERTS)]
    assert set() == {name for its in asked for name in its.metrics - told.keys()} - {"up"}
    assert [] == [(name, its.labels) for its in asked for name in its.metrics - {"up"} if its.labels - told[name]]


async def says(worker: Running, path: str) -> tuple[int, str]:
    """Give what a worker says of itself."""

    def get() -> tuple[int, str]:
        try:
            url = f"http://127.0.0.1:{_listening_port(worker.process.pid)}{path}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except OSError:
            return 0, "nobody listens yet"

    return await asyncio.to_thread(get)


async def until_it_says(worker: Running, status: int, *words: str) -> None:
    """Wait until a worker's readiness is told so."""

    async def is_so() -> bool:
        told, text = await says(worker, "/readyz")
        return told == status and all(word in text for word in words)

    await until(is_so)


def _listening_port(pid: int) -> int:
    """Give the port on which a process listens."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link[8:-1] for link in links if link.startswith("socket:")}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and rest[5] in sockets:
            return int(local.partition(":")[2], 16)
    raise OSError("it listens nowhere")

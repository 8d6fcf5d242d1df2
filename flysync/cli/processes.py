"""Commands that go on until a signal ends them."""

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli import run
from flysync.cli.app import app
from flysync.cli.options import name_of, number_option, takes, wait_option, with_sandbox
from flysync.cli.output import Output
from flysync.cli.sync import PruneAfter, pruning_of
from flysync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.ports import Services
    from flysync.settings import Settings

_QUEUE = "a queue: BullMQ's are not empty and have no colon"
Queue = Annotated[
    str | None,
    typer.Option(
        "--queue",
        metavar="NAME",
        parser=name_of(_QUEUE, lambda text: text != "" and ":" not in text),
        show_default="FLYSYNC_QUEUE, else flyio-secrets",
        help="The queue that the backend adds its jobs to.",
    ),
]

WatchPrune = Annotated[bool, typer.Option("--prune", help="Remove secrets whose rows are gone.")]
Concurrency = Annotated[int, number_option("--concurrency", most=100, help="Runs at a time.")]
Every = Annotated[float, wait_option("--every", show_default="5s", help="Time between two checks.")]
CatchUp = Annotated[
    bool, typer.Option("--catch-up", help="Start even if many projects have never been synced: set all of them.")
]
Grace = Annotated[float, wait_option("--grace", show_default="30s", help="Time for runs to end after SIGTERM.")]
HealthPort = Annotated[
    int | None,
    number_option(
        "--health-port", least=0, most=65535, metavar="PORT", help="Port for /healthz, /readyz and /metrics."
    ),
]
HealthHost = Annotated[str, typer.Option("--health-host", metavar="HOST", help="The address to serve them on.")]


@app.command()
@takes(with_sandbox)
def worker(
    output: Output,
    queue: Queue = None,
    concurrency: Concurrency = 5,
    grace: Grace = 30.0,
    health_port: HealthPort = None,
    health_host: HealthHost = "127.0.0.1",
) -> None:
    """
    Process jobs from the backend's queue, until SIGTERM.

    Takes the jobs named sync-flyio-secrets and unset-flyio-secrets from a queue of BullMQ, and does what `flysync sync`
    and `flysync unset --if-gone` do. It logs to standard error, one line of JSON per event. On the first SIGTERM the
    current runs may go on as long as --grace says, all other jobs are given back, and the exit status is 0.

    Examples:
        flysync worker --concurrency 10 --health-port 9090
        flysync worker --queue my-queue --grace 60s
    """
    from flysync import bootstrap
    from flysync.model.reports import Report
    from flysync.worker.options import WorkerOptions

    options = WorkerOptions(concurrency=concurrency, grace_s=grace, health_port=health_port, health_host=health_host)
    settings = _begin(output, bootstrap.WORKER, "bullmq", "prometheus_client")
    options = replace(options, sync=settings.complete(options.sync))

    async def work(services: "Services") -> Report:
        from flysync.worker.process import Work

        await Work(bootstrap.open_queue(settings, queue or settings.queue), services, options).run()
        return Report()

    run.run_handler(output, settings, work)


@app.command()
@takes(with_sandbox)
def watch(
    output: Output,
    every: Every = 5.0,
    concurrency: Concurrency = 5,
    prune: WatchPrune = False,
    prune_after_s: PruneAfter = None,
    catch_up: CatchUp = False,
    grace: Grace = 30.0,
    health_port: HealthPort = None,
    health_host: HealthHost = "127.0.0.1",
) -> None:
    """
    Keep every project up to date, until SIGTERM.

    Looks in Postgres for projects whose credentials or app have changed, and does what `flysync sync-project` does for
    them: no queue and no job is needed, and beside a queue it repairs what the queue lost. What has just changed is
    left for one more look, so that rows saved one after the other are one restart. A project that fails is tried again
    after growing pauses, or when it changes. With --prune, secrets are removed whose rows were gone for --prune-after;
    never more than half of an app's, or more than 20. Logs and signals are those of `flysync worker`.

    Examples:
        flysync watch
        flysync watch --prune --prune-after 168h
        flysync watch --every 30s --concurrency 10 --health-port 9090
    """
    from flysync import bootstrap
    from flysync.model.reports import Report
    from flysync.worker.options import WatchOptions

    options = WatchOptions(
        concurrency=concurrency,
        grace_s=grace,
        health_port=health_port,
        health_host=health_host,
        every_s=every,
        pruning=pruning_of(prune=prune, after_s=prune_after_s),
        catch_up=catch_up,
    )
    settings = _begin(output, bootstrap.SYNC, "prometheus_client")
    options = replace(options, sync=settings.complete(options.sync))

    async def work(services: "Services") -> Report:
        from flysync.worker.watcher import Watcher

        await Watcher(services, options).run()
        return Report()

    run.run_handler(output, settings, work)


def _begin(output: Output, needs: "Sequence[str]", *packages: str) -> "Settings":
    """Load the settings of a process that logs its events as lines of JSON."""
    from flysync import bootstrap, logs
    from flysync.extras import how_to_add

    if not all(map(find_spec, packages)):
        raise ConfigError(f"{output.command} needs more packages", hint=how_to_add("worker"))
    settings = run.load_settings(output, needs)
    logs.set_up(verbosity=output.verbosity + 1, secrets=settings.secrets, as_json=True)
    bootstrap.load_client(settings)  # it takes half a second, in which nothing else would go on
    return settings

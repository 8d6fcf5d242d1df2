"""The command line as the tests start it: `python -m flysync`, with limits that a test can wait for."""

from __future__ import annotations

from functools import partial


def main(*, limits: dict[str, float], controls: tuple[str, str] | None) -> None:
    """Run the command line; the services are opened with *limits* (`bootstrap.Limits`) and *controls*."""
    from flysync.cli.signals import SIGNALS

    SIGNALS.catch()
    from flysync import bootstrap
    from flysync.__main__ import main as run

    shorter = bootstrap.Limits(**limits)
    vars(bootstrap).update(
        open_services=partial(bootstrap.open_services, limits=shorter, controls=controls),
        open_queue=partial(bootstrap.open_queue, limits=shorter),
    )
    run()

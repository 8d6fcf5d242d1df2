"""What must be true of a sync and of the world after it, whatever has gone wrong (design 1, 4 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from world import MOST_ROLLOUTS

from flysync.model.core import Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from schedules import Process
    from world import World

    from flysync.model.core import AppName
    from flysync.model.reports import CredentialReport, SyncReport

_FINE = {Outcome.SYNCED, Outcome.UNCHANGED, Outcome.SKIPPED, Outcome.STAGED}
_ON_MACHINES = {Outcome.SYNCED, Outcome.UNCHANGED}


def told_wrong(process: Process, report: SyncReport | None, drifted: Container[str] = ()) -> Iterator[str]:
    """
    LockHandle what one sync claims against what was there while it ran; a killed one claims nothing.

    What somebody else has *drifted* may be told as unchanged: only `--verify` asks.
    """
    if report is None:
        return
    fine = all(one.outcome in _FINE and one.code is None for one in report.credentials)
    if fine != report.ok and not (fine and report.error and report.error.code in _OF_THE_RUN):
        yield f"exit {report.exit_code} ({report.error!r}) of {_lines(report)}"
    if report.error is not None and report.error.exit_code == 0:
        yield f"{report.error!r} as an error"
    for one in report.credentials:
        is_blind = one.reason is Reason.UNCHANGED and one.name in drifted
        if not is_blind and not _is_true(process, report, one):
            yield f"{one.name} is told as {one.outcome} ({one.code}), and is not"
    yield from _recorded_wrong(process.world, report)
    if own := [name for name in process.world.sandboxes.live if name == f"flysync-{report.run_id}"]:
        noted = {name for note in report.warnings if note.code == "sandbox_left" for name in note.names}
        if not noted.issuperset(own):
            yield f"{own} was left, and nobody told"


#: Failures of a run as a whole that may stand beside credentials that are all fine.
_OF_THE_RUN = {"interrupted", "timeout", "not_recorded", "database_unavailable", "config"}


def _is_true(process: Process, report: SyncReport, one: CredentialReport) -> bool:
    """Tell whether the claim was true at some moment of the sync, of a value that was stored at one."""
    world = process.world
    moments = world.history[process.first_moment : process.last_moment]
    values = {moment.rows.get(one.name) for moment in moments}
    app = report.app or ""
    if one.outcome in _ON_MACHINES:
        return bool(values & {moment.running.get(app, {}).get(one.name) for moment in moments} - {None})
    if one.outcome is Outcome.STAGED:
        return bool(values & {moment.stored.get(app, {}).get(one.name) for moment in moments} - {None})
    if one.outcome is Outcome.SKIPPED:
        return any(app not in moment.stored for moment in moments)
    if one.outcome is Outcome.FAILED:
        return (one.name, world.rows.get(one.name)) not in world.landed.get(report.run_id, ())
    return True


def _recorded_wrong(world: World, report: SyncReport) -> Iterator[str]:
    """Hold the actions against the report: one row of a run that has brought something, with what it has brought."""
    rows = _outcomes(world, run=report.run_id)
    brought = {
        one.name: str(one.outcome)
        for one in report.credentials
        if one.outcome in {Outcome.SYNCED, Outcome.STAGED}
        and one.code is None
        and any(name == one.name for name, _ in world.landed.get(report.run_id, ()))
    }
    if len(rows) > 1:
        yield f"{len(rows)} actions of {report.run_id}"
    told = {name: outcome for row in rows for name, outcome in row.items() if name not in _looked_up(report)}
    if report.recorded and report.covered_by is None and brought != told:
        yield f"actions {rows} of a run that has brought {brought}"
    if report.recorded is False and report.ok:
        yield "not recorded, and no failure"
    run = world.records.run_rows.get(report.run_id)
    is_lost = report.error is not None and report.error.code == "not_recorded" and "in time" not in report.error.message
    if is_lost and run and run.end and run.end.error_code != "not_recorded":
        yield "recorded, and told as not"


def _looked_up(report: SyncReport) -> set[str]:
    return {one.name for one in report.credentials if one.reason is Reason.CONFIRMED}


def left_wrong(world: World, report: SyncReport | None, names: frozenset[str], *, may_give_up: bool) -> Iterator[str]:
    """Hold the world after a sync that nothing has disturbed against what is stored: all of it must have arrived."""
    yield from world.wrongs
    if report is None:
        yield "nothing was reported"
        return
    for one in report.credentials:
        if one.name in names and (why := _missing(world, report.app or "", one, may_give_up=may_give_up)):
            yield f"{one.name} {why}: {_lines(report)}, {report.error!r}"
    if silent := names - {str(one.name) for one in report.credentials}:
        yield f"nothing is said of {silent}"
    if left := list(world.records.open_runs(lambda run: run.intent.app == report.app)):
        yield f"{left} is still open"
    for name in world.sandboxes.live.keys() - world.late_boxes:
        if name.startswith("flysync-") and not _has_ended(world, name, report.app):
            yield f"{name} lives on"


def _missing(world: World, app_name: str, one: CredentialReport, *, may_give_up: bool) -> str | None:
    """Say what is not as it should be with a credential that can be brought."""
    app, value = world.fly.apps.get(app_name), world.rows.get(one.name)
    if app is None or not app.machines:
        expected = Outcome.STAGED if app else Outcome.SKIPPED
        return None if one.outcome == expected else f"is not {expected}"
    if one.code == "deploy_failed" and may_give_up:
        tries = world.records.secrets[app_name, one.name].rollouts
        return None if tries >= MOST_ROLLOUTS else "was given up too early"
    if one.code == "deploy_incomplete" and app.crashes:
        return None if one.outcome is Outcome.STAGED else "is not staged"
    if one.outcome not in _ON_MACHINES or app.running.get(one.name) != value:
        return "has not arrived"
    is_told = any(outcomes.get(one.name) == Outcome.SYNCED for outcomes in _outcomes(world, world.acted[one.name]))
    return None if is_told else "has arrived, and no action says so"


def _outcomes(world: World, since: int = 0, *, run: str | None = None) -> list[dict[str, str]]:
    """Give what the actions since one of them, or those of one run, say of credentials."""
    rows = [row.details for row in world.records.actions[since:] if run in {None, row.details["run_id"]}]
    return [cast("dict[str, str]", details["outcomes"]) for details in rows]


def _has_ended(world: World, sandbox: str, app: AppName | None) -> bool:
    """Tell whether a sandbox is for its ttl and for `prune`: its run has ended itself, or its app was left."""
    run = world.records.run_rows.get(sandbox.removeprefix("flysync-"))
    return run is not None and (run.end is not None or run.intent.app != app)


def _lines(report: SyncReport) -> list[tuple[str, str | None, str | None, str | None]]:
    return [(one.name, one.outcome, one.reason, one.code) for one in report.credentials]

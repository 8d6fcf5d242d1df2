"""What must be true of a sync and of the world after it, whatever has gone wrong (design 1, 4 and 6)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from rollouts import MOST_BAD_TRIES
from world import landed

from flysync.model.core import Outcome, Reason
from flysync.model.fly import Condition, RolloutEnd

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
    Hold what one sync claims against what was there while it ran; a killed one claims nothing.

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
        if one.outcome in _ON_MACHINES and (why := _not_running(process, report, one)):
            yield f"{one.name} is told as {one.outcome}, and {why}"
    yield from _recorded_wrong(process, report)
    written = {name for name, _ in process.world.landed.get(report.run_id, ())}
    yield from (f"{name} was set, and may not be" for name in written if process.allowed.refusal(report.app, name))
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
    values = {moment.rows[report.project].get(one.name) for moment in moments}
    app = report.app or ""
    if one.outcome in _ON_MACHINES:
        running = {moment.running.get(app, {}).get(one.name) for moment in moments}
        if one.outcome is Outcome.UNCHANGED:  # the last machine may be gone since
            running |= {moment.stored[app].get(one.name) for moment in moments if app in moment.empty}
        return bool(values & running - {None})
    if one.outcome is Outcome.STAGED:
        return bool(values & {moment.stored.get(app, {}).get(one.name) for moment in moments} - {None})
    if one.outcome is Outcome.SKIPPED:
        return any(app not in moment.stored for moment in moments)
    if one.outcome is Outcome.FAILED:
        return (one.name, world.rows_of(report.project).get(one.name)) not in world.landed.get(report.run_id, ())
    return True


def _not_running(process: Process, report: SyncReport, one: CredentialReport) -> str | None:
    """Say which machine speaks against the claim that the machines run with a secret."""
    down = process.left_down.get(report.app or "", {})
    if one.outcome is Outcome.SYNCED and down:
        return f"we have put down {sorted(down)}"
    if by_it := sorted(machine for machine, what in down.items() if one.name in {name for name, _, _ in what}):
        return f"it has put down {by_it}"
    if one.reason is Reason.UNCHANGED or process.seen is None or report.covered_by:
        return None  # by our record, or another's
    shown = {machine.id: machine.condition() for machine in process.seen.machines or () if machine.is_managed}
    is_news = one.outcome is Outcome.SYNCED or any(one.name in row for row in _outcomes(process.world, report.run_id))
    unclear = sorted(machine for machine, condition in shown.items() if condition is Condition.UNCLEAR)
    if is_news and unclear:
        return f"nobody knows of {unclear}"
    told = {name for note in report.warnings if note.code == "machines_down" for name in note.names}
    silent = sorted(one for one, it in shown.items() if it is Condition.DOWN and one not in {*told, *down})
    return f"nobody says that {silent} is down" if silent else None


def _recorded_wrong(process: Process, report: SyncReport) -> Iterator[str]:
    """Hold the actions against the report: one row of a run that has brought something, with what it has brought."""
    world, app = process.world, report.app or ""
    rows = _outcomes(world, report.run_id)
    landed = {name for name, _ in world.landed.get(report.run_id, ())}
    brought = {
        one.name: str(one.outcome)
        for one in report.credentials
        if one.outcome in {Outcome.SYNCED, Outcome.STAGED} and one.code is None and one.name in landed
    }
    if len(rows) > 1:
        yield f"{len(rows)} actions of {report.run_id}"
    all_told = {name: outcome for row in rows for name, outcome in row.items()}
    along = all_told.keys() - landed - _looked_up(report)
    for name in along:
        if all_told[name] != Outcome.SYNCED or process.left_down.get(app):
            yield f"{name} is recorded as brought along, and is not"
    told = {name: outcome for name, outcome in all_told.items() if name not in _looked_up(report) | along}
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


def left_wrong(process: Process, report: SyncReport | None, names: frozenset[str]) -> Iterator[str]:
    """Hold the world after a sync that nothing has disturbed against what is stored: all of it must have arrived."""
    world = process.world
    yield from world.wrongs
    if report is None:
        yield "nothing was reported"
        return
    for one in report.credentials:
        if one.name in names and (why := _missing(process, report, one)):
            yield f"{one.name} {why}: {_lines(report)}, {report.error!r}"
    if silent := names - {str(one.name) for one in report.credentials}:
        yield f"nothing is said of {silent}"
    if left := list(world.records.open_runs(lambda run: run.intent.app == report.app)):
        yield f"{left} is still open"
    for name in world.sandboxes.live.keys() - world.late_boxes:
        if name.startswith("flysync-") and not _has_ended(world, name, report.app):
            yield f"{name} lives on"


def forgotten(process: Process) -> Iterator[str]:
    """Hold what the project has come to against the machines: what has not arrived is tried again, or waits rightly."""
    world, project = process.world, process.project
    candidates = partial(world.records.candidates, unsettled=False, everything=False, limit=9)
    page = landed(lambda: candidates(None))
    standing = world.records.standings.get(project)
    if standing is None or standing.try_at or project in {candidate.project for candidate in page.candidates}:
        return
    app = world.fly.apps.get(process.app)
    machines = app.managed if app else ()
    ours = {sent for its in world.landed.values() for sent in its}
    for name, value in world.rows_of(project).items():
        runs = machines and all(machine.env.get(name) == value for machine in machines)
        stored = app.stored.get(name, "") if app else ""
        has_arrived = runs and (stored == value or (name, stored) not in ours)
        is_given_up = world.rollouts.bad_tries(process.app, name, str(value)) >= MOST_BAD_TRIES
        waits_rightly = is_given_up or world.may_wait or not value or name in world.fly.refused
        if not has_arrived and (standing.settled or not waits_rightly):
            yield f"{name} is forgotten: {standing}"


def _missing(process: Process, report: SyncReport, one: CredentialReport) -> str | None:
    """Say what is not as it should be with a credential that can be brought."""
    world, app_name = process.world, report.app or ""
    app, value = world.fly.apps.get(app_name), world.rows_of(report.project).get(one.name)
    if app is None or not app.managed:
        expected = Outcome.STAGED if app else Outcome.SKIPPED
        return None if one.outcome == expected else f"is not {expected}"
    if one.code == "deploy_failed":
        tries = world.rollouts.bad_tries(app_name, one.name, str(value))
        return None if tries >= MOST_BAD_TRIES else f"was given up after {tries} bad tries"
    if one.code == "deploy_incomplete":
        is_so = one.outcome is Outcome.STAGED and _is_incomplete(process, report)
        return None if is_so else "is not incomplete"
    if one.outcome not in _ON_MACHINES or world.rollouts.running(app_name).get(one.name) != value:
        return "has not arrived"
    told = [row.details["outcomes"] for row in world.records.actions[world.acted[one.name] :]]
    is_told = any(cast("dict[str, str]", outcomes).get(one.name) == Outcome.SYNCED for outcomes in told)
    return None if is_told else "has arrived, and no action says so"


def _is_incomplete(process: Process, report: SyncReport) -> bool:
    """Tell whether the app, Fly, or the time let a roll-out come to nothing."""
    rollouts = process.world.rollouts
    if rollouts.ends.get(report.run_id, RolloutEnd.SUCCEEDED) is not RolloutEnd.SUCCEEDED:
        return True
    machines = (process.seen.machines if process.seen else None) or ()
    is_unclear = any(one.is_managed and one.condition() is Condition.UNCLEAR for one in machines)
    return is_unclear or (report.run_id in rollouts.tries and rollouts.tries[report.run_id].is_bad)


def _outcomes(world: World, run: str) -> list[dict[str, str]]:
    """Give what the actions of a run say of credentials."""
    rows = [row.details for row in world.records.actions if row.details["run_id"] == run]
    return [cast("dict[str, str]", details["outcomes"]) for details in rows]


def _has_ended(world: World, sandbox: str, app: AppName | None) -> bool:
    """Tell whether a sandbox is for its ttl and for `prune`: its run has ended itself, or its app was left."""
    run = world.records.run_rows.get(sandbox.removeprefix("flysync-"))
    return run is not None and (run.end is not None or run.intent.app != app)


def _lines(report: SyncReport) -> list[tuple[str, str | None, str | None, str | None]]:
    return [(one.name, one.outcome, one.reason, one.code) for one in report.credentials]

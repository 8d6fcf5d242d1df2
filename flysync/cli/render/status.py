"""A status: a head per project and its credentials below, for 80 columns."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

from flysync.cli.render import picked
from flysync.handlers.compare import Live
from flysync.handlers.status import CredentialCondition
from flysync.model.core import State
from flysync.model.reports import utc

if TYPE_CHECKING:
    from flysync.handlers.status import StatusLine, StatusReport
    from flysync.model.core import AppName


def status_keys(report: StatusReport) -> dict[str, Any]:
    """Give `status`, an object per credential."""
    return {
        "status": [
            {
                **picked(line, "project app name in_table state condition live drift=is_drift"),
                "machines": _machines_json(report, line.app),
                **picked(line, "updated_at written_at deployed_at run_id actor origin"),
            }
            for line in report.lines
        ]
    }


def status_lines(report: StatusReport) -> list[str]:
    """Give a head per project, its credentials below, and the runs in progress."""
    text: list[str] = []
    width = max((len(line.name or "") for line in report.lines), default=0)
    for (project, app), lines in groupby(report.lines, key=lambda line: (line.project, line.app)):
        text.append(f"{project}  {app or '(not deployed)'}{_machines(report, app)}")
        for line in lines:
            text.append(f"  {_mark(line)} {line.name or '-':<{width}}  {_state(line)}")
            text += [f"    {fact}" for fact in _facts(line)]
    runs = [
        f"run {run.run_id} in progress since {utc(run.started_at)} ({run.origin}, {run.actor})"
        for run in report.open_runs
    ]
    return [*(text or ["no projects"]), *runs]


def _mark(line: StatusLine) -> str:
    if line.live is Live.UNKNOWN:
        return "?"
    if line.live in {Live.FOREIGN, Live.GONE} or (line.live is Live.NO_APP and not line.is_drift):
        return "-"
    if line.live is None:
        return "✓" if line.condition is CredentialCondition.DEPLOYED else "!"
    return "!" if line.is_drift or line.live is Live.DOWN else "✓"


def _state(line: StatusLine) -> str:
    """Say what Fly shows, and of our own record what that does not say already."""
    if line.live is None:
        return line.condition
    implied = {CredentialCondition.DEPLOYED, CredentialCondition.ORPHANED}
    if line.live is Live.FOREIGN or line.condition in implied:
        return line.live
    return f"{line.live} ({line.condition})"


def _facts(line: StatusLine) -> list[str]:
    """Say when a newer value was stored, when one was deployed and by which run, and which run tried last."""
    facts = []
    if line.condition is CredentialCondition.CHANGED and line.updated_at:
        facts.append(f"stored {utc(line.updated_at)}")
    is_deployed = line.state is State.DEPLOYED
    by = (f" by {line.actor} ({line.origin})" if line.actor else "") + (f" run {line.run_id}" if line.run_id else "")
    if line.deployed_at:
        facts.append(f"deployed {utc(line.deployed_at)}{by if is_deployed else ', before'}")
    if line.run_id and not is_deployed:
        facts.append(f"last tried{by}")
    return facts


def _machines_json(report: StatusReport, app: AppName | None) -> list[dict[str, Any]] | None:
    live = report.apps.get(app) if app else None
    if live is None or live.machines is None:
        return None
    return [picked(machine, "id state release managed=is_managed") for machine in live.machines]


def _machines(report: StatusReport, app: AppName | None) -> str:
    live = report.apps.get(app) if app else None
    if live is None:
        return ""
    if not live.exists:
        return "  Fly.io knows no such app"
    if live.machines is None:
        return "  machines not seen"
    managed = [machine for machine in live.machines if machine.is_managed]
    counts = Counter(machine.state for machine in managed)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "none"
    releases = sorted({machine.release for machine in managed if machine.release is not None})
    on = f" on release {', '.join(map(str, releases))}" if releases else ""
    others = len(live.machines) - len(managed)
    return f"  machines: {states}{on}" + (f" (and {others} that no roll-out reaches)" if others else "")

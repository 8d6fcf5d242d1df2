"""A status: a summary of all projects; a head per project, and its credentials below, for 80 columns."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

from flysync.cli.render import picked, plain
from flysync.cli.render.history import run_end, who
from flysync.handlers.compare import Live
from flysync.handlers.status import CredentialCondition, StatusLine, StatusReport
from flysync.model.core import AppName, State
from flysync.model.reports import length, utc
from flysync.model.summary import Summary, listed

#: What is told of the run that tried last.
_TRIED = "run_id origin actor started_at finished_at outcome error_code died"


def status_keys(report: StatusReport) -> dict[str, Any]:
    """Give `status`, an object per credential, `open_runs`, and the `summary`."""
    its = "run_id origin actor started_at"
    runs = [picked(run, its) | {"died": run.run_id in report.died} for run in report.open_runs]
    return {
        "status": [
            {
                **picked(line, "project app name in_table state condition live live_unknown drift=is_drift"),
                "machines": _machines_json(report, line.app),
                **picked(line, "updated_at written_at deployed_at run_id actor origin"),
                "tried": None if line.tried is None else picked(line.tried, _TRIED),
            }
            for line in report.lines
        ],
        "open_runs": runs,
        "summary": plain(report.summary),
    }


def status_lines(report: StatusReport) -> list[str]:
    """Give the summary, a head per project, its credentials below, and the runs in progress."""
    text: list[str] = []
    if report.shown is None:
        has_projects = report.summary is not None and report.summary.projects > 0
        text += _summary(report.summary) if report.summary and has_projects else []
        text += [] if report.lines else ["no project matches" if has_projects else "no projects"]
    widths: dict[str, int] = {}
    for line in report.lines:
        widths[line.project] = max(widths.get(line.project, 0), len(line.name or ""))
    for (project, app), lines in groupby(report.lines, key=lambda line: (line.project, line.app)):
        text.append(f"{project}  {app or '(not deployed)'}{_machines(report, app)}")
        for line in lines:
            text.append(f"  {_mark(line)} {line.name or '-':<{widths[project]}}  {_state(line)}")
            text += [f"    {fact}" for fact in _facts(line)]
    for run in report.open_runs:
        how = "died; the next sync cleans up. It began" if run.run_id in report.died else "in progress since"
        text.append(f"run {run.run_id} {how} {utc(run.started_at)} ({run.origin}, {run.actor})")
    return text


def _summary(summary: Summary) -> list[str]:
    """Say how far all projects have come, and name some of those that are doubtful."""
    text = [f"{summary.projects:,} projects, {summary.credentials:,} credentials: {summary.behind:,} behind"]
    codes = ", ".join(f"{count:,} {code}" for code, count in summary.failures.items())
    doubtful = (("no app yet", summary.no_app), ("no credentials", summary.no_credentials))
    facts = [
        ("failed", summary.failed, codes),
        ("given up", summary.given_up, "waits for a change, or --force"),
        ("behind longest", summary.oldest, None if summary.behind_s is None else length(summary.behind_s)),
        *((label, some.count, listed(some.first, some.count)) for label, some in doubtful),
    ]
    return [*text, *(f"  {label:<14}  {fact}  ({more})" for label, fact, more in facts if fact)]


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
    """Say what Fly's word means, when a newer value was stored, when one was deployed, and how the last try ended."""
    facts = [] if line.live_unknown is None else [line.live_unknown]
    if line.live is Live.AT_REST:
        facts.append("the machines are stopped or suspended, and will start with it")
    if line.condition is CredentialCondition.CHANGED and line.updated_at:
        facts.append(f"stored {utc(line.updated_at)}")
    is_deployed = line.state is State.DEPLOYED
    by = (f" by {line.actor} ({line.origin})" if line.actor else "") + (f" run {line.run_id}" if line.run_id else "")
    if line.deployed_at:
        facts.append(f"deployed {utc(line.deployed_at)}{by if is_deployed else ', before'}")
    if line.tried:
        facts.append(f"last tried {utc(line.tried.started_at)}: {run_end(line.tried)}")
        facts.append(f"by {who(line.tried)} run {line.tried.run_id}")
    elif line.run_id and not is_deployed:
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

"""A status as lines of text, for 80 columns."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from flysync.cli.render.as_text import as_printable, next_text
from flysync.handlers.compare import Live
from flysync.model.core import State

if TYPE_CHECKING:
    from datetime import datetime

    from flysync.handlers.fly_view import LiveApp
    from flysync.handlers.standing import StatusLine
    from flysync.handlers.status import StatusReport


@as_printable
def status_text(report: StatusReport) -> list[str]:
    """Give a status as lines: a head per project, its credentials below, and in the end what to run next."""
    lines: list[str] = []
    head = None
    width = max((len(line.name or "") for line in report.lines), default=0)
    for line in report.lines:
        if (line.project, line.app) != head:
            head = (line.project, line.app)
            shown = report.apps.get(line.app) if line.app else None
            lines.append(f"{line.project}  {line.app or '(not deployed)'}{_machines(shown)}")
        lines.append(f"  {_mark(line)} {line.name or '-':<{width}}  {_words(line)}")
        lines += [f"    {fact}" for fact in _facts(line)]
    runs = [
        f"run {run.run_id} is under way since {run.started_at:%H:%M:%S} ({run.origin}, {run.actor})"
        for run in report.open_runs
    ]
    return [*(lines or ["no projects"]), *runs, *next_text(report.next)]


def _mark(line: StatusLine) -> str:
    if line.live is Live.UNKNOWN:
        return "?"
    if line.live in {Live.FOREIGN, Live.GONE}:
        return "-"
    if line.live is None:
        return "✓" if line.condition == "deployed" else "!"
    return "!" if line.is_drift else "✓"


def _words(line: StatusLine) -> str:
    """Say what Fly shows, and what of our own record it does not say already."""
    if line.live is None:
        return line.condition
    said = {"deployed", "orphaned"} if line.live is not Live.FOREIGN else {line.condition}
    return str(line.live) if line.condition in said else f"{line.live} ({line.condition})"


def _facts(line: StatusLine) -> list[str]:
    """Say when the value was stored, where a newer one is; when it was brought, and by what run; or the last try."""
    facts = [f"stored {_time(line.updated_at)}"] if line.condition == "changed since" and line.updated_at else []
    is_deployed = line.state is State.DEPLOYED
    by = (f" by {line.actor} ({line.origin})" if line.actor else "") + (f" run {line.run_id}" if line.run_id else "")
    if line.deployed_at:
        facts.append(f"deployed {_time(line.deployed_at)}{by if is_deployed else ', before'}")
    if line.run_id and not is_deployed:
        facts.append(f"last tried{by}")
    return facts


def _machines(shown: LiveApp | None) -> str:
    if shown is None:
        return ""
    if not shown.exists:
        return "  Fly.io knows no such app"
    machines = shown.shown.machines if shown.shown else None
    if machines is None:
        return "  machines not seen"
    managed = [one for one in machines if one.is_managed]
    states = Counter(one.state for one in managed)
    releases = sorted({one.release for one in managed if one.release is not None})
    told = ", ".join(f"{count} {state}" for state, count in states.most_common())
    on = f" on release {', '.join(map(str, releases))}" if releases else ""
    others = len(machines) - len(managed)
    return f"  machines: {told or 'none'}{on}" + (f" (and {others} that no roll-out reaches)" if others else "")


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"

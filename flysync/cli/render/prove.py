"""A proof: what each promise came to, with what, and how long things took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.cli.render import picked

if TYPE_CHECKING:
    from flysync.handlers.prove import ProveReport

#: The parts of which a version is worth a line.
_PARTS = ("flysync", "database", "server", "daytona", "runner", "flyctl", "token")
_SIGNS = {"proven": "✓", "not proven": "✗", "not possible here": "-"}


def prove_keys(report: ProveReport) -> dict[str, Any]:
    """Give `prove`: an object per line, parts by their names, steps with their seconds, and settings."""
    steps = {step: {"shortest_s": shortest, "longest_s": longest} for step, (shortest, longest) in report.steps.items()}
    lines = [picked(line, "name promise verdict seen seconds") for line in report.lines]
    return {"app": report.app, "prove": {"lines": lines, **picked(report, "parts settings"), "steps": steps}}


def prove_lines(report: ProveReport) -> list[str]:
    """Give two lines per promise, then the parts, the steps and the settings."""
    text = []
    for line in report.lines:
        text.append(f"{_SIGNS[line.verdict]} {line.name}: {line.promise}: {line.verdict} ({line.seconds:.1f} s)")
        text.append(f"    {line.seen}")
    text += [f"{name}: {message}" for name, message in report.parts.items() if name in _PARTS]
    text += [f"{step} took {shortest:.1f} to {longest:.1f} s" for step, (shortest, longest) in report.steps.items()]
    return text + [f"set     {name}={value}" for name, value in report.settings.items()]

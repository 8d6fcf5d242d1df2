"""Our sandboxes, and what was done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.cli.render.envelope import picked

if TYPE_CHECKING:
    from flysync.handlers.prune import SandboxReport


def keys(report: SandboxReport) -> dict[str, Any]:
    """Give `sandboxes`, an object each."""
    return {
        "sandboxes": [
            {
                **picked(line.sandbox, "id name"),
                "run_id": line.sandbox.run_id or None,
                "app": line.sandbox.app or None,
                **picked(line.sandbox, "state created_at"),
                "age_s": None if line.age_s is None else round(line.age_s),
                "ttl_s": line.sandbox.ttl_s,
                **picked(line, "use removed"),
            }
            for line in report.lines
        ]
    }


def lines(report: SandboxReport) -> list[str]:
    """Give a line per sandbox: name, app, age, use."""
    text = []
    for line in report.lines:
        age = "?" if line.age_s is None else f"{line.age_s / 60:.0f} min"
        done = {None: "", True: ", deleted", False: ", not deleted"}[line.removed]
        text.append(f"{line.sandbox.name:<34}  {line.sandbox.app or '-':<20}  {age:>8}  {line.use}{done}")
    return text or ["no sandboxes"]

"""What `doctor` and `db check` have found: a verdict per line, and how to fix it below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.cli.render.envelope import picked
from flysync.handlers.database import CheckReport

if TYPE_CHECKING:
    from flysync.handlers.doctor.checks import DoctorReport


def keys(report: CheckReport | DoctorReport) -> dict[str, Any]:
    """Give `check` or `doctor`, an object per finding; the doctor's have the code of the error as well."""
    if isinstance(report, CheckReport):
        return {"check": [picked(finding, "verdict subject message hint") for finding in report.findings]}
    return {"doctor": [picked(finding, "verdict subject message hint code") for finding in report.findings]}


def lines(report: CheckReport | DoctorReport) -> list[str]:
    """Give the findings, in their order."""
    text = []
    for finding in report.findings:
        text.append(f"{finding.verdict:<7}  {finding.subject}: {finding.message}")
        if finding.hint:
            text.append(f"         {finding.hint}")
    return text

"""The tables: create those that are missing, and compare them with what flysync needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import ConfigError
from flysync.model.reports import Finding, InitReport, Report

if TYPE_CHECKING:
    from flysync.ports import DatabaseAdmin


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport(Report):
    """What was found."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 where anything is missing or wrong; a warning alone is fine."""
        return int(self.error is not None)


async def init_database(
    *, admin: DatabaseAdmin, timeout_s: float, role: str | None = None, prints: bool = False, yes: bool = False
) -> InitReport:
    """
    Create the tables that are missing, and migrate those of an earlier version; open runs have *timeout_s*.

    *role* gets the rights of a sync. Where it *prints*, nothing is run, and the report has the SQL. Without *yes*,
    nothing is done in a database that has other tables and none of the backend's: the report names them.
    """
    if prints:
        return InitReport(created=(), sql=await admin.script(role=role))
    if not yes and (beside := await admin.beside()):
        return InitReport(created=(), beside=tuple(beside))
    return await admin.init(timeout_s=timeout_s, role=role)


async def check_database(*, admin: DatabaseAdmin) -> CheckReport:
    """Compare the tables with what flysync needs."""
    findings = tuple(await admin.check())
    failed = [finding for finding in findings if finding.verdict == "failed"]
    if not failed:
        return CheckReport(findings=findings)
    step = failed[0].fix
    error = ConfigError("the database is not as flysync needs it", hint="fix what failed", service="postgres")
    return CheckReport(findings=findings, error=error, next=(step,) if step else ())

"""Looking after the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flysync.model.reports import Finding, InitReport
    from flysync.ports import DatabaseAdmin


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What `db check` has found."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 where anything is missing or wrong; a warning alone is fine."""
        return int(any(finding.verdict == "failed" for finding in self.findings))


async def init_database(*, admin: DatabaseAdmin) -> InitReport:
    """
    Create the tables that do not exist, and migrate those of an earlier version.

    Raises:
        DatabaseUnavailable, ConfigError: as the port says.
    """
    return await admin.init()


async def check_database(*, admin: DatabaseAdmin) -> CheckReport:
    """
    Compare the tables with what flysync needs.

    Raises:
        DatabaseUnavailable, ConfigError: as the port says.
    """
    return CheckReport(findings=tuple(await admin.check()))

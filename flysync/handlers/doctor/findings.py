"""The findings of a doctor, in the order of its checks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from flysync.errors import ConfigError, FlysyncError
from flysync.model.reports import Finding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from flysync.model.reports import NextStep

T = TypeVar("T")


class Findings:
    """The list of all findings, and the error of the first check that failed."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self.error: FlysyncError | None = None

    def ok(self, subject: str, message: str) -> None:
        """Note that a check passed."""
        self.all.append(Finding(verdict="ok", subject=subject, message=message))

    def warn(self, subject: str, message: str, hint: str | None = None) -> None:
        """Note a problem with which syncs work all the same."""
        self.all.append(Finding(verdict="warning", subject=subject, message=message, hint=hint))

    def fail(self, subject: str, error: FlysyncError, *, fix: NextStep | None = None) -> None:
        """Note a problem with which a sync fails, and the command that fixes it."""
        self.error = self.error or error
        message, hint, code = error.message, error.hint, error.code
        self.all.append(Finding(verdict="failed", subject=subject, message=message, hint=hint, code=code, fix=fix))

    def skip(self, subject: str, why: str) -> None:
        """Note what could not be checked, or was not to be."""
        self.all.append(Finding(verdict="skipped", subject=subject, message=f"not checked: {why}"))

    def add(self, findings: Sequence[Finding]) -> bool:
        """Note the findings of `db check`, and tell whether none of them failed."""
        failed = [finding for finding in findings if finding.verdict == "failed"]
        if failed:
            self.error = self.error or ConfigError(failed[0].message, hint=failed[0].hint)
        code = ConfigError.code
        self.all += [replace(finding, code=code) if finding.verdict == "failed" else finding for finding in findings]
        return not failed

    async def of(self, subject: str, check: Awaitable[T]) -> T | None:
        """Give what *check* comes to; an error is noted as a failure of *subject*, and ends that check alone."""
        try:
            return await check
        except FlysyncError as error:
            self.fail(subject, error)
            return None

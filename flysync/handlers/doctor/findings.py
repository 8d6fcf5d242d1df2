"""The findings of a doctor, in the order of its checks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import ConfigError, FlysyncError
from flysync.model.reports import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


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

    def fail(self, subject: str, error: FlysyncError) -> None:
        """Note a problem with which a sync fails."""
        self.error = self.error or error
        self.all.append(
            Finding(verdict="failed", subject=subject, message=error.message, hint=error.hint, code=error.code)
        )

    def skip(self, subject: str, why: str) -> None:
        """Note what could not be checked, or was not to be."""
        self.all.append(Finding(verdict="skipped", subject=subject, message=f"not checked: {why}"))

    def add(self, findings: Iterable[Finding]) -> bool:
        """Note the findings of `db check`, and tell whether none of them failed."""
        all_passed = True
        for finding in findings:
            if finding.verdict == "failed":
                all_passed = False
                self.error = self.error or ConfigError(finding.message, hint=finding.hint)
                self.all.append(replace(finding, code=ConfigError.code))
            else:
                self.all.append(finding)
        return all_passed

    def of(self, subject: str) -> _Part:
        """Give a context in which an error is noted as a failure of *subject*, and ends that block alone."""
        return _Part(self, subject)


class _Part:
    def __init__(self, findings: Findings, subject: str) -> None:
        self._findings = findings
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, FlysyncError):
            self._findings.fail(self._subject, error)
        return isinstance(error, FlysyncError)

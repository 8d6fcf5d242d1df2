"""What is found while everything is looked at, one thing after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import ConfigError, FlysyncError
from flysync.model.reports import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


class Findings:
    """A list of findings, `all`, and the `error` of the first that failed."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self.error: FlysyncError | None = None

    def ok(self, subject: str, message: str) -> None:
        """Note what is as it should be."""
        self.all.append(Finding(verdict="ok", subject=subject, message=message))

    def warn(self, subject: str, message: str, hint: str | None = None) -> None:
        """Note what is not, and keeps no sync from working."""
        self.all.append(Finding(verdict="warning", subject=subject, message=message, hint=hint))

    def fail(self, subject: str, error: FlysyncError) -> None:
        """Note what does."""
        self.error = self.error or error
        self.all.append(
            Finding(verdict="failed", subject=subject, message=error.message, hint=error.hint, code=error.code)
        )

    def skip(self, subject: str, why: str) -> None:
        """Note what could not be looked at, or was not to be."""
        self.all.append(Finding(verdict="skipped", subject=subject, message=f"not checked: {why}"))

    def add(self, findings: Iterable[Finding]) -> bool:
        """Note what somebody else has found, and tell whether none of it has failed."""
        is_well = True
        for one in findings:
            if one.verdict == "failed":
                is_well = False
                self.fail(one.subject, ConfigError(one.message, hint=one.hint))
            else:
                self.all.append(one)
        return is_well

    def of(self, subject: str) -> _Part:
        """Give a context in which what goes wrong is a failure of *subject*, and ends no more than that."""
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

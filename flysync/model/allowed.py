"""What flysync may touch, by patterns of the operator's: `*` is any text, `?` one character, and case counts."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from flysync.errors import NotAllowed, Scope


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """The apps that may be written to, and the names that are neither set nor removed there; no option overrides it."""

    apps: tuple[str, ...] = ("*",)
    reserved: tuple[str, ...] = ()

    def refusal(self, app: str | None, name: str) -> NotAllowed | None:
        """Give the error of an app, or else of a name, that may not be touched, or nothing; no app is refused."""
        if app is not None and not any(fnmatchcase(app, pattern) for pattern in self.apps):
            return NotAllowed(f"{app} is not one of the apps in FLYSYNC_APPS", setting="FLYSYNC_APPS")
        for pattern in self.reserved:
            if fnmatchcase(name, pattern):
                message = f"{name} is reserved: FLYSYNC_RESERVED_NAMES has {pattern}"
                return NotAllowed(message, setting="FLYSYNC_RESERVED_NAMES", scope=Scope.CREDENTIAL)
        return None

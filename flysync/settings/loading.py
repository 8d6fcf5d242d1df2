"""
From sources to `Settings`, with all problems at once.

Pure: the sources are mappings. No message of this module shows a value, and each setting has its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from flysync.errors import ConfigError
from flysync.model.config import ConfigReport, SettingLine
from flysync.model.reports import Note
from flysync.secret import Secret
from flysync.settings.table import SECRETS, VARIABLES, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    #: Asks the keyring for one setting; whatever it raises means that the keyring failed.
    Lookup = Callable[[str], Secret | None]

_HINT = (
    "set it in the environment, in .env or with --env-file; a secret may also be in the system keyring"
    " (flysync config set NAME)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where settings come from: flags, the environment, a file."""

    #: Its name in messages.
    label: str
    values: Mapping[str, str] = field(repr=False)
    #: The line of each setting, where the source is a file.
    lines: Mapping[str, int] = field(default_factory=dict)
    #: Whether it is `.env` of the working directory, which nobody has named.
    is_dot_env: bool = False
    #: What cannot be read of it, and may hold any setting.
    problems: tuple[str, ...] = ()

    def where(self, name: str) -> str:
        """Say where *name* is set."""
        return f"{self.label}:{self.lines[name]}" if name in self.lines else self.label


def load(
    sources: Sequence[Source], *, needs: Sequence[str] = (), lookup: Lookup | None = None, user: str = "unknown"
) -> Settings:
    """
    Make settings of *sources*, in order of precedence; an empty text counts as not set.

    *lookup* asks the keyring, only for secrets among *needs* that no source has; *user* is the actor unless another one
    is set.

    Raises:
        ConfigError: all problems, in one message.
    """
    loader = _Loader(sources, needs, lookup)
    loader.look_for(needs)
    if error := loader.error():
        raise error
    return loader.settings(user)


def survey(
    sources: Sequence[Source], *, lookup: Lookup | None = None, user: str = "unknown"
) -> tuple[ConfigReport, Settings]:
    """
    Give what may be shown of every setting and its source, whatever is wrong with them, and those that are valid.

    The arguments are those of `load`; *lookup* is called for every secret that no source has.
    """
    loader = _Loader(sources, SECRETS, lookup)
    settings = loader.settings(user)
    lines = []
    for name, (attribute, _) in VARIABLES.items():
        value, is_set = getattr(settings, attribute), name in loader.origins
        source = loader.origins.get(name, "not set" if value is None else "default")
        is_usable = attribute in loader.values or not is_set
        shown = _shown(value) if is_usable else None
        lines.append(SettingLine(name=name, source=source, shown=shown, is_set=is_set, is_usable=is_usable))
    report = ConfigReport(
        lines=tuple(lines),
        warnings=tuple(loader.notes),
        problems=tuple(loader.problems),
        has_unread=any(source.problems for source in sources),
        error=loader.error(),
    )
    return report, settings


def _shown(value: object) -> str | None:
    """Give what may be shown of a setting; an address with a user or a query may hold a password."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and "://" in value and re.search("[@?]", value):
        value = Secret(value)
    if not isinstance(value, Secret):
        return None if value is None else str(value)
    return f"set ({value.size_bytes} bytes)"


def read_secret(name: str, text: str, *, where: str = "keyring") -> Secret | None:
    """
    Check a secret from the keyring, or one that is to be stored there; an empty one is none.

    Raises:
        ConfigError: it is invalid.
    """
    stripped = text.rstrip("\r\n")
    try:
        value = VARIABLES[name][1].read(stripped) if stripped else None
    except ValueError as problem:
        hint = f"save it again: flysync config set {name}"
        raise ConfigError(f"{name} ({where}) {problem}", hint=hint, setting=name) from None
    return value if isinstance(value, Secret) else None


class _Loader:
    """The settings found, and their problems; the keyring is asked for those among *needs* that no source has."""

    def __init__(self, sources: Sequence[Source], needs: Sequence[str], lookup: Lookup | None) -> None:
        self.values: dict[str, Any] = {}
        #: Where each setting was found, including the invalid ones.
        self.origins: dict[str, str] = {}
        self.notes: list[Note] = []
        self.problems = [problem for source in sources for problem in source.problems]
        self._names: set[str] = set()
        self._keyring_failed = False
        for source in sources:
            self._take(source)
        if lookup is not None and not self.values.get("no_keyring"):
            self._ask_keyring(needs, lookup)

    def settings(self, user: str) -> Settings:
        """Give those that are valid; *user* is the actor unless another one is set."""
        return Settings(**{"actor": user, **self.values}, notes=tuple(self.notes))

    def _take(self, source: Source) -> None:
        """Take from *source* what no source before it has set."""
        for name, text in source.values.items():
            stripped, where = text.rstrip("\r\n"), source.where(name)
            if name not in VARIABLES:
                if name.startswith("FLYSYNC_") and not name.startswith("FLYSYNC_TEST_"):
                    close = get_close_matches(name, VARIABLES, n=1)
                    hint = f"; did you mean {close[0]}?" if close else ""
                    self._add(name, f"{name} ({where}) is not a setting{hint}")
            elif not stripped or name in self.origins:
                continue
            elif source.is_dot_env and VARIABLES[name][1].guarded:
                message = (
                    f"{name} ({where}) is ignored: a stray file must not redirect credentials;"
                    " set it in the environment or with --env-file"
                )
                self.notes.append(Note(code="setting_ignored", message=message, names=(name,)))
            else:
                self._read(name, stripped, where)

    def _read(self, name: str, text: str, where: str) -> None:
        attribute, variable = VARIABLES[name]
        self.origins[name] = where
        try:
            self.values[attribute] = variable.read(text)
        except ValueError as problem:
            self._add(name, f"{name} ({where}) {problem}")

    def _ask_keyring(self, needs: Sequence[str], lookup: Lookup) -> None:
        for name in needs:
            if name in self.origins or not VARIABLES[name][1].secret:
                continue
            try:
                secret = lookup(name)
            except ConfigError as error:
                self.origins[name] = "keyring"
                self._add(name, error.message)
            except Exception as error:  # noqa: BLE001 - backends raise anything (infra.md F)
                # Its text is not shown, and one failure is enough: each may take the whole time limit.
                self._keyring_failed = True
                why = f"the system keyring could not be asked ({type(error).__name__})"
                self.notes.append(Note(code="keyring_failed", message=f"{why}; FLYSYNC_NO_KEYRING=1 leaves it alone"))
                return
            else:
                if secret is not None:
                    self.values[VARIABLES[name][0]], self.origins[name] = secret, "keyring"

    def look_for(self, needs: Sequence[str]) -> None:
        """Add a problem for each of *needs* that was found nowhere."""
        suffix = ", and the system keyring could not be asked" if self._keyring_failed else ""
        for name in needs:
            if name not in self.origins:
                self._add(name, f"{name} is not set{suffix if VARIABLES[name][1].secret else ''}")

    def error(self) -> ConfigError | None:
        """Give all problems as one error, or nothing."""
        if not self.problems:
            return None
        message = self.problems[0]
        if len(self.problems) > 1:
            message = "\n- ".join((f"{len(self.problems)} problems with the settings:", *self.problems))
        setting = next(iter(self._names)) if len(self._names) == 1 else None
        return ConfigError(message, hint=_HINT, setting=setting)

    def _add(self, name: str, problem: str) -> None:
        self._names.add(name)
        self.problems.append(problem)

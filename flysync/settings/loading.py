"""
From sources to `Settings`, with all problems at once.

Pure: the sources are mappings. No message of this module shows a value, and each setting has its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flysync.errors import ConfigError
from flysync.model import macaroon
from flysync.model.config import ConfigReport, SettingLine
from flysync.model.reports import Note
from flysync.model.similar import similar
from flysync.secret import Secret
from flysync.settings.readers import PLAIN_HTTP
from flysync.settings.table import HOSTS, OWN, SECRETS, VARIABLES, Settings, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    #: Asks the keyring for one setting; whatever it raises means that the keyring failed.
    Lookup = Callable[[str], Secret | None]
    #: Gives the settings that are known to be stored there, without asking it; ConfigError where that cannot be known.
    Stored = Callable[[], Collection[str]]

_MISSING = (
    "set what is missing in the environment, in .env or with --env-file; a secret may also be in the system keyring"
    " (flysync config set NAME)"
)
_STORED = "unlock the keyring, store it again (flysync config set NAME), or forget it (flysync config unset NAME)"
_STRANGE = "if that .env is yours, --env-file .env says so; else set DAYTONA_API_KEY where the other one is"
_WRONG = "correct it where the message says it is; `flysync config show` lists all settings, and where each is set"
#: What begins the names of our own settings, and would make any two of them alike.
_PREFIX = "FLYSYNC_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where settings come from: flags, the environment, a file."""

    #: Its name in messages.
    label: str
    #: None: a line begins with that name, and is not NAME=VALUE.
    values: Mapping[str, str | None] = field(repr=False)
    #: The line of each setting, where the source is a file.
    lines: Mapping[str, int] = field(default_factory=dict)
    #: Whether it is `.env` of the working directory, which nobody has named: only secrets are taken from it.
    is_dot_env: bool = False
    #: Why nothing of it could be read, if so.
    unread: str = ""

    def where(self, name: str) -> str:
        """Say where *name* is set."""
        return f"{self.label}:{self.lines[name]}" if name in self.lines else self.label


def load(
    sources: Sequence[Source], *, needs: Sequence[str] = (), lookup: Lookup | None = None, stored: Stored = tuple
) -> Settings:
    """
    Make settings of *sources*, in order of precedence; an empty text counts as not set, but for a setting that limits.

    *lookup* asks the keyring, only for secrets among *needs* that no source has; for those that are *stored* there it
    comes before `.env`.

    Raises:
        ConfigError: all problems, in one message.
    """
    loader = _Loader(sources, needs, lookup, stored)
    loader.look_for_needs()
    if error := loader.error():
        raise error
    return loader.settings()


def survey(
    sources: Sequence[Source], *, lookup: Lookup | None = None, stored: Stored = tuple
) -> tuple[ConfigReport, Settings]:
    """
    Give what may be shown of every setting and its source, whatever is wrong with them, and those that are valid.

    The arguments are those of `load`; *lookup* is called for every secret that no source has.
    """
    loader = _Loader(sources, SECRETS, lookup, stored)
    settings = loader.settings()
    lines = []
    for name, (attribute, _) in VARIABLES.items():
        value, is_set = getattr(settings, attribute), name in loader.origins
        source = loader.origins.get(name, "not set" if value is None else "default")
        is_usable = attribute in loader.values or not is_set
        shown = _shown(value) if is_usable else None
        lines.append(SettingLine(name=name, source=source, shown=shown, is_set=is_set, is_usable=is_usable))
    has_unread = any(source.unread and not source.is_dot_env for source in sources)
    notes, problems, error = tuple(loader.notes), tuple(loader.problems), loader.error()
    return ConfigReport(
        lines=tuple(lines), warnings=notes, problems=problems, has_unread=has_unread, error=error
    ), settings


def _shown(value: object) -> str | None:
    """Give what may be shown of a setting; an address with a user or a query may hold a password."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, str) and "://" in value and re.search("[@?]", value):
        value = Secret(value)
    if not isinstance(value, Secret):
        return None if value is None else str(value)
    return f"set ({value.size_bytes} bytes)"


def _is_ours(name: str) -> bool:
    return name in VARIABLES or (name.startswith(_PREFIX) and not name.startswith("FLYSYNC_TEST_"))


class _Loader:
    """The settings found, and their problems; the keyring is asked for those among *needs* that no source has."""

    def __init__(self, sources: Sequence[Source], needs: Sequence[str], lookup: Lookup | None, stored: Stored) -> None:
        self.values: dict[str, Any] = {}
        #: Where each setting was found, including the invalid ones.
        self.origins: dict[str, str] = {}
        self.notes: list[Note] = []
        self.problems: list[str] = []
        self._names: set[str] = set()
        self._hints: dict[str, None] = {}
        #: Why something may not be known that is set.
        self._unread: list[str] = []
        self._keyring_failure = ""
        for source in sources:
            if not source.is_dot_env:
                self._take(source)
        has_command = OWN in self.origins
        # Where the runner is a word that is none, nobody knows whether a key is needed: that one problem is told.
        runner = self.values.get("runner", None if "FLYSYNC_RUNNER" in self.origins else "daytona")
        self._needs = needed(needs, has_command=has_command, is_local=runner != "daytona")
        if has_command and "FLY_API_TOKEN" in self.origins:
            name = "FLY_API_TOKEN"
            self.note("setting_ignored", f"{name} ({self.origins[name]}) is not used: {OWN} is set", name)
        if self.values.get("no_keyring") or self.origins.keys() >= {*self._needs}:
            lookup = None
        self._ask_keyring(lookup, stored() if lookup else ())
        named = set(self.origins)
        for source in sources:
            if source.is_dot_env:
                self._take_dot_env(source)
        strange = self.origins.keys() - named
        self._ask_keyring(lookup)
        self._check_account(strange)
        if self.values.get("runner") == "local":
            self._check_runner()
        elif self.values.get("egress") == "fly":
            self._refuse_addresses()
        token: Secret | None = None if has_command else self.values.get("fly_api_token")
        if "narrow_token" in self.values and token and not token.matches(macaroon.ALL_ARE):
            name, hint = "FLYSYNC_NARROW_TOKEN", "unset it, or make a macaroon (`fly tokens create org`)"
            why = f"{name} ({self.origins[name]}) needs a macaroon: FLY_API_TOKEN is an OAuth token, or contains one"
            self._add(name, why, hint)

    def settings(self) -> Settings:
        """Give those that are valid."""
        return Settings(**self.values, notes=tuple(self.notes))

    def _take(self, source: Source) -> None:
        """Take from *source* what no source before it has set."""
        if source.unread:
            self.problems.append(f"cannot read {source.label}: {source.unread}")
        for name, text in source.values.items():
            where = source.where(name)
            if name in self.origins or not _is_ours(name):
                continue
            if name not in VARIABLES:
                short = {one.removeprefix(_PREFIX): one for one in VARIABLES}
                near = " or ".join(short[one] for one in similar(name.removeprefix(_PREFIX), short))
                hint = f"; did you mean {near}?" if near else ""
                self._add(name, f"{name} ({where}) is not a setting{hint}")
            elif text is None:
                self.origins[name] = where
                self._add(name, f"{name} ({where}) is not NAME=VALUE")
            elif (stripped := text.rstrip("\r\n")) or VARIABLES[name][1].never_empty:
                self._read(name, stripped, where)

    def _take_dot_env(self, source: Source) -> None:
        """Take from `.env` the secrets that are needed; whatever else is in it stops nobody."""
        if source.unread:
            self._unread.append(f"{source.label} is ignored ({source.unread})")
            self.note("setting_ignored", self._unread[-1])
        secrets = {name: text for name, text in source.values.items() if name in SECRETS and name in self._needs}
        self._take(replace(source, values=secrets, unread=""))
        others = [name for name, text in source.values.items() if text != "" and _is_ours(name)]
        if ignored := [name for name in others if name not in {*SECRETS, *self.origins}]:
            places = ", ".join(f"{name} ({source.where(name)})" for name in ignored)
            why = f"only {', '.join(SECRETS)} may be there, all others in the environment or in --env-file"
            self.note("setting_ignored", f"ignored: {places[:2_000]}; {why}", *ignored[:100])
        for name in (one for one in ignored if one in VARIABLES and VARIABLES[one][1].limits):
            problem = f"{name} ({source.where(name)}) would have no effect, because only secrets are read from there"
            self._add(name, problem, "set it in the environment or in --env-file")

    def _read(self, name: str, text: str, where: str) -> None:
        attribute, variable = VARIABLES[name]
        self.origins[name] = where
        if text.startswith(f"{name}="):
            self._add(name, f"{name} ({where}) begins with its own name: the value alone is needed")
            return
        try:
            value = self.values[attribute] = variable.read(text)
        except ValueError as problem:
            self._add(name, f"{name} ({where}) {problem}")
            return
        if ignored := variable.ignored(text):
            self.note("setting_ignored", f"{name} ({where}): {', '.join(ignored)}: ignored by flysync", name)
        if isinstance(value, str) and PLAIN_HTTP.match(value):
            message = f"{name} ({where}) is http: whoever is between here and there can read keys and values"
            self.note("not_encrypted", message, name)

    def _refuse_addresses(self) -> None:
        """Daytona's list takes names alone: a sandbox would not reach anything else, and nobody see why."""
        for name in HOSTS:
            host = urlsplit(self.values.get(VARIABLES[name][0]) or "").hostname or ""
            if host and not re.fullmatch(r"([a-z0-9_-]+\.)*[a-z][a-z0-9-]*", host):
                problem = "has no plain name of a host, and FLYSYNC_EGRESS=fly can let nothing else through"
                self._add(name, f"{name} ({self.origins[name]}) {problem}", "use a host's name, or FLYSYNC_EGRESS=open")

    def _ask_keyring(self, lookup: Lookup | None, stored: Collection[str] | None = None) -> None:
        """Ask for what is needed and not set yet; what is known to be *stored* there has to come from there."""
        for name in self._needs:
            if lookup is None or name in self.origins or name not in (SECRETS if stored is None else stored):
                continue
            secret = None
            try:
                # One failure is enough: each may take the whole time limit.
                secret = None if self._keyring_failure else lookup(name)
            except ConfigError as error:
                self.origins[name] = "keyring"
                self._add(name, error.message, error.hint or _WRONG)
                continue
            except Exception as error:  # noqa: BLE001 - backends raise anything (infra.md F); its text is not shown
                self._keyring_failure = f"the system keyring could not be asked ({type(error).__name__})"
                self._unread.append(self._keyring_failure)
                self.note("keyring_failed", f"{self._keyring_failure}; FLYSYNC_NO_KEYRING=1 turns it off")
            if secret is not None:
                self.values[VARIABLES[name][0]], self.origins[name] = secret, "keyring"
            elif stored is not None:
                self.origins[name] = "keyring"
                why = self._keyring_failure or "the system keyring does not have it here"
                self._add(name, f"{name} was stored with `flysync config set`, but {why}", _STORED)

    def _check_account(self, strange: Collection[str]) -> None:
        """Keep token and values from an account at Daytona that a stray `.env` may have named."""
        key, found = "DAYTONA_API_KEY", {*self._needs} & self.origins.keys() - strange
        ours = [f"{name} ({self.origins[name]})" for name in ("FLY_API_TOKEN", OWN, "DATABASE_URL") if name in found]
        if key in strange and ours:
            self.values.pop(VARIABLES[key][0], None)
            why = f"may be a stranger's, who would get token and values: {ours[0]} is not from there"
            self._add(key, f"{key} ({self.origins[key]}) {why}", _STRANGE)

    def _check_runner(self) -> None:
        """Refuse a limit that only sandboxes at Daytona have, where none are used."""
        told = "is about sandboxes at Daytona, and FLYSYNC_RUNNER is local"
        if self.values.get("egress") == "fly":
            name = "FLYSYNC_EGRESS"
            self._add(name, f"{name} ({self.origins[name]}) {told}", f"unset {name}, or use --runner daytona")
        if "snapshot" in self.values:
            name = "FLYSYNC_SNAPSHOT"
            self.note("setting_ignored", f"ignored: {name} ({self.origins[name]}) {told}", name)

    def look_for_needs(self) -> None:
        """Add a problem for each that is needed and was found nowhere."""
        unread = "".join(f", and {why}" for why in self._unread)
        for name in self._needs:
            if name not in self.origins:
                self._add(name, f"{name} is not set{unread}", _MISSING)

    def error(self) -> ConfigError | None:
        """Give all problems as one error, or nothing."""
        if not self.problems:
            return None
        message = self.problems[0]
        if len(self.problems) > 1:
            message = "\n- ".join((f"{len(self.problems)} problems with the settings:", *self.problems))
        setting = next(iter(self._names)) if len(self._names) == 1 else None
        return ConfigError(message, hint="; ".join(self._hints) or _WRONG, setting=setting)

    def note(self, code: str, message: str, *names: str) -> None:
        """Add a warning."""
        self.notes.append(Note(code=code, message=message, names=names))

    def _add(self, name: str, problem: str, hint: str = _WRONG) -> None:
        self._names.add(name)
        self._hints[hint] = None
        self.problems.append(problem)

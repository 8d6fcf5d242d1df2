"""
How the stand-in for flyctl reads its arguments and explains itself.

Rules and texts are those of cobra and pflag as flyctl ad0172fac shows them (measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flysync.sim.flyctl_http import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence


class Flag(NamedTuple):
    """A flag: with a value, or on and off."""

    name: str
    text: str = ""
    short: str = ""
    valued: bool = False
    hidden: bool = False


_APP = Flag("app", "Application name", short="a", valued=True)
_CONFIG = Flag("config", "Path to application configuration file", short="c", valued=True)
_DETACH = Flag("detach", "Return immediately instead of monitoring\ndeployment progress")
_DNS = Flag("dns-checks", "Perform DNS checks during deployment (default true)")
_STAGE = Flag("stage", "Set secrets but skip deployment for machine apps")
_JSON = Flag("json", "JSON output", short="j")
_QUIET = Flag("quiet", "Only list machine ids", short="q")
_SAVE = Flag("saveinstall", short="s", valued=True, hidden=True)
_GLOBAL = (
    Flag("access-token", "Fly API Access Token", short="t", valued=True),
    Flag("debug", "Print additional logs and traces"),
    Flag("verbose", "Verbose output"),
)


class Command:
    """A command: its words, what it takes, and what its help says."""

    __slots__ = ("aliases", "arguments", "first", "flags", "least", "summary", "words")

    def __init__(
        self,
        words: str,
        summary: str,
        *flags: Flag,
        first: str = "",
        arguments: str = "",
        least: int = 0,
        aliases: str = "",
    ) -> None:
        self.words = words
        self.summary = summary
        self.flags = (*flags, Flag("help", f"help for {words.rpartition(' ')[2]}", short="h"))
        #: What it takes, before and after the flags.
        self.first = first
        self.arguments = arguments
        #: How many arguments it must have.
        self.least = least
        self.aliases = aliases

    def usage(self) -> str:
        """Give the text that is printed after a mistake."""
        head = f"Usage:\n  flyctl {self.words}{self.first} [flags]{self.arguments}\n"
        aliases = f"\nAliases:\n  {self.aliases}\n" if self.aliases else ""
        return f"{head}{aliases}\nFlags:\n{_table(self.flags)}\n\nGlobal Flags:\n{_table(_GLOBAL)}\n"


_SET_FLAGS = (_APP, _CONFIG, _DETACH, _DNS, _STAGE)
_COMMANDS = (
    Command(
        "secrets set",
        "Set one or more encrypted secrets for an application",
        *_SET_FLAGS,
        arguments=" NAME=VALUE NAME=VALUE ...",
        least=1,
    ),
    Command(
        "secrets unset",
        "Unset one or more encrypted secrets for an application",
        *_SET_FLAGS,
        arguments=" NAME NAME ...",
        least=1,
    ),
    Command(
        "secrets sync",
        "Sync flyctl with the latest versions of app secrets, even if they were set elsewhere",
        *_SET_FLAGS,
    ),
    Command("secrets deploy", "Deploy staged secrets for an application", _APP, _CONFIG, _DETACH, _DNS),
    Command(
        "secrets list",
        "List application secret names, digests and deployment status",
        _APP,
        _CONFIG,
        _JSON,
        aliases="list, ls",
    ),
    Command("machine list", "List Fly machines", _APP, _CONFIG, _JSON, _QUIET, aliases="list, ls"),
    Command("machine start", "Start one or more Fly machines", _APP, _CONFIG, first=" [<id>...]"),
    Command("version", "Show version information for the flyctl command", _JSON, _SAVE),
    Command("status", "Show app status", _APP, _CONFIG, _JSON),
    Command("tokens debug", "Debug Fly.io API tokens"),
    Command("auth whoami", "Show the currently authenticated user", _JSON),
)
COMMANDS = {command.words: command for command in _COMMANDS}
COMMANDS["secrets ls"] = COMMANDS["secrets list"]
COMMANDS["machine ls"] = COMMANDS["machine list"]
#: Words that lead to commands.
GROUPS = ("secrets", "machine", "tokens", "auth")


class Mistake(Failure):
    """An error in the arguments; the command's usage goes to standard output before it."""

    def __init__(self, text: str, usage: str) -> None:
        super().__init__(text)
        self.usage = usage


class Call(NamedTuple):
    """What the arguments ask for."""

    #: Absent where only help is wanted.
    command: Command | None
    flags: dict[str, str]
    arguments: list[str]

    def is_on(self, flag: str, *, default: bool = False) -> bool:
        """Tell whether *flag* is on."""
        return self.flags[flag] == "true" if flag in self.flags else default


def parse(argv: Sequence[str]) -> Call:
    """
    Read the arguments.

    Raises a mistake for what no command understands; it can repeat the argument, value and all.
    """
    words, rest = _split(argv)
    name = " ".join(words)
    command = COMMANDS.get(name) or COMMANDS.get(words[0] if words else "")
    if command is None:
        if words and words[0] not in GROUPS:
            text = f'unknown command "{words[0]}" for "flyctl"'
            raise Mistake(text, "Run 'flyctl --help' for usage.\n")
        return Call(None, {}, list(words))
    if len(words) > len(command.words.split()):
        rest.insert(0, words[-1])
    flags, arguments = _parse_flags(command, rest)
    if flags.get("help") != "true" and len(arguments) < command.least:
        raise Mistake(f"requires at least {command.least} arg(s), only received {len(arguments)}", command.usage())
    return Call(command, flags, arguments)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Give the first two words that are not flags or their values, and all the rest."""
    flags = (*_SET_FLAGS, _SAVE, *_GLOBAL)
    valued = {form for flag in flags if flag.valued for form in (f"--{flag.name}", f"-{flag.short}")}
    words: list[str] = []
    rest: list[str] = []
    left = list(argv)
    while left and len(words) < 2:
        item = left.pop(0)
        if item == "--":
            left.insert(0, item)
            break
        if item.startswith("-"):
            rest.append(item)
            if item in valued and left:
                rest.append(left.pop(0))
        else:
            words.append(item)
    return words, rest + left


def _parse_flags(command: Command, items: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    known = {flag.name: flag for flag in (*command.flags, *_GLOBAL)}
    shorts = {flag.short: flag for flag in known.values() if flag.short}
    flags: dict[str, str] = {}
    arguments: list[str] = []
    left = list(items)
    while left:
        item = left.pop(0)
        if item == "--":
            arguments += left
            break
        if not item.startswith("-") or item == "-":
            arguments.append(item)
        elif item.startswith("--"):
            _parse_long(command, known, item, left, flags)
        else:
            _parse_shorts(command, shorts, item, left, flags)
    return flags, arguments


def _parse_long(command: Command, known: dict[str, Flag], item: str, left: list[str], flags: dict[str, str]) -> None:
    name, has_value, value = item[2:].partition("=")
    flag = known.get(name)
    if flag is None:
        raise Mistake(f"unknown flag: --{name}", command.usage())
    if not has_value and flag.valued:
        if not left:
            raise Mistake(f"flag needs an argument: --{name}", command.usage())
        value = left.pop(0)
    flags[name] = value if flag.valued else _truth(command, name, value if has_value else "true")


def _parse_shorts(command: Command, shorts: dict[str, Flag], item: str, left: list[str], flags: dict[str, str]) -> None:
    letters = item[1:]
    while letters:
        flag = shorts.get(letters[0])
        if flag is None:
            raise Mistake(f"unknown shorthand flag: {letters[0]!r} in -{letters}", command.usage())
        if len(letters) > 2 and letters[1] == "=":
            flags[flag.name] = letters[2:] if flag.valued else _truth(command, flag.name, letters[2:])
            return
        if not flag.valued:
            flags[flag.name] = "true"
            letters = letters[1:]
            continue
        if len(letters) == 1 and not left:
            raise Mistake(f"flag needs an argument: {letters[0]!r} in -{letters}", command.usage())
        flags[flag.name] = letters[1:] or left.pop(0)
        return


def _truth(command: Command, name: str, value: str) -> str:
    """Give `true` or `false`, as Go's ParseBool reads *value*."""
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return "true"
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return "false"
    reason = f'strconv.ParseBool: parsing "{value}": invalid syntax'
    raise Mistake(f'invalid argument "{value}" for "--{name}" flag: {reason}', command.usage())


def _table(flags: Sequence[Flag]) -> str:
    rows = []
    for flag in sorted((f for f in flags if not f.hidden), key=lambda f: f.name):
        left = f"  -{flag.short}, " if flag.short else "      "
        rows.append((f"{left}--{flag.name}{' string' if flag.valued else ''}", flag.text))
    width = max(len(left) for left, _ in rows) + 3
    return "\n".join(left.ljust(width) + text.replace("\n", "\n" + " " * width) for left, text in rows)

"""
The shell script of one step in a sandbox, and how its answer is read.

A step is one or more parts, each with a code of its own; after one that fails, the others are left out, unless it is
one that they are to follow all the same. It runs at most once, however often its request arrives: the
first to make the step's marker directory runs it, everyone else waits and gets what it left there. Shape and limits
were tried on dash, bash and zsh and on Daytona's last public daemon (daytona.md 0a): the daemon feeds the command to
some shell on standard input and merges both output streams, so everything is one `/bin/sh -c`, and each stream comes
back as one line of base64. No value and no token is part of a script: they travel in the environment as V0, V1, ...
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import DaytonaUnavailable, TimedOut
from flysync.ports import AnswerLost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.core import AppName, RunId

#: What is told of a part's output: a list of 16,000 secrets. An answer that is larger than five of these is not read.
_MOST_BYTES = 2 * 2**20
#: Seconds between SIGTERM and SIGKILL for a part that ran out of time.
KILL_AFTER_S = 5

#: Where a run keeps its files. The configuration directory has a plain file in the place of `logs`, because flyctl
#: would write request bodies, values included, into that directory (flyctl.md 8; tried on every version).
_DIRECTORY = 'd="${HOME:-$PWD}/.flysync/@RUN@"\n'
_PREPARE = (
    f"umask 077\n{_DIRECTORY}"
    """\
mkdir -p "$d/config" "$d/work" "$d/steps" || exit 1
[ -f "$d/config/logs" ] || : >"$d/config/logs"
[ -s "$d/until" ] || printf "%s" "$(($(date +%s) + @LEFT@))" >"$d/until"
m="$d/steps/@STEP@"
c=
g=1
say() { printf "@NONCE@:%s:%s\\n" "$1" "$2"; }
ended() { c=$2; printf "%s" "$c" >"$m/$1.new" && mv "$m/$1.new" "$m/$1.code"; }
told() {
  [ ! -s "$m/$1.out" ] || say "$1:out" "$(head -c @MOST@ "$m/$1.out" | base64 | tr -d "\\n")"
  say "$1:code" "$(cat "$m/$1.code" 2>/dev/null || printf "%s" "$c")"
}
"""
)

#: First of all, so that one step means one run. A process that was frozen may wake up and send a step when its run
#: has been given up long ago: it is too late then, by the sandbox's own clock.
_ONCE = """\
if [ ! -d "$m" ] && [ "$(date +%s)" -gt "$(cat "$d/until")" ]; then
  say step late
  exit 0
fi
if ! mkdir "$m" 2>/dev/null; then
  [ -d "$m" ] || { say step lost; exit 0; }
  i=0
  while [ ! -s "$m/end" ] && [ "$i" -lt @WAIT@ ]; do
    [ ! -s "$m/pid" ] || kill -0 "$(cat "$m/pid")" 2>/dev/null || [ -s "$m/end" ] || break
    sleep 1
    i=$((i + 1))
  done
  for p in @PARTS@; do told "$p"; done
  exit 0
fi
printf "%s\\n" "$$" >"$m/pid"
"""

#: flyctl reads far more variables than it documents (flyctl.md 2.4), and viper binds FLY_<any key of config.yml>.
#: `env -i NAME=...` would show the token in argv.
_CLEAN = """\
for n in $(env | LC_ALL=C sed -nE "s/^((FLY|FLYCTL|DAYTONA)_[A-Za-z0-9_]*)=.*/\\1/p"); do
  unset "$n"
done
unset LOG_LEVEL GQLErrorLogging GITHUB_ACTIONS
export FLY_CONFIG_DIR="$d/config" FLY_SEND_METRICS=0 FLY_NO_UPDATE_CHECK=1 FLY_NO_INCIDENTS_CHECK=1
export FLY_EMIT_RELEASE_JSON=1 NO_COLOR=1
cd "$d/work" || exit 1
t="timeout --foreground"
$t 5 true 2>/dev/null || t=timeout
"""

#: What a part prints is kept for those who come again. Standard error is not: it may quote values and show an app's log
#: lines, so it goes to us alone, and to no file.
_RUN = """\
if [ "$g" ]; then
e=$({ @COMMAND@; } 2>&1 >"$m/@PART@.out"; r=$?; printf x; exit "$r")
ended @PART@ "$?"
say @PART@:err "$([ "$e" = x ] || printf "%s" "${e%x}" | head -c 65536 | base64 | tr -d "\\n")"
[ "$c" = 0 ] || g=@GO_ON@
else
ended @PART@ @LEFT_OUT@
fi
told @PART@
"""
#: Two parts at once. What the second one says is kept until the first has ended: long lines would get into each other.
_BOTH = """\
{
@FIRST@} &
w=$!
b=$(
@SECOND@)
wait "$w"
printf "%s\\n" "$b"
"""
#: The code of a part that was left out; no command ends with it.
LEFT_OUT = 999

#: What `say` prints: a nonce, what it is of, and the text.
_LINE = re.compile(r"^(\w+):([a-z:-]+):(\S*)\s*$", re.MULTILINE)
_SAFE_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back of a part."""

    code: int
    #: Empty as well where the sandbox has lost it.
    stdout: str
    #: Absent where only a replay was heard.
    stderr: str | None
    #: Whether the token that it was given is over by now.
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """
    One command of a step, as shell text; `"$@"` stands for the step's arguments, `$t` for its `timeout`.

    What it prints on standard output can hold no value.
    """

    name: str
    command: str
    #: Seconds that it may take, which the command has to see to itself.
    limit_s: int
    #: Whether a lost answer leaves something open.
    writes: bool = False
    #: Whether it needs Fly's token.
    has_token: bool = True
    #: The app that it is about, and whether its token serves no other.
    app: AppName | None = None
    alone: bool = False
    #: Whether the parts after it are run though it fails.
    goes_on: bool = False
    #: Whether it is run at the same time as the part before it, whatever that comes to; nothing follows the two, and
    #: both have the same limit and need of the token.
    beside: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Commands in a sandbox, one after the other, run once."""

    run_id: RunId
    #: Unique within the run: what is done, and the number of the attempt.
    name: str
    parts: Sequence[Part]
    #: Seconds from now in which the run's steps may begin; the first step's word counts.
    left_s: int
    nonce: str
    #: Further variables for commands that have the token, none of them secret.
    exports: Mapping[str, str]
    #: Names of secrets, whose values are in V1, V2, ...
    arguments: Sequence[str] = ()

    @property
    def limit_s(self) -> int:
        """Seconds that all of it may take."""
        return sum(part.limit_s for part in self.parts if not part.beside)

    @property
    def has_token(self) -> bool:
        """Whether the token is in V0."""
        return any(part.has_token for part in self.parts)

    def script(self) -> str:
        """Give the text for Daytona's `exec`."""
        names = [word(part.name) for part in self.parts]
        body, exports = f"ulimit -c 0\n{_PREPARE}{_ONCE}{self._take_values()}{_CLEAN}", self._exports()
        last = ""
        for part, name in zip(self.parts, names, strict=True):
            if part.has_token:
                body, exports = body + exports, ""
            run = _RUN.replace("@GO_ON@", "1" if part.goes_on else "")
            run = run.replace("@COMMAND@", part.command).replace("@PART@", name)
            if part.beside:
                assert body.endswith(last or "nothing"), "there is one before it, and nothing between the two"
                body, run = body.removesuffix(last), _BOTH.replace("@FIRST@", last).replace("@SECOND@", run)
            body, last = body + run, run
        body = (
            body.replace("@RUN@", word(self.run_id))
            .replace("@STEP@", word(self.name))
            .replace("@NONCE@", word(self.nonce))
            .replace("@LEFT@", str(self.left_s))
            .replace("@MOST@", str(_MOST_BYTES))
            .replace("@WAIT@", str(self.limit_s + KILL_AFTER_S))
            .replace("@LEFT_OUT@", str(LEFT_OUT))
            .replace("@PARTS@", " ".join(names))
        )
        assert "'" not in body, "the script stands between single quotes"
        return f"exec /bin/sh -c '{body}printf e >\"$m/end\"\nexit 0\n' flysync </dev/null"

    def _take_values(self) -> str:
        """Move the values to the arguments: a variable that stays set counts twice against the kernel's limit."""
        pairs = " ".join(f'"{word(name)}=$V{number}"' for number, name in enumerate(self.arguments, 1))
        gone = "".join(f" V{number}" for number in range(1, len(self.arguments) + 1))
        token = "unset k\nk=$V0\nunset V0\n" if self.has_token else ""  # `k` may be exported by others
        return f"set -- {pairs}\n" + (f"unset{gone}\n" if gone else "") + token

    def _exports(self) -> str:
        """Give what comes before the first part that has the token: no process of an earlier one has it."""
        lines = [f'export {word(name)}="{word(value)}"\n' for name, value in self.exports.items()]
        return "".join([*lines, 'export FLY_API_TOKEN="$k"\nunset k\n'])

    def read(self, output: str) -> tuple[Answer, ...]:
        """
        Find the answers of all parts in what the sandbox printed.

        Raises:
            AnswerLost: that of the first, or of one that writes, is not there: nobody knows how it ended.
            DaytonaUnavailable: the run's directory is gone: the step did not run.
            TimedOut: the run's time was over, by the sandbox's clock: the step did not run.
        """
        lines = {name: text for nonce, name, text in _LINE.findall(output) if nonce == self.nonce}
        match lines.get("step"):
            case "lost":
                raise DaytonaUnavailable("the sandbox lost its files", service="daytona", phase=self.name)
            case "late":
                raise TimedOut("the run's time was over in the sandbox", phase=self.name)
            case _:
                pass
        return tuple(self._answer(part, lines) for part in self.parts)

    def _answer(self, part: Part, lines: Mapping[str, str]) -> Answer:
        try:
            return Answer(
                code=_code(lines[f"{part.name}:code"]),
                stdout=_decoded(lines.get(f"{part.name}:out", "")),
                stderr=_decoded(lines[err]) if (err := f"{part.name}:err") in lines else None,
            )
        except (KeyError, ValueError, binascii.Error):
            if part is not self.parts[0] and not part.writes:  # cut short after what counts: as good as left out
                return Answer(code=LEFT_OUT, stdout="", stderr=None)
            lost = DaytonaUnavailable("the sandbox lost the answer", service="daytona", phase=self.name)
            raise AnswerLost(lost) from None


def removal(run_id: RunId) -> str:
    """
    Give the text that removes the files of a run.

    It is not a step, and may be sent twice: a step's replay would make again what the step has taken away.
    """
    return f"exec /bin/sh -c '{_DIRECTORY}rm -rf \"$d\"' flysync </dev/null".replace("@RUN@", word(run_id))


def timed(command: str, limit_s: int) -> str:
    """Give *command* a time limit that the daemon's own kill reaches too (`--foreground`: no group of its own)."""
    return f"$t -k {KILL_AFTER_S} {limit_s} {command}"


def word(text: str) -> str:
    """
    Give *text* for use in a script.

    Raises:
        ValueError: it holds something that a shell could take for more than a word.
    """
    if not _SAFE_WORD.fullmatch(text):
        raise ValueError(f"not safe in a script: {len(text)} characters")
    return text


def _code(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text):
        raise ValueError("not a status")
    return int(text)


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("utf-8", "replace")

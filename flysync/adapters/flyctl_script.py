"""
The shell script of one step in a sandbox, and how its answer is read.

A step runs at most once, however often its request arrives: the first to make the step's marker directory runs it,
everyone else waits and gets the stored exit code. Shape and limits were tried on dash, bash and zsh and on Daytona's
last public daemon (daytona.md 0a): the daemon feeds the command to some shell on standard input and merges both
output streams, so everything is one `/bin/sh -c`, and each stream comes back as one line of base64.
No value and no token is part of a script: they travel in the environment as V0, V1, ...
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.core import RunId

#: Seconds between SIGTERM and SIGKILL for a step that ran out of time.
KILL_AFTER_S = 5
#: Seconds that the request may take longer than the step's own limit, `KILL_AFTER_S` included.
OUTER_MARGIN_S = 15

#: Where a run keeps its files: the configuration directory has a plain file in the place of `logs`, because flyctl
#: would write request bodies, values included, into that directory (flyctl.md 8; tried on every version).
_PREPARE = """\
umask 077
d="${HOME:-$PWD}/.flysync/@RUN@"
mkdir -p "$d/config" "$d/work" "$d/steps" || exit 1
[ -f "$d/config/logs" ] || : >"$d/config/logs"
[ -s "$d/until" ] || printf "%s" "$(($(date +%s) + @LEFT@))" >"$d/until"
"""

#: First of all, so that one step means one run. A process that was frozen may wake up and send a step when its run
#: has been given up long ago: it is too late then, by the sandbox's own clock.
_ONCE = """\
m="$d/steps/@STEP@"
if [ ! -d "$m" ] && [ "$(date +%s)" -gt "$(cat "$d/until")" ]; then
  printf "%s:L:\\n" @NONCE@
  exit 0
fi
if ! mkdir "$m" 2>/dev/null; then
  [ -d "$m" ] || { printf "%s:X:\\n" @NONCE@; exit 0; }
  i=0
  while [ ! -s "$m/code" ] && [ "$i" -lt @WAIT@ ]; do
    [ ! -s "$m/pid" ] || kill -0 "$(cat "$m/pid")" 2>/dev/null || [ -s "$m/code" ] || break
    sleep 1
    i=$((i + 1))
  done
  printf "%s:R:%s\\n" @NONCE@ "$(cat "$m/code" 2>/dev/null)"
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

#: Both streams apart, each as one line; the exit code is kept for those who come again.
_RUN = """\
exec 4>&1
e=$({ o=$({ @COMMAND@ 2>&3 3>&- 4>&-
r=$?
printf "%s" "$r" >"$m/code.new" && mv "$m/code.new" "$m/code"
printf "\\n%s" "$r"; } | base64 | tr -d "\\n")
printf "%s:O:%s\\n" @NONCE@ "$o" >&4; } 3>&1 | base64 | tr -d "\\n")
printf "%s:E:%s\\n" @NONCE@ "$e"
exit 0
"""

_SAFE_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back of a step."""

    code: int
    #: Absent where only the exit code survived.
    stdout: str | None
    stderr: str | None


class NoAnswer(Exception):
    """The step began, and nobody knows how it ended."""


class NoFiles(Exception):
    """The sandbox has lost the run's directory: the step did not run."""


class TooLate(Exception):
    """The run's time was over, by the sandbox's clock: the step did not run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command in a sandbox, run once."""

    run_id: RunId
    #: Unique within the run: what is done, and the number of the attempt.
    name: str
    #: Shell text; `"$@"` stands for the arguments.
    command: str
    limit_s: int
    #: Seconds from now in which the run's steps may begin; the first step's word counts.
    left_s: int
    nonce: str
    #: Further variables for the command, none of them secret.
    exports: Mapping[str, str]
    #: Names of secrets, whose values are in V1, V2, ...
    arguments: Sequence[str] = ()
    #: Whether the token is in V0.
    has_token: bool = True

    def script(self) -> str:
        """Give the text for Daytona's `exec`."""
        parts = ["ulimit -c 0\n", _PREPARE, _ONCE, self._take_values(), _CLEAN, self._exports()]
        body = "".join((*parts, _RUN.replace("@COMMAND@", self.command)))
        body = (
            body.replace("@RUN@", word(self.run_id))
            .replace("@STEP@", word(self.name))
            .replace("@NONCE@", word(self.nonce))
            .replace("@LEFT@", str(self.left_s))
            .replace("@WAIT@", str(self.limit_s + KILL_AFTER_S))
        )
        assert "'" not in body, "the script stands between single quotes"
        return f"exec /bin/sh -c '{body}' flysync </dev/null"

    def _take_values(self) -> str:
        """Move the values to the arguments: a variable that stays set counts twice against the kernel's limit."""
        pairs = " ".join(f'"{word(name)}=$V{number}"' for number, name in enumerate(self.arguments, 1))
        gone = "".join(f" V{number}" for number in range(1, len(self.arguments) + 1))
        token = "k=$V0\nunset V0\n" if self.has_token else ""
        return f"set -- {pairs}\n" + (f"unset{gone}\n" if gone else "") + token

    def _exports(self) -> str:
        lines = [f'export {word(name)}="{word(value)}"\n' for name, value in self.exports.items()]
        if self.has_token:
            lines.append('export FLY_API_TOKEN="$k"\nunset k\n')
        return "".join(lines)

    def read(self, output: str) -> Answer:
        """
        Find the answer in what the sandbox printed.

        Raises:
            NoAnswer: there is no whole answer.
            NoFiles: the run's directory is gone.
            TooLate: the run's time was over.
        """
        lines = dict(
            line.removeprefix(f"{self.nonce}:").split(":", 1)
            for line in output.splitlines()
            if re.match(re.escape(self.nonce) + ":[A-Z]:", line)
        )
        if "X" in lines:
            raise NoFiles
        if "L" in lines:
            raise TooLate
        try:
            if "R" in lines:
                return Answer(code=int(lines["R"]), stdout=None, stderr=None)
            stdout, _, code = _decoded(lines["O"]).rpartition("\n")
            return Answer(code=int(code), stdout=stdout, stderr=_decoded(lines["E"]))
        except (KeyError, ValueError, binascii.Error):
            raise NoAnswer from None


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


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("utf-8", "replace")

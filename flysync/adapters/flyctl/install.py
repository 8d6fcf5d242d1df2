"""
How a sandbox comes by a flyctl: one that is there and new enough, else the pinned version; and how a snapshot does.

The texts are shell, run as steps (see `script`); `$d` is the run's directory, `$t` its `timeout`. Daytona keeps and
shows the Dockerfile of a snapshot: nothing secret may be in it, and nothing of the project is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from typing_extensions import override

from flysync.adapters.flyctl.script import Part, word
from flysync.adapters.flyctl.steps import FOUND, Steps
from flysync.errors import ConfigError, FlyctlChanged, FlyctlFailed
from flysync.model import fly, snapshot
from flysync.model.core import RunId
from flysync.ports import Clock, Recipe, Sandbox
from flysync.secret import Secret

#: The first version whose `secrets list --json` has a status (flyctl.md 6).
_OLDEST_VERSION = (0, 4, 6)
#: Where a release can be had from, checked against a sum; see flyctl.md 5.
_RELEASE_URL = "https://github.com/superfly/flyctl/releases/download/v{version}/flyctl_{version}_Linux_{arch}.tar.gz"

#: Seconds kept of an installation's limit for what comes before and after the installer itself.
_MARGIN_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a flyctl comes from: *version*, by the script at *install_url* or by a download that has one of *sums*."""

    version: str
    install_url: str
    sums: tuple[str, ...] = ()

    def checking(self, text: str) -> str:
        """Fill in how a script fetches, and what it compares a program's sum with."""
        text = text.replace("@CURL@", _CURL).replace("@IS_ONE@", _IS_ONE).replace("@NEW@", _NEW)
        return text.replace("@SUMS@", ",".join(map(word, self.sums)))


#: Where sums are set, each is copied into the run's own directory, and it is the copy that is summed and then run:
#: another one can be put in the program's place between the two. What has another sum is not even asked its version.
_LOOK = """{
n=0; l=
for c in "$(command -v flyctl)" "$(command -v fly)" "${HOME:-$PWD}/.fly/bin/flyctl"; do
  n=$((n + 1)); [ -f "$c" ] && [ -x "$c" ] && ! [ "$c" -ef "$l" ] || continue
  l=$c; s=; p="$d/flyctl$n"; rm -f "$p"
  if [ "@SUMS@" ]; then $t 10 cp "$c" "$p" && s=$($t 10 sha256sum <"$p"); else ln -s "$c" "$p"; fi
  case ",@SUMS@," in
    @IS_ONE@)
      v=$($t 10 "$p" version --json); printf "%s %s\\n" "$n" "$v"
      case "$v" in @NEW@) [ -e "$d/flyctl" ] || ln -s "$p" "$d/flyctl" ;; esac ;;
    *) rm -f "$p"; printf "%s is %s\\n" "$n" "${s%% *}" ;;
  esac
done; true
}"""
#: What a version looks like that is new enough for sure: no less than `_is_new_enough` asks for.
_NEW = "|".join(
    f'*\\"Version\\":{space}\\"{version}*'
    for space in ("", "\\ ")
    for version in ("0.0.0-dev", "0.4.[6-9]", "0.4.[1-9][0-9]", "0.[5-9].", "0.[1-9][0-9].", "[1-9]")
)
#: An address that is https must not lead to one that is not.
_CURL = "curl -fsSL --proto-redir =https --retry 2 --connect-timeout 10"
#: What a list of sums, between commas, looks like that has `$s` in it, or nothing at all.
_IS_ONE = '*",${s%% *},"*|",,"'

#: Fly's own installer; it needs curl and tar (flyctl.md 5) and is kept away from the sandbox's own ~/.fly, where one
#: that does not know FLYCTL_INSTALL puts it all the same. In a shell of its own, so that its exit is not that of the
#: step, whose answer would be lost.
_INSTALL = """(
FLYCTL_INSTALL="$d/fly"; export FLYCTL_INSTALL
command -v curl >/dev/null || exit 69
@CURL@ "@URL@" -o "$d/install.sh" || exit 68
$t @LIMIT@ sh "$d/install.sh" @VERSION@ >/dev/null || exit 67
for c in "$d/fly/bin/flyctl" "${HOME:-$PWD}/.fly/bin/flyctl"; do
  if [ -x "$c" ]; then
    ln -sf "$c" "$d/flyctl0"; printf "0 "; "$d/flyctl0" version --json
    exit
  fi
done
exit 65
)"""

#: By direct download. The archive or the program in it has to have a sum that is set; nothing else is unpacked.
_DOWNLOAD = """(
command -v sha256sum >/dev/null || exit 64
command -v curl >/dev/null || exit 69
a=$(uname -m); [ "$a" != aarch64 ] || a=arm64
f="$d/flyctl.tar.gz"; p="$d/flyctl0"
@CURL@ "@URL@" -o "$f" || exit 63
tar -xzOf "$f" flyctl >"$p" || exit 67
for g in "$p" "$f"; do
  s=$(sha256sum <"$g")
  case ",@SUMS@," in @IS_ONE@) chmod 700 "$p"; rm -f "$f"; printf "0 "; "$p" version --json; exit ;; esac
done
rm -f "$p"; printf "0 is %s\\n" "${s%% *}"
exit 66
)"""

#: Debian's slim image has all that a step's script needs, but for curl and the certificates that flyctl needs too.
_DOCKERFILE = """\
FROM debian:12-slim
LABEL @LABEL@="@VERSION@"
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/*
RUN @FETCH@
"""

#: One line, by Debian's dash.
_FETCH = """\
set -e; cd /tmp; p=/usr/local/bin/flyctl;
a=$(uname -m); [ "$a" != aarch64 ] || a=arm64; f=flyctl_@VERSION@_Linux_$a.tar.gz;
@CURL@ "@URL@" -o "$f"; tar -xzOf "$f" flyctl >"$p"; sha256sum "$f" "$p"; o=;
for g in "$f" "$p"; do s=$(sha256sum <"$g"); case ",@SUMS@," in @IS_ONE@) o=1 ;; esac; done;
[ "$o" ] || { echo "flyctl has another sum than FLYSYNC_FLYCTL_SHA256"; exit 66; };
chmod 755 "$p"; rm "$f"
"""

#: The program's sum, and what the program says of itself.
_LOOK_AT_IMAGE = """{
c=$(command -v flyctl); s=$(sha256sum <"$c")
printf "%s\\n" "${s%% *}"
case ",@SUMS@," in @IS_ONE@) $t 20 "$c" version --json ;; esac; true
}"""
_LOOK_AT_IMAGE_S = 40

#: The status of a download whose sum is another.
_CHANGED = 66
_FAULTS = {
    63: "flyctl's archive could not be downloaded",
    64: "the sandbox has no sha256sum to check flyctl with",
    65: "flyctl's installer ended without an error, and there is no flyctl, neither where it was told to put it"
    " ($FLYCTL_INSTALL/bin) nor in ~/.fly/bin",
    _CHANGED: "the flyctl that was downloaded has another sum than those of FLYSYNC_FLYCTL_SHA256",
    67: "flyctl's installer failed",
    68: "flyctl's installer could not be downloaded",
    69: "the sandbox has no curl to install flyctl with",
}


def command(source: Source, limit_s: int) -> str:
    """Give the text that installs a flyctl from *source*."""
    text, url = (_DOWNLOAD, _archive_url(source)) if source.sums else (_INSTALL, source.install_url)
    text = source.checking(text).replace("@URL@", word(url).replace("@ARCH@", "$a"))
    return text.replace("@VERSION@", word(source.version)).replace("@LIMIT@", str(max(1, limit_s - _MARGIN_S)))


def _archive_url(source: Source) -> str:
    """Give the address of the archive, with @ARCH@ in it: the one that is set, if it is an archive's, else Fly's."""
    url = source.install_url if source.install_url.endswith((".tar.gz", ".tgz")) else _RELEASE_URL
    return url.replace("{version}", source.version).replace("{arch}", "@ARCH@")


@dataclass(kw_only=True, slots=True)
class Program:
    """The flyctl of a sandbox: one that is there and new enough, else one from *source*."""

    source: Source
    word: str = FOUND  #: What it is called in a script.
    is_there: bool = False  #: Until then each step looks for it first.
    told: str | None = None  #: What the look for it has printed.
    found: fly.Flyctl | None = None

    def looking(self, limit_s: int, *, finds: bool = True) -> Part:
        """Give the part that looks for it; one that *finds* fails where none is there that is new enough."""
        text = self.source.checking(_LOOK)
        return Part("look", f'{{ {text}; [ -e "$d/flyctl" ]; }}' if finds else text, limit_s, has_token=False)

    def learn(self, told: str) -> None:
        """Say which it is, by what the look for it has printed."""
        self.told = told
        for number, version in versions(told).items():
            if self.found is None and _is_new_enough(version):
                self.word = f'"$d/flyctl{number}"'
                self.found = fly.Flyctl(version=version, was_there=True, changed=_changed(told, self.source))


async def prepare(steps: Steps, program: Program) -> fly.Flyctl:
    """Find a flyctl that is new enough, or install one; give which it is."""
    if program.told is None:
        program.learn(await steps.done(program.looking(steps.limits.look_s, finds=False)))
    if program.found is None:
        program.found, program.word = await _installed(steps, program.source, program.told or ""), '"$d/flyctl0"'
    program.is_there = True
    return program.found


async def _installed(steps: Steps, source: Source, told: str) -> fly.Flyctl:
    changed, limit_s = _changed(told, source), steps.limits.install_s
    (answer,) = await steps.tried(Part("install", command(source, limit_s), limit_s, has_token=False))
    installed = versions(answer.stdout).get("0")
    if not answer.code and installed and _is_new_enough(installed):
        too_old = next(iter(versions(told).values()), None)
        return fly.Flyctl(version=installed, was_there=False, too_old=too_old, changed=changed)
    message = _FAULTS.get(answer.code, f"flyctl {source.version} could not be installed")
    if not answer.code:
        what_is_there = f"is {installed}" if installed else "does not run"
        message = f"flyctl {source.version} was installed, and what is there {what_is_there}"
    message = "; ".join(filter(None, (message, _changed(answer.stdout, source), changed)))
    if answer.code == _CHANGED:
        raise FlyctlChanged(message, service="fly", phase="install", setting="FLYSYNC_FLYCTL_SHA256")
    hint = "have flyctl in the snapshot (FLYSYNC_SNAPSHOT), or on this machine's PATH where FLYSYNC_RUNNER is local;"
    hint = f"{hint} or check FLYSYNC_FLYCTL_INSTALL_URL and FLYSYNC_EGRESS"
    if changed:
        hint = f"{FlyctlChanged.default_hint}; or {hint}"
    raise FlyctlFailed(message, hint=hint, service="fly", phase="install")


def versions(told: str) -> dict[str, str]:
    """Read what a step printed of each flyctl that answers: its number, and its version."""
    lines = re.findall("^([0-9]) (.*)$", told, re.MULTILINE)
    return {number: version for number, answer in lines if (version := _version(answer))}


def _changed(told: str, source: Source) -> str:
    """Say which flyctl was not run because of its sum, by what a step printed of it; where none is set it may lie."""
    wanted = " or ".join(f"{one[:_SHOWN]}..." for one in source.sums)
    return "; ".join(
        f"{_PLACES[int(place)]} was not run: its sum is {found[:_SHOWN]}..., not {wanted}"
        for place, found in re.findall(r"^([0-3]) is ([0-9a-f]{64})$", told, re.MULTILINE)
        if source.sums
    )


def _version(told: str) -> str | None:
    """Read the answer of `flyctl version --json`; nothing where that is not a version."""
    try:
        version = json.loads(told)["Version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return found[1] if found else None


#: Numbers and the words of a release's kind; what else stands behind them may be anything, and is not shown.
_KIND = r"(?:[-.+](?:dev|pre|stable|pr[0-9]{1,6}|[0-9]{1,12})\b)*"
_VERSION = re.compile(rf"(v?[0-9]{{1,6}}(?:\.[0-9]{{1,6}}){{2}}{_KIND})[0-9A-Za-z.+_-]{{0,64}}")
#: Where a flyctl is, by the number that a script gives the place; and how many characters are shown of a sum.
_PLACES = "the archive", "the flyctl on the PATH", "the fly on the PATH", "~/.fly/bin/flyctl"
_SHOWN = 12
#: An address without a user, and without what a shell acts on.
_PUBLIC = re.compile(r"[A-Za-z0-9_%+=:,./-]+")


def _is_new_enough(version: str) -> bool:
    """Tell whether flyctl has all that is needed; a development build (0.0.0-dev, or a date) counts as new."""
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    parts = tuple(int(part) for part in numbers.groups())
    return parts >= _OLDEST_VERSION or parts == (0, 0, 0)


@dataclass(frozen=True)
class FlyctlRecipe(Recipe):
    """flyctl on Debian, from the archive of *source*."""

    source: Source
    clock: Clock

    @override
    def dockerfile(self) -> str:
        url = _archive_url(self.source)
        if not _PUBLIC.fullmatch(url.replace("@ARCH@", "")):
            raise ConfigError(
                "FLYSYNC_FLYCTL_INSTALL_URL holds a password, or what no Dockerfile should",
                hint="Daytona keeps and shows how a snapshot was built: use an address that anybody may see",
                setting="FLYSYNC_FLYCTL_INSTALL_URL",
            )
        return (
            _DOCKERFILE.replace("@FETCH@", self.source.checking(" ".join(_FETCH.split())))
            .replace("@LABEL@", snapshot.FLYCTL_LABEL)
            .replace("@URL@", url.replace("@ARCH@", "$a"))
            .replace("@VERSION@", word(self.source.version))
        )

    @override
    async def look(self, sandbox: Sandbox, *, timeout_s: float, was_checked: bool) -> snapshot.Flyctl | None:
        clock, end_at = self.clock, self.clock.monotonic() + timeout_s
        steps = Steps(
            sandbox=sandbox, run_id=RunId(clock.new_id()), token=Secret(""), base_urls={}, clock=clock, end_at=end_at
        )
        source = replace(self.source, sums=()) if was_checked else self.source
        told = await steps.done(Part("look", source.checking(_LOOK_AT_IMAGE), _LOOK_AT_IMAGE_S, has_token=False))
        sha256, _, answer = told.partition("\n")
        is_run = not source.sums or sha256 in source.sums
        version = _version(answer) if is_run else None
        if (is_run and version is None) or not re.fullmatch("[0-9a-f]{64}", sha256):
            return None
        return snapshot.Flyctl(version=version, sha256=sha256)

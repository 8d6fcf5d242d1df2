"""
How a sandbox comes by a flyctl: one that is there and new enough, else the pinned version.

The texts are shell, run as steps (see `script`); `$d` is the run's directory, `$t` its `timeout`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.adapters.flyctl.script import Part, word
from flysync.errors import FlyctlFailed
from flysync.model.fly import Flyctl

if TYPE_CHECKING:
    from flysync.adapters.flyctl.steps import Steps

#: The first version whose `secrets list --json` has a status (flyctl.md 6).
OLDEST_VERSION = (0, 4, 6)
#: Where a release can be had from, checked against a sum; see flyctl.md 5.
RELEASE_URL = "https://github.com/superfly/flyctl/releases/download/v{version}/flyctl_{version}_Linux_{arch}.tar.gz"

#: Seconds kept of an installation's limit for what comes before and after the installer itself.
_MARGIN_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a flyctl comes from: *version*, by the script at *install_url* or by a download that has *sha256*."""

    version: str
    install_url: str
    sha256: str | None = None


LOOK = """{
n=0
for c in "$(command -v flyctl)" "$(command -v fly)" "${HOME:-$PWD}/.fly/bin/flyctl"; do
  if [ -n "$c" ] && [ -x "$c" ]; then
    n=$((n + 1)); ln -sf "$c" "$d/flyctl$n"
    printf "%s " "$n"; $t 10 "$d/flyctl$n" version --json; printf "\\n"
  fi
done; true
}"""

#: Fly's own installer; it needs curl and tar (flyctl.md 5) and is kept away from the sandbox's own ~/.fly, where one
#: that does not know FLYCTL_INSTALL puts it all the same. In a shell of its own, so that its exit is not that of the
#: step, whose answer would be lost.
_INSTALL = """(
FLYCTL_INSTALL="$d/fly"; export FLYCTL_INSTALL
command -v curl >/dev/null || exit 69
curl -fsSL --retry 2 --connect-timeout 10 "@URL@" -o "$d/install.sh" || exit 68
$t @LIMIT@ sh "$d/install.sh" @VERSION@ >/dev/null || exit 67
for c in "$d/fly/bin/flyctl" "${HOME:-$PWD}/.fly/bin/flyctl"; do
  if [ -x "$c" ]; then
    ln -sf "$c" "$d/flyctl0"; printf "0 "; "$d/flyctl0" version --json
    exit
  fi
done
exit 65
)"""

#: By direct download. The archive or the program in it must have the sum; nothing but the program is unpacked.
_DOWNLOAD = """(
command -v curl >/dev/null || exit 69
a=$(uname -m); [ "$a" != aarch64 ] || a=arm64
f="$d/flyctl.tar.gz"
curl -fsSL --retry 2 --connect-timeout 10 "@URL@" -o "$f" || exit 68
tar -xzOf "$f" flyctl >"$d/flyctl0" || exit 67
case "$(sha256sum "$f" "$d/flyctl0")" in *@SHA256@*) ;; *) rm -f "$d/flyctl0"; exit 66 ;; esac
chmod 700 "$d/flyctl0"; rm -f "$f"
printf "0 "; "$d/flyctl0" version --json
)"""

_FAULTS = {
    65: "flyctl's installer ended without an error, and there is no flyctl, neither where it was told to put it"
    " ($FLYCTL_INSTALL/bin) nor in ~/.fly/bin",
    66: "the flyctl that was downloaded does not have the sum in FLYSYNC_FLYCTL_SHA256",
    67: "flyctl's installer failed",
    68: "flyctl's installer could not be downloaded",
    69: "the sandbox has no curl to install flyctl with",
}


def command(source: Source, limit_s: int) -> str:
    """Give the text that installs a flyctl from *source*."""
    text, url = _INSTALL, source.install_url
    if source.sha256:
        text = _DOWNLOAD.replace("@SHA256@", word(source.sha256.lower()))
        url = archive_url(source)
    text = text.replace("@URL@", word(url).replace("@ARCH@", "$a")).replace("@VERSION@", word(source.version))
    return text.replace("@LIMIT@", str(max(1, limit_s - _MARGIN_S)))


def archive_url(source: Source) -> str:
    """Give the address of the archive, with @ARCH@ in it: the one that is set, if it is an archive's, else Fly's."""
    url = source.install_url if source.install_url.endswith((".tar.gz", ".tgz")) else RELEASE_URL
    return url.replace("{version}", source.version).replace("{arch}", "@ARCH@")


async def prepared(steps: Steps, source: Source) -> tuple[str, Flyctl]:
    """
    Find a flyctl that is new enough, or install one; give the word for it in a script, and which it is.

    Raises:
        FlyctlFailed, DaytonaUnavailable, RateLimited, TimedOut: there is none.
    """
    told = await steps.done(Part("look", LOOK, steps.limits.look_s, has_token=False))
    if found := newest_enough(told):
        number, its_version = found
        return f'"$d/flyctl{number}"', Flyctl(version=its_version, was_there=True)
    limit_s = steps.limits.install_s
    (answer,) = await steps.tried(Part("install", command(source, limit_s), limit_s, has_token=False))
    found = newest_enough(answer.stdout)
    if answer.code or not found:
        raise _failure(answer.code, source.version, version_of(answer.stdout.partition(" ")[2]))
    others = [version for line in told.splitlines() if (version := version_of(line.partition(" ")[2]))]
    return '"$d/flyctl0"', Flyctl(version=found[1], was_there=False, too_old=others[0] if others else None)


def newest_enough(told: str) -> tuple[str, str] | None:
    """Find in what a step printed the first flyctl that is new enough: its number and its version."""
    for line in told.splitlines():
        number, _, answer = line.partition(" ")
        version = version_of(answer)
        if version and _is_new_enough(version):
            return number, version
    return None


def version_of(told: str) -> str | None:
    """Read the answer of `flyctl version --json`; nothing where that is no version."""
    try:
        version = json.loads(told)["Version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return version if isinstance(version, str) and len(version) <= _LONGEST else None


def _failure(code: int, wanted: str, installed: str | None) -> FlyctlFailed:
    """Give the error for an installation that ended with *code*."""
    message = _FAULTS.get(code, f"flyctl {wanted} could not be installed")
    if not code:
        message = (
            f"flyctl {wanted} was installed, and what is there {f'is {installed}' if installed else 'does not run'}"
        )
    return FlyctlFailed(
        message,
        hint="use a snapshot that has flyctl (FLYSYNC_SNAPSHOT), or check FLYSYNC_FLYCTL_INSTALL_URL",
        service="fly",
        phase="install",
    )


#: A version that is longer is none: no release's is, and it is shown.
_LONGEST = 64


def _is_new_enough(version: str) -> bool:
    """Tell whether flyctl has all that is needed; a development build (0.0.0-dev, or a date) counts as new."""
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    parts = tuple(int(part) for part in numbers.groups())
    return parts >= OLDEST_VERSION or parts == (0, 0, 0)

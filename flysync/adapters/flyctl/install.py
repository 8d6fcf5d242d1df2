"""
How a sandbox comes by a flyctl: one that is there and new enough, else the pinned version; and how a snapshot does.

The texts are shell, run as steps (see `script`); `$d` is the run's directory, `$t` its `timeout`. Daytona keeps and
shows the Dockerfile of a snapshot: nothing secret may be in it, and nothing of the project is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import override

from flysync.adapters.flyctl.script import Part, word
from flysync.adapters.flyctl.steps import Steps
from flysync.errors import ConfigError, FlyctlFailed
from flysync.model import fly, snapshot
from flysync.model.core import RunId
from flysync.ports import Recipe
from flysync.secret import Secret

if TYPE_CHECKING:
    from flysync.ports import Clock, Sandbox

#: The first version whose `secrets list --json` has a status (flyctl.md 6).
_OLDEST_VERSION = (0, 4, 6)
#: Where a release can be had from, checked against a sum; see flyctl.md 5.
_RELEASE_URL = "https://github.com/superfly/flyctl/releases/download/v{version}/flyctl_{version}_Linux_{arch}.tar.gz"

#: Seconds kept of an installation's limit for what comes before and after the installer itself.
_MARGIN_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a flyctl comes from: *version*, by the script at *install_url* or by a download that has *sha256*."""

    version: str
    install_url: str
    sha256: str | None = None


_LOOK = """{
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

#: Debian's slim image has all that a step's script needs, but for curl and the certificates that flyctl needs too.
_DOCKERFILE = """\
FROM debian:12-slim
LABEL @LABEL@="@VERSION@"
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/*
RUN @FETCH@
"""

#: One line, by Debian's dash. The archive's sum and name stay beside the program: it may be the sum that is set.
_FETCH = """\
set -e; cd /tmp; p=/usr/local/bin/flyctl;
a=$(uname -m); [ "$a" != aarch64 ] || a=arm64; f=flyctl_@VERSION@_Linux_$a.tar.gz;
curl -fsSL --retry 2 --connect-timeout 10 "@URL@" -o "$f"; tar -xzOf "$f" flyctl >"$p";
case "$(sha256sum "$f" "$p")" in *@SHA256@*) ;;
*) echo "flyctl has another sum than FLYSYNC_FLYCTL_SHA256"; exit 66 ;; esac;
sha256sum "$f" >"$p.sha256"; chmod 755 "$p"; rm "$f"
"""

#: Three parts: the program's sum, the archive's, and what the program says of itself.
_LOOK_AT_IMAGE = """{
c=$(command -v flyctl); s=$(sha256sum "$c"); f=$(cat "$c.sha256" 2>/dev/null)
printf "%s\\n%s\\n" "${s%% *}" "${f%% *}"
$t 20 "$c" version --json; true
}"""
#: Seconds for it.
_LOOK_AT_IMAGE_S = 40

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
        url = _archive_url(source)
    text = text.replace("@URL@", word(url).replace("@ARCH@", "$a")).replace("@VERSION@", word(source.version))
    return text.replace("@LIMIT@", str(max(1, limit_s - _MARGIN_S)))


def _archive_url(source: Source) -> str:
    """Give the address of the archive, with @ARCH@ in it: the one that is set, if it is an archive's, else Fly's."""
    url = source.install_url if source.install_url.endswith((".tar.gz", ".tgz")) else _RELEASE_URL
    return url.replace("{version}", source.version).replace("{arch}", "@ARCH@")


async def prepared(steps: Steps, source: Source) -> tuple[str, fly.Flyctl]:
    """
    Find a flyctl that is new enough, or install one; give the word for it in a script, and which it is.

    Raises:
        FlyctlFailed, DaytonaUnavailable, RateLimited, TimedOut: there is none.
    """
    there = versions(await steps.done(Part("look", _LOOK, steps.limits.look_s, has_token=False)))
    for number, version in there.items():
        if _is_new_enough(version):
            return f'"$d/flyctl{number}"', fly.Flyctl(version=version, was_there=True)
    limit_s = steps.limits.install_s
    (answer,) = await steps.tried(Part("install", command(source, limit_s), limit_s, has_token=False))
    installed = versions(answer.stdout).get("0")
    if not answer.code and installed and _is_new_enough(installed):
        return '"$d/flyctl0"', fly.Flyctl(version=installed, was_there=False, too_old=next(iter(there.values()), None))
    message = _FAULTS.get(answer.code, f"flyctl {source.version} could not be installed")
    if not answer.code:
        what_is_there = f"is {installed}" if installed else "does not run"
        message = f"flyctl {source.version} was installed, and what is there {what_is_there}"
    hint = "use a snapshot that has flyctl (FLYSYNC_SNAPSHOT), or check FLYSYNC_FLYCTL_INSTALL_URL"
    raise FlyctlFailed(message, hint=hint, service="fly", phase="install")


def versions(told: str) -> dict[str, str]:
    """Read what a step printed of each flyctl that answers: its number, and its version."""
    lines = (line.partition(" ") for line in told.splitlines())
    return {number: version for number, _, answer in lines if (version := _version(answer))}


def _version(told: str) -> str | None:
    """Read the answer of `flyctl version --json`; nothing where that is no version."""
    try:
        version = json.loads(told)["Version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return version if isinstance(version, str) and len(version) <= _LONGEST else None


#: A version that is longer is none: no release's is, and it is shown.
_LONGEST = 64


def _is_new_enough(version: str) -> bool:
    """Tell whether flyctl has all that is needed; a development build (0.0.0-dev, or a date) counts as new."""
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    parts = tuple(int(part) for part in numbers.groups())
    return parts >= _OLDEST_VERSION or parts == (0, 0, 0)


class FlyctlRecipe(Recipe):
    """flyctl on Debian, from the archive of *source*."""

    def __init__(self, source: Source, *, clock: Clock) -> None:
        self._source = source
        self._clock = clock

    @override
    def dockerfile(self) -> str:
        url = _archive_url(self._source)
        try:
            is_fit = word(url) and urlsplit(url).username is None
        except ValueError:
            is_fit = False
        if not is_fit:
            raise ConfigError(
                "FLYSYNC_FLYCTL_INSTALL_URL holds a password, or what no Dockerfile should",
                hint="Daytona keeps and shows how a snapshot was built: use an address that anybody may see",
                setting="FLYSYNC_FLYCTL_INSTALL_URL",
            )
        return (
            _DOCKERFILE.replace("@FETCH@", " ".join(_FETCH.split()))
            .replace("@LABEL@", snapshot.FLYCTL_LABEL)
            .replace("@URL@", url.replace("@ARCH@", "$a"))
            .replace("@SHA256@", word(sha256.lower()) if (sha256 := self._source.sha256) else "")
            .replace("@VERSION@", word(self._source.version))
        )

    @override
    async def look(self, sandbox: Sandbox, *, timeout_s: float) -> snapshot.Flyctl | None:
        steps = Steps(
            sandbox=sandbox,
            run_id=RunId(self._clock.new_id()),
            token=Secret(""),
            base_urls={},
            clock=self._clock,
            end_at=self._clock.monotonic() + timeout_s,
        )
        told = await steps.done(Part("look", _LOOK_AT_IMAGE, _LOOK_AT_IMAGE_S, has_token=False))
        sha256, archive_sha256, answer = (*told.split("\n", 2), "", "", "")[:3]
        if (version := _version(answer)) is None:
            return None
        return snapshot.Flyctl(version=version, sha256=sha256, archive_sha256=archive_sha256 or None)

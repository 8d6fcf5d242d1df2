"""
How a snapshot of ours comes by its flyctl, and how it is looked for there.

The archive is the one that a direct download in a sandbox takes (see `install`). Daytona keeps the Dockerfile
and shows it: nothing secret may be in it, and nothing of the project is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flysync.adapters.flyctl import install
from flysync.adapters.flyctl.script import Part, word
from flysync.adapters.flyctl.steps import Steps
from flysync.errors import ConfigError
from flysync.model.core import RunId
from flysync.model.snapshot import FLYCTL_LABEL, Flyctl
from flysync.secret import Secret

if TYPE_CHECKING:
    from flysync.adapters.flyctl.install import Source
    from flysync.ports import Clock, Sandbox

_LOOK_S = 40

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
_LOOK = """{
c=$(command -v flyctl); s=$(sha256sum "$c"); f=$(cat "$c.sha256" 2>/dev/null)
printf "%s\\n%s\\n" "${s%% *}" "${f%% *}"
$t 20 "$c" version --json; true
}"""


class FlyctlRecipe:
    """flyctl on Debian (port `Recipe`), from the archive of *source*."""

    def __init__(self, source: Source, *, clock: Clock) -> None:
        self._source = source
        self._clock = clock

    def dockerfile(self) -> str:
        """Give the Dockerfile."""
        url = install.archive_url(self._source)
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
            .replace("@LABEL@", FLYCTL_LABEL)
            .replace("@URL@", url.replace("@ARCH@", "$a"))
            .replace("@SHA256@", word(sha256.lower()) if (sha256 := self._source.sha256) else "")
            .replace("@VERSION@", word(self._source.version))
        )

    async def look(self, sandbox: Sandbox, *, timeout_s: float) -> Flyctl | None:
        """Run what is on the PATH, as a step without a token."""
        steps = Steps(
            sandbox=sandbox,
            run_id=RunId(self._clock.new_id()),
            token=Secret(""),
            base_urls={},
            clock=self._clock,
            end_at=self._clock.monotonic() + timeout_s,
        )
        told = await steps.done(Part("look", _LOOK, _LOOK_S, has_token=False))
        sha256, archive_sha256, answer = (*told.split("\n", 2), "", "", "")[:3]
        version = install.version_of(answer)
        return Flyctl(version=version, sha256=sha256, archive_sha256=archive_sha256 or None) if version else None

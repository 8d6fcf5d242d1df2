"""
Fly's installer of flyctl, simulated: the script, the address of a release, and its tarball.

The interface is that of Fly's own script (read: its last version in the flyctl repository; reference: flyctl.md 5).
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import io
import re
import tarfile
from typing import TYPE_CHECKING

from aiohttp import web

from flysync.sim import flyctl as stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.loopback import Loopback

_SCRIPT = """\
#!/bin/sh
set -e
version=latest
for arg in "$@"; do
  case "$arg" in
    --non-interactive|--setup-path) ;;
    latest|pre|prerel|v[0-9]*|[0-9]*) version=$arg ;;
    *) echo "Error: invalid argument: $arg" 1>&2; exit 1 ;;
  esac
done
release=$(uname -s)/$(uname -m)/$version
address=$(curl -s "@URL@/app/flyctl_releases/$release")
[ "$address" ] || { echo "Error: Unable to find a flyctl release for $release" 1>&2; exit 1; }
home=${FLYCTL_INSTALL:-$HOME/.fly}
mkdir -p "$home/bin"
curl -q --fail --location --output "$home/flyctl.tar.gz" "$address"
tar -C "$home/bin" -xzf "$home/flyctl.tar.gz"
rm "$home/flyctl.tar.gz"
ln -sf "$home/bin/flyctl" "$home/bin/fly"
"$home/bin/flyctl" version -s shell
echo "flyctl was installed successfully to $home/bin/flyctl"
"""


def tarball(version: str, executable: Path | None) -> bytes:
    """Give the release tarball of *version*: *executable* as `flyctl`, or the stand-in saying it is that version."""
    return _packed(executable, executable.stat().st_mtime_ns) if executable else _packed(version)


def routes(server: Loopback, executable: Path | None) -> list[web.RouteDef]:
    """Give the routes that the installer and those who bypass it use; addresses point back at *server*."""

    async def script(_: web.Request) -> web.StreamResponse:
        return web.Response(text=_SCRIPT.replace("@URL@", server.url), content_type="text/x-shellscript")

    async def address(request: web.Request) -> web.StreamResponse:
        """Answer with a tarball's address, or with nothing for a version that cannot be (read: flyctl.md 5)."""
        os, arch, version = (request.match_info[key] for key in ("os", "arch", "version"))
        version = stand_in.VERSION if version in ("latest", "pre", "prerel") else version.removeprefix("v")
        is_one = re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version)
        return web.Response(text=f"{server.url}/flyctl/flyctl_{version}_{os}_{arch}.tar.gz" if is_one else "")

    async def download(request: web.Request) -> web.StreamResponse:
        data = await asyncio.to_thread(tarball, request.match_info["version"], executable)
        return web.Response(body=data, content_type="application/gzip")

    return [
        web.get("/install.sh", script),
        web.get("/app/flyctl_releases/{os}/{arch}/{version}", address),
        web.get("/flyctl/flyctl_{version:[^_/]+}_{os:[^_/]+}_{arch:[^/]+}.tar.gz", download),
    ]


@functools.lru_cache(maxsize=1)
def _packed(source: Path | str, _modified_ns: int = 0) -> bytes:
    """Make a tarball, once for each state of a file (the real one has 113 MB); equal content gives equal bytes."""
    content = stand_in.launcher_text(source).encode() if isinstance(source, str) else source.read_bytes()
    buffer, member = io.BytesIO(), tarfile.TarInfo("flyctl")
    member.size, member.mode = len(content), 0o755
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), compresslevel=1, mtime=0)

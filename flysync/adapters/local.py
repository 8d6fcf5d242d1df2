"""
Sandboxes on this machine: each is a private directory, and the processes that were started with it as their home.

There is no isolation: who may read /proc as this user sees the values in flyctl's arguments for as long as it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from typing_extensions import override

from flysync.errors import ConfigError, DaytonaUnavailable, SandboxNotFound, TimedOut
from flysync.model.core import RunId, SandboxInfo
from flysync.ports import LOCAL, AnswerLost, NotSent, Sandbox, Sandboxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.secret import Secret

_PROC = Path("/proc")
_ABOUT = "about.json"
#: A directory that is being removed: nothing starts in it any more.
_GOING = ".going-"
_PAUSE_S = 0.004
_EMPTY_LOOKS = 2
#: All that a sandbox gets of this process' environment.
_PASSED_ON = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE")
#: A process that was frozen before it started this must not make the directory again.
_STILL_THERE = '[ -d "$HOME" ] || exit 0\n'


def _place(base: Path) -> str:
    """
    Give what the names of local sandboxes end with: one directory of one user, in one boot and container of a machine.

    Only there can a sandbox and all its processes be found; that a machine was restarted is not known anywhere else.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        at = base.stat()
        pids = (_PROC / "self/ns/pid").readlink()
    except OSError:
        message = "the local runner needs Linux and its /proc"
        raise ConfigError(message, hint="leave out --runner local", setting="FLYSYNC_RUNNER") from None
    told = f"{boot} {pids} {os.uname().nodename} {os.getuid()} {at.st_dev} {at.st_ino}"
    return LOCAL + hashlib.sha256(told.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class _About:
    """What the maker of a sandbox said of it."""

    name: str
    labels: Mapping[str, str]
    ttl_s: int


class LocalSandbox(Sandbox):
    """The directory *root*, and scripts that run there."""

    def __init__(self, root: Path) -> None:
        self.id = root.name
        self._root = root

    @override
    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        passed_on = {name: os.environ[name] for name in (*_PASSED_ON, *_CERTIFICATES) if name in os.environ}
        own = {"HOME": str(self._root), "TMPDIR": str(self._root)}
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=passed_on | own | {name: secret.reveal() for name, secret in env.items()},
                cwd=self._root,
                start_new_session=True,
            )
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise NotSent(DaytonaUnavailable(f"the local sandbox cannot run: {reason}", phase="exec")) from None
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate((_STILL_THERE + script).encode())
        except TimeoutError:
            raise AnswerLost(TimedOut(f"nothing was answered in {timeout_s} s", phase="exec")) from None
        finally:
            with suppress(ProcessLookupError):
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        return output.decode("utf-8", "replace")


class LocalSandboxes(Sandboxes):
    """Sandboxes below *base*, a directory of this user's own; by default in the system's for temporary files."""

    def __init__(self, base: Path | None = None) -> None:
        self._base = base or Path(tempfile.gettempdir()) / f"flysync-{os.getuid()}"

    @property
    @override
    def place(self) -> str:
        self._own_base()
        return _place(self._base)

    @override
    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> LocalSandbox:
        """See the port; its steps end by their own limits, and the directory stays until somebody removes it."""
        try:
            if found := self._found(name):
                return LocalSandbox(found)
            self._own_base()
            root = self._base / uuid4().hex
            root.mkdir(mode=0o700)
            about = _About(name=name, labels=dict(labels), ttl_s=ceil(ttl_s))
            new = root / f"{_ABOUT}.new"
            new.write_text(json.dumps(asdict(about)))
            new.rename(root / _ABOUT)
        except OSError as error:
            raise self._unusable(error) from None
        return LocalSandbox(root)

    @override
    def may_come(self, name: str) -> bool:
        return False

    @override
    def reaches(self, name: str) -> bool:
        return name.endswith(self.place)

    @override
    async def attach(self, sandbox_id: str, *, timeout_s: float) -> LocalSandbox:
        if root := self._found(sandbox_id):
            return LocalSandbox(root)
        hint = "check --sandbox, and --runner"
        raise SandboxNotFound("there is no such sandbox on this machine", hint=hint, service="daytona", phase="attach")

    @override
    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        root = self._found(name)
        if root is None:
            return False
        going = root.with_name(_GOING + root.name)
        with suppress(FileNotFoundError):  # somebody else removes it; what runs there is killed all the same
            root.rename(going)
        await asyncio.to_thread(_kill_all, root, timeout_s)
        await asyncio.to_thread(shutil.rmtree, going, ignore_errors=True)
        return True

    @override
    async def list(self) -> Sequence[SandboxInfo]:
        return [_info(root, about) for root, about in self._all() if about.labels.get("app") == "flysync"]

    def _unusable(self, error: OSError) -> ConfigError:
        message = f"no sandbox can be made in {self._base}: {os.strerror(error.errno or 0)}"
        return ConfigError(message, hint="set TMPDIR to a directory of your own", setting="TMPDIR")

    def _own_base(self) -> None:
        try:
            self._base.mkdir(mode=0o700, exist_ok=True)
            found = self._base.lstat()
        except OSError as error:
            raise self._unusable(error) from None
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
            message = f"{self._base} is not a directory of this user's alone"
            raise ConfigError(message, hint="remove it, or set TMPDIR to another place", setting="TMPDIR")

    def _all(self) -> Sequence[tuple[Path, _About]]:
        found = []
        for about in self._base.glob(f"*/{_ABOUT}"):
            with suppress(OSError, ValueError, TypeError):
                found.append((about.parent, _About(**json.loads(about.read_text()))))
        return found

    def _found(self, key: str) -> Path | None:
        """Give a sandbox's directory by id or name, one that is being removed as it was called before."""
        for root, about in self._all():
            sandbox_id = root.name.removeprefix(_GOING)
            if key in (sandbox_id, about.name):
                return root.with_name(sandbox_id)
        return None


def _info(root: Path, about: _About) -> SandboxInfo:
    labels = about.labels
    return SandboxInfo(
        id=root.name.removeprefix(_GOING),
        name=about.name,
        run_id=RunId(labels.get("flysync-run", "")),
        app=labels.get("flysync-app", ""),
        state="started",
        created_at=datetime.fromtimestamp(root.stat().st_ctime, UTC),
        ttl_s=about.ttl_s,
    )


def _kill_all(root: Path, within_s: float) -> None:
    """Kill every process that has *root* as its home, whatever group it is in, until two looks find none."""
    end_at, empty = time.monotonic() + within_s, 0
    marker = b"HOME=" + os.fsencode(root) + b"\0"
    while empty < _EMPTY_LOOKS:  # a process in the middle of its exec shows an empty environment for a moment
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal() and _has(entry, marker)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        empty = 0 if pids else empty + 1
        if time.monotonic() > end_at:
            raise TimedOut("processes of a local sandbox do not end", phase="delete")
        time.sleep(_PAUSE_S)


def _has(process: Path, marker: bytes) -> bool:
    try:
        return marker in b"\0" + (process / "environ").read_bytes()
    except OSError:
        return False

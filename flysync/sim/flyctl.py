"""
A stand-in for flyctl, for the demo and for tests: the good day, and the few refusals that they need.

It knows what flysync asks (`secrets set|unset|deploy|list`, `machine list|start`, `status`, `version`, `auth whoami`),
sends what flyctl ad0172fac sends and prints what it prints (flyctl-transcripts.txt), to a simulated Fly only. It tries
nothing twice but a lease. What the real one does beyond that is recorded (`tests/flyctl_recordings.py`).
Imported are only light modules of the standard library: a call is to take less than 80 ms.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flysync.sim import flyctl_deploy
from flysync.sim.flyctl_client import Client, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

#: What it says its version is, unless the launcher says otherwise.
VERSION = "0.4.87"

_STAGED = (
    "Secrets have been staged, but not set on VMs. "
    "Deploy or update machines in this app for the secrets to take effect."
)
#: The flags that it takes, and whether they want a value.
_FLAGS = {"app": True, "saveinstall": True, "json": False, "stage": False, "detach": False, "dns-checks": False}
#: With more machines than this, a list of secrets shows no status (flyctl.md 1.6).
_MOST_MACHINES = 100


def main(version: str = VERSION) -> None:
    """Run the command in this process's arguments, and exit as flyctl does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(127))  # it prints nothing, and keeps its leases (measured)
    try:
        words, flags = _parsed([os.fsencode(argument).decode("utf-8", "replace") for argument in sys.argv[1:]])
        length = 2 if " ".join(words[:2]) in _COMMANDS else 1
        do = _COMMANDS.get(" ".join(words[:length]), _refuse)
        do(Client(os.environ, flags=flags, version=version), words[length:])
    except Failure as failure:
        print(f"Error: {failure}", file=sys.stderr, flush=True)
        sys.exit(1)


def launcher(path: Path, *, version: str = VERSION) -> Path:
    """Write an executable at *path* that runs the stand-in from anywhere, and give the path."""
    path.write_text(launcher_text(version), encoding="utf-8")
    path.chmod(0o755)
    return path


def launcher_text(version: str = VERSION) -> str:
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
        "    package = type(sys)(name)\n    package.__path__ = [path]\n    sys.modules[name] = package\n"
        f"from flysync.sim.flyctl import main\nmain({json.dumps(version)})\n"
    )
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -X utf8 -c {shlex.quote(code)} "$@"\n'


def rows(
    secrets: Sequence[Mapping[str, str]], machines: Sequence[Mapping[str, Any]], releases: Iterable[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """
    Give what a list says of *secrets* where these are the *machines* that count and their *releases*.

    A status goes by times alone: a secret is deployed to a machine whose release is younger (flyctl.md 1.6).
    """
    listed = [{"name": secret["name"], "digest": secret["digest"]} for secret in secrets]
    if len(machines) > _MOST_MACHINES:
        return listed
    created = {str(release["version"]): release["created_at"] for release in releases}
    started = [created.get(flyctl_deploy.metadata(machine).get("fly_release_version", ""), "") for machine in machines]
    for row, secret in zip(listed, secrets, strict=True):
        has = [secret["updated_at"] <= at for at in started]
        row["status"] = ("Deployed" if all(has) else "Partial") if any(has) else "Staged"
    return listed


def shown(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Give a machine as `--json` shows it: what is false, 0 or empty is left out, but in its config (measured)."""
    filled = {key: value if key.endswith("config") else _filled(value) for key, value in machine.items() if value}
    return {"cordoned": False, **filled}


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value


def _parsed(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Give the words and the flags of a command line; after `--` all are words."""
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(argv)
    for argument in rest:
        if argument == "--":
            words += rest
        elif found := re.fullmatch(r"--([a-z-]+)(=.*)?|-([a-z])", argument, re.DOTALL):
            name = found[1] or next((flag for flag in _FLAGS if flag[0] == found[3]), "")
            if name not in _FLAGS:
                raise Failure(f"unknown flag: {argument}")
            flags[name] = found[2][1:] if found[2] else next(rest, "") if _FLAGS[name] else "true"
        else:
            words.append(argument)
    return words, flags


def _set_secrets(client: Client, arguments: Sequence[str]) -> None:
    """Store the values in the arguments; that of `NAME=-` is on standard input (flyctl.md 1.4)."""
    values: dict[str, str | None] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise Failure(f"could not parse secrets: '{argument}': must be in the format NAME=VALUE")
        values[name] = sys.stdin.read().strip() if value == "-" else value
    _update(client, values)


def _update(client: Client, values: Mapping[str, str | None]) -> None:
    app = client.graphql("appcompact")["appcompact"]
    body = {"values": dict(sorted(values.items()))}
    failing = "update secrets: failed to update app secrets"
    client.remember(client.machines("POST", "/secrets", body, failing=failing)["version"])
    if "stage" in client.flags:
        print(_STAGED, flush=True)
    else:
        flyctl_deploy.roll_out(client, app)


def _list_secrets(client: Client, _: Sequence[str]) -> None:
    known = client.known_version()
    path = "/secrets" if known is None else f"/secrets?version={known}"
    secrets = client.machines("GET", path, failing="failed to list app secrets")["secrets"]
    machines, releases = [], []
    with suppress(Failure):  # then nothing counts as deployed (flyctl.md 1.6)
        machines = flyctl_deploy.managed_machines(client)
        if 0 < len(machines) <= _MOST_MACHINES:
            path = f"apps/{client.app}/releases?limit=20"
            releases = client.releases("GET", path, failing="failed to list releases")["releases"]
    _print(rows(secrets, machines, releases))


def _refuse(_: Client, words: Sequence[str]) -> None:
    raise Failure(f'unknown command "{" ".join(words)}" for the stand-in for flyctl')


def _list_machines(client: Client, _: Sequence[str]) -> None:
    _print([shown(machine) for machine in client.machines("GET", "/machines", failing="failed to list VMs")])


def _show_status(client: Client, _: Sequence[str]) -> None:
    app = client.graphql("appcompact", failing="failed to get app: ")["appcompact"]
    machines = client.machines("GET", "/machines", failing="failed to list active VMs")
    release = client.graphql("currentRelease")["app"]["currentRelease"] or {"version": 0}
    told = {"Name": app["name"], "Deployed": app["deployed"], "Version": release["version"]}
    _print({**told, "Machines": [shown(machine) for machine in machines]})


def _show_viewer(client: Client, _: Sequence[str]) -> None:
    _print({"email": client.graphql("viewer", failing="failed retrieving current user: ")["viewer"]["email"]})


def _show_version(client: Client, _: Sequence[str]) -> None:
    if "saveinstall" in client.flags:  # what the installer asks
        client.configure("auto_update: true\n")
        print(f"set update channel to {client.flags['saveinstall']}", file=sys.stderr, flush=True)
        return
    told = {"Name": "flyctl", "Version": client.version, "Commit": "ad0172face303b77584eea95b46fa3ddc61d5ddd"}
    told |= {"BranchName": "", "BuildDate": "2026-08-21T00:00:00Z", "OS": "linux", "Architecture": "amd64"}
    told |= {"Environment": "production"}
    print(json.dumps(told, separators=(",", ":")), flush=True)


def _print(what: object) -> None:
    print(json.dumps(what, indent=4, ensure_ascii=False), flush=True)


_COMMANDS: dict[str, Callable[[Client, Sequence[str]], None]] = {
    "secrets set": _set_secrets,
    "secrets unset": lambda client, names: _update(client, dict.fromkeys(names)),
    "secrets list": _list_secrets,
    "secrets deploy": flyctl_deploy.deploy,
    "machine list": _list_machines,
    "machine start": flyctl_deploy.start,
    "status": _show_status,
    "auth whoami": _show_viewer,
    "version": _show_version,
}

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

from flysync.sim.flyctl_client import Client, Failure, leased, managed_machines, metadata, update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

#: What it says its version is, unless the launcher says otherwise.
VERSION = "0.4.87"

#: Seconds that a machine may take to start, and to be healthy, where its app does not say (read: deploy/machines.go).
_WAIT = "300s"
_NO_MACHINES = """\
no machines available to deploy
'fly secrets deploy' will only work if the app has been deployed and there are machines available

Try 'fly deploy' first
"""
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
        do = _COMMANDS[" ".join(words[:length])]
        do(Client(os.environ, flags=flags, version=version), words[length:])
    except Failure as failure:
        print(f"Error: {failure}", file=sys.stderr)
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
        f"import sys\nsys.stdout.reconfigure(line_buffering=True)\nfor name, path in {json.dumps(packages)}.items():\n"
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
    started = [created.get(metadata(machine).get("fly_release_version", ""), "") for machine in machines]
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
            flags[name] = found[2][1:] if found[2] else next(rest, "") if _FLAGS[name] else "true"
        else:
            words.append(argument)
    return words, flags


def _set_secrets(client: Client, arguments: Sequence[str]) -> None:
    """Store the values in the arguments; that of `NAME=-` is on standard input (flyctl.md 1.4)."""
    values: dict[str, str | None] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        values[name] = sys.stdin.read().strip() if value == "-" else value
    _store(client, values)


def _store(client: Client, values: Mapping[str, str | None]) -> None:
    app = client.graphql("appcompact")["appcompact"]
    body = {"values": dict(sorted(values.items()))}
    failing = "update secrets: failed to update app secrets"
    client.remember(client.machines("POST", "/secrets", body, failing=failing)["version"])
    if "stage" in client.flags:
        print(_STAGED)
    else:
        _roll_out(client, app)


def _list_secrets(client: Client, _: Sequence[str]) -> None:
    known = client.known_versions().get(client.app)
    path = "/secrets" if known is None else f"/secrets?version={known}"
    secrets = client.machines("GET", path, failing="failed to list app secrets")["secrets"]
    machines, releases = [], []
    with suppress(Failure):  # then nothing counts as deployed (flyctl.md 1.6)
        machines = managed_machines(client)
        if 0 < len(machines) <= _MOST_MACHINES:
            path = f"apps/{client.app}/releases?limit=20"
            releases = client.releases("GET", path, failing="failed to list releases")["releases"]
    _print(rows(secrets, machines, releases))


def _deploy(client: Client, _: Sequence[str]) -> None:
    """Roll out what is stored."""
    app = client.graphql("appcompact")["appcompact"]
    if not managed_machines(client) or not app["deployed"]:
        raise Failure(_NO_MACHINES)
    _roll_out(client, app)


def _roll_out(client: Client, app: Mapping[str, Any]) -> None:
    """
    Restart the machines with the newest secrets that the configuration directory knows of.

    The first machine that does not come up ends it, and the others are left as they are.
    """
    if not managed_machines(client) and not app["deployed"]:
        print("Secrets are staged for the first deployment")
        return
    definition = client.graphql("FlyctlConfigCurrentRelease")["app"]["currentReleaseUnprocessed"]["configDefinition"]
    client.machines("GET", "", failing="error getting app")
    machines = sorted(managed_machines(client), key=lambda one: (one["state"] == "started", one["id"]))
    image = client.graphql("LatestImage")["app"]["currentReleaseUnprocessed"]["imageRef"]
    made = {"app_name": client.app, "build_id": 0, "definition": definition, "image": image, "strategy": "ROLLING"}
    release = client.releases("POST", "releases", made, failing="failed to create release")["release"]
    _tell(client, release, "running", None)
    info = {"flyctl_version": client.version, "error": ""}
    wait = (definition.get("deploy") or {}).get("wait_timeout", _WAIT)
    try:
        _update_all(client, machines, release, wait_s=float(wait.removesuffix("s")))
    except Failure as failure:
        with suppress(Failure):  # only a warning
            _tell(client, release, "failed", {"post_deployment_info": {**info, "error": str(failure).splitlines()[0]}})
        raise
    with suppress(Failure):
        _tell(client, release, "complete", {"post_deployment_info": info})
    if os.environ.get("FLY_EMIT_RELEASE_JSON"):
        told = {"id": release["id"], "version": release["version"], "image_ref": image}
        print(json.dumps(told, separators=(",", ":")))


def _tell(client: Client, release: Mapping[str, Any], status: str, told: object) -> None:
    """Say how a release is doing."""
    failing = f"failed to set release status to '{status}': failed to update release"
    client.releases("PATCH", f"releases/{release['id']}", {"metadata": told, "status": status}, failing=failing)


def _update_all(
    client: Client, machines: Sequence[dict[str, Any]], release: Mapping[str, Any], *, wait_s: float
) -> None:
    """Lease all machines, and update one after the other."""
    nonces: dict[str, str] = {}
    try:
        for machine in machines:
            nonces[machine["id"]] = leased(client, machine["id"], ttl_s=13)
        print(f"Updating existing machines in '{client.app}' with rolling strategy")
        for number, machine in enumerate(machines, 1):
            mark = f"[{number}/{len(machines)}] " if len(machines) > 1 else ""
            label = f"{machine['id']} [{metadata(machine).get('fly_process_group', 'app')}]"
            print(f"> {mark}Updating {label}\n> {mark}Updating {label}")
            try:
                update(client, machine, release, nonces[machine["id"]], mark=mark, label=label, wait_s=wait_s)
            except Failure as failure:
                print(f"✖ {mark}Machine {label} update failed: {str(failure).splitlines()[0]}")
                raise
            print(f"✔ {mark}Machine {label} update succeeded")
    finally:
        for name, nonce in nonces.items():
            with suppress(Failure):
                client.machines("DELETE", f"/machines/{name}/lease", nonce=nonce, failing="")


def _start(client: Client, names: Sequence[str]) -> None:
    """Start machines, under a lease of each; how they fare then is not looked at."""
    for name in names:
        client.machines("GET", f"/machines/{name}", failing=f"could not get machine {name}: failed to get VM {name}")
    for name in names:
        nonce = leased(client, name, ttl_s=120)
        failing = f"could not start machine {name}: failed to start VM {name}"
        try:
            client.machines("POST", f"/machines/{name}/start", nonce=nonce, failing=failing)
        finally:
            client.machines("DELETE", f"/machines/{name}/lease", nonce=nonce, failing="failed to release lease")
        print(f"{name} has been started")


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
        print(f"set update channel to {client.flags['saveinstall']}", file=sys.stderr)
        return
    told = {"Name": "flyctl", "Version": client.version, "Commit": "ad0172face303b77584eea95b46fa3ddc61d5ddd"}
    told |= {"BuildDate": "2026-08-21T00:00:00Z", "OS": "linux", "Architecture": "amd64"}
    print(json.dumps(told, separators=(",", ":")))


def _print(what: object) -> None:
    print(json.dumps(what, indent=4, ensure_ascii=False))


_COMMANDS: dict[str, Callable[[Client, Sequence[str]], None]] = {
    "secrets set": _set_secrets,
    "secrets unset": lambda client, names: _store(client, dict.fromkeys(names)),
    "secrets list": _list_secrets,
    "secrets deploy": _deploy,
    "machine list": _list_machines,
    "machine start": _start,
    "status": _show_status,
    "auth whoami": _show_viewer,
    "version": _show_version,
}

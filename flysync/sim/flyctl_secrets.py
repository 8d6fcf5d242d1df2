"""
The stand-in's `secrets` commands: set, unset, sync, list and deploy.

Order of requests, texts and streams are those of flyctl ad0172fac (flyctl-transcripts.txt; measured).
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from flysync.sim.flyctl_http import Failure, Prefixed
from flysync.sim.flyctl_machines import managed_machines
from flysync.sim.flyctl_rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.sim.flyctl_session import Session

_STAGED = (
    "Secrets have been staged, but not set on VMs. "
    "Deploy or update machines in this app for the secrets to take effect."
)
#: What Go's strings.TrimSpace takes away; Python's strip takes four more.
_SPACE = (
    "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
#: The most that `NAME=-` reads from standard input.
_MAX_STDIN_BYTES = 64 * 1024
#: With more machines than this, `list` shows no status.
_MAX_LISTED_MACHINES = 100


def set_secrets(session: Session) -> None:
    """Store the values in the arguments, and roll them out unless `--stage` is given."""
    compact = session.api.app_compact(session.app())
    values: dict[str, str | None] = {}
    for argument in session.call.arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise Failure(f"could not parse secrets: '{argument}': must be in the format NAME=VALUE")
        values[name] = value
    for name, given in values.items():
        if given == "-":
            values[name] = _from_stdin(session, name)
    _update(session, compact, values)


def unset_secrets(session: Session) -> None:
    """Remove the secrets named in the arguments, and roll that out unless `--stage` is given."""
    compact = session.api.app_compact(session.app())
    _update(session, compact, dict.fromkeys(session.call.arguments))


def sync_secrets(session: Session) -> None:
    """Learn the newest secrets version, by removing a secret that nobody has."""
    name = f"BogusDummySecret_{os.urandom(8).hex()}"
    with Prefixed("sync secrets: "):
        _store(session, session.app(), {name: None})


def deploy_secrets(session: Session) -> None:
    """Roll out what is stored."""
    compact = session.api.app_compact(session.app())
    machines = managed_machines(session, compact["name"])
    if not compact["deployed"] or not machines:
        raise Failure(
            "no machines available to deploy",
            description=(
                "'fly secrets deploy' will only work if the app has been deployed and there are machines available"
            ),
            suggestion="Try 'fly deploy' first",
        )
    _roll_out(session, compact)


def list_secrets(session: Session) -> None:
    """Print names, digests, and what is deployed."""
    app = session.app()
    version = session.home.minvers().get(app)
    query = "" if version is None else f"?version={version}"
    with Prefixed("failed to list app secrets: "):
        secrets = session.api.machines("GET", f"/apps/{app}/secrets{query}").get("secrets") or []
    try:
        machines = managed_machines(session, app)
    except Failure:
        machines = []
    if len(machines) > _MAX_LISTED_MACHINES:
        rows = [{"name": s["name"], "digest": s["digest"]} for s in secrets]
    else:
        versions = [m.get("config", {}).get("metadata", {}).get("fly_release_version", "") for m in machines]
        created = _release_times(session, app, versions)
        rows = [
            {"name": s["name"], "digest": s["digest"], "status": _status(s.get("updated_at"), versions, created)}
            for s in secrets
        ]
    if session.json:
        session.out(json.dumps(rows, indent=4, ensure_ascii=False))
        return
    _print_table(session, rows, ("name", "digest", "status")[: 2 + (len(machines) <= _MAX_LISTED_MACHINES)])


def _update(session: Session, compact: Mapping[str, Any], values: Mapping[str, str | None]) -> None:
    with Prefixed("update secrets: "):
        _store(session, compact["name"], values)
    if session.call.is_on("stage"):
        session.out(_STAGED)
        return
    _roll_out(session, compact)


def _store(session: Session, app: str, values: Mapping[str, str | None]) -> None:
    with Prefixed("failed to update app secrets: "):
        body = {"values": dict(sorted(values.items()))}
        answer = session.api.machines("POST", f"/apps/{app}/secrets", body)
    session.home.set_minvers(app, answer.get("version", 0))


def _roll_out(session: Session, compact: Mapping[str, Any]) -> None:
    app = compact["name"]
    if not managed_machines(session, app) and not compact["deployed"]:
        session.out("Secrets are staged for the first deployment")
        return
    Rollout(session, app).run()


def _from_stdin(session: Session, name: str) -> str:
    """Read a value as `NAME=-` does (flyctl.md 1.4): at most 64 KiB, without the white space around it."""
    try:
        is_device = stat.S_ISCHR(os.fstat(session.stdin).st_mode)
    except OSError:
        is_device = True
    if is_device:
        raise Failure(f"secret `{name}` expects standard input but none provided")
    data = b""
    while len(data) <= _MAX_STDIN_BYTES and (piece := os.read(session.stdin, _MAX_STDIN_BYTES)):
        data += piece
    if len(data) > _MAX_STDIN_BYTES:
        raise Failure(f"error reading stdin for '{name}': Input exceeded max length of {_MAX_STDIN_BYTES} bytes")
    return session.text(data).strip(_SPACE)


def _release_times(session: Session, app: str, versions: list[str]) -> dict[str, str]:
    """Give when each release that a machine has was made; nothing where that cannot be told."""
    wanted = {version for version in versions if version}
    if not wanted:
        return {}
    limit = min(max(len(wanted) * 2, 20), 200)
    try:
        response = session.api.releases("GET", f"/api/v1/apps/{app}/releases?limit={limit}")
        releases = json.loads(response.body)["releases"] if response.status == 200 else []
    except (Failure, ValueError):
        return {}
    return {str(r["version"]): r["created_at"] for r in releases if str(r["version"]) in wanted}


def _status(updated_at: str | None, versions: list[str], created: Mapping[str, str]) -> str:
    """Say how far a secret is rolled out, by times alone (flyctl.md 1.6); all stamps have one shape here."""
    if not versions:
        return "Staged"
    if not updated_at:
        return "Unknown"
    reached = sum(1 for version in versions if version in created and updated_at <= created[version])
    if reached == 0:
        return "Staged"
    return "Deployed" if reached == len(versions) else "Partial"


def _print_table(session: Session, rows: list[dict[str, str]], columns: tuple[str, ...]) -> None:
    marks = {"Staged": "* ", "Partial": "! "}
    cells = [[column.upper() for column in columns]]
    cells += [[marks.get(row.get("status", ""), "") + row["name"], *(row[c] for c in columns[1:])] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        session.out(" " + " │ ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " ")
    session.out("")
    count = {status: sum(1 for row in rows if row.get("status") == status) for status in marks}
    _print_summary(session, count["Staged"], count["Partial"])


def _print_summary(session: Session, staged: int, partial: int) -> None:
    def secrets(count: int) -> str:
        return f"{count} secret" if count == 1 else f"{count} secrets"

    verb = "is" if staged + partial == 1 else "are"
    if staged and partial:
        session.out("Some secrets need to be deployed:")
        session.out(f"  * {secrets(staged)} staged (not yet deployed)")
        session.out(f"  ! {secrets(partial)} partially deployed (deployed to some machines)")
        session.out("\nDeploy with `fly secrets deploy` to sync all machines.")
    elif staged:
        end = "not deployed. Deploy with `fly secrets deploy` to make them available."
        session.out(f"There {verb} {secrets(staged)} {end}")
    elif partial:
        session.out(
            f"There {verb} {secrets(partial)} partially deployed. This can happen during rolling deployments "
            "or if some machines failed to update. Deploy with `fly secrets deploy` to ensure all machines "
            "have the latest configuration."
        )

"""The one query of a sync: what it asks, and how its row is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from flysync.adapters.postgres.connection import read_only
from flysync.errors import ConfigError, InvalidCredential, ProjectNotFound
from flysync.model import (
    AppName,
    Credential,
    OpenRun,
    ProjectId,
    ProjectView,
    RunId,
    SecretName,
    SecretRecord,
    State,
    secret_name,
)
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flysync.adapters.postgres.connection import Row

#: The version of flysync's own tables that this code reads and writes.
SCHEMA_VERSION = 1

#: As bytes, so that one row which is not UTF-8 (a SQL_ASCII database checks nothing) fails alone, in Python.
VALUE: LiteralString = """convert_to(credential_value,
    CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)"""

#: The columns of a record, in the order of `record_of`.
RECORD: LiteralString = """s.name, s.state, s.project_id, s.fingerprint, s.fly_digest_mac, s.run_id, s.requested_at,
    s.written_at, s.deployed_at, s.rollouts"""

#: The columns of an open run, in the order of `run_of`; deadlines use Postgres' clock.
RUN: LiteralString = """r.run_id, r.sandbox,
    greatest(0, coalesce(extract(epoch FROM r.deadline - now()), 0))::float8, r.door, r.actor, r.started_at"""

#: Rows of four kinds, told apart by their first column: one query, one snapshot of everything.
#: The newest deployment counts; one whose app is not known yet is none.
_VIEW: LiteralString = """
WITH deployments AS (
    SELECT fly_app_name AS app, created_at FROM project_deployments
    WHERE project_id = %(project)s AND fly_app_name <> ''
), newest AS (
    SELECT DISTINCT app FROM deployments
    WHERE created_at IS NOT DISTINCT FROM (SELECT max(created_at) FROM deployments)
), target AS (
    SELECT coalesce(%(app)s::text, (SELECT min(app) FROM newest)) AS app
), wanted AS (
    SELECT credential_name AS name, {value} AS value FROM cloud_credentials
    WHERE project_id = %(project)s AND (
        %(names)s::text[] IS NULL OR credential_name = ANY(%(names)s::text[])
        OR credential_name IN (
            SELECT s.name FROM flysync_secrets s, target t
            WHERE s.app = t.app AND s.project_id = %(project)s AND s.requested_at IS NOT NULL))
)
SELECT 'project', to_jsonb(ARRAY(SELECT app FROM newest ORDER BY app)), (SELECT app FROM target), NULL::bytea,
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
    EXISTS (SELECT FROM cloud_credentials WHERE project_id = %(project)s),
    EXISTS (SELECT FROM project_deployments WHERE project_id = %(project)s),
    (SELECT to_jsonb(array_agg(jsonb_build_array(schema_version, fingerprint_key))) FROM flysync_meta),
    EXISTS (SELECT FROM flysync_secrets s, target t WHERE s.app = t.app AND s.deployed_at IS NOT NULL),
    NULL::timestamptz, NULL::timestamptz, NULL::timestamptz
UNION ALL
SELECT 'credential', NULL, name, value, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM wanted
UNION ALL
SELECT 'record', jsonb_build_array(s.state, s.project_id, s.fingerprint, s.fly_digest_mac, s.run_id, s.rollouts),
    s.name, NULL, NULL, NULL, NULL, NULL, NULL, s.requested_at, s.written_at, s.deployed_at
FROM flysync_secrets s, target t WHERE s.app = t.app
UNION ALL
SELECT 'run', jsonb_build_array(r.sandbox, r.door, r.actor,
        greatest(0, coalesce(extract(epoch FROM r.deadline - now()), 0))::float8),
    r.run_id, NULL, NULL, NULL, NULL, NULL, NULL, r.started_at, NULL, NULL
FROM flysync_runs r, target t WHERE r.app = t.app AND r.finished_at IS NULL
"""

WITH_VALUES: LiteralString = _VIEW.replace("{value}", VALUE)
WITHOUT_VALUES: LiteralString = _VIEW.replace("{value}", "NULL::bytea")


def view_of(rows: Iterable[Row], project: ProjectId, *, has_values: bool) -> ProjectView:
    """
    Read the rows of the query.

    Raises:
        ProjectNotFound: the project is in neither table.
        ConfigError: a read-only server, or tables of another version.
    """
    kinds: dict[str, list[Row]] = {"project": [], "credential": [], "record": [], "run": []}
    for row in rows:
        kinds[row[0]].append(row)
    (head,) = kinds["project"]
    _, apps, app, _, is_read_only, has_credentials, has_deployments, meta, deployed_before = head[:9]
    if is_read_only:
        raise read_only()
    if not has_credentials and not has_deployments:
        raise ProjectNotFound(f"there is no project {project!r}")
    return ProjectView(
        project=project,
        apps=tuple(apps),
        app=AppName(app) if app else None,
        has_credentials=has_credentials,
        credentials=credentials_of((row[2], row[3]) for row in kinds["credential"]),
        records={SecretName(row[2]): _record(row) for row in kinds["record"]},
        open_runs=tuple(sorted((_run(row) for row in kinds["run"]), key=lambda run: run.started_at)),
        deployed_before=deployed_before,
        has_values=has_values,
        key=key_of(meta),
    )


def key_of(meta: list[tuple[int, str]] | None) -> Secret:
    """Give the key of fingerprints, from the rows of `flysync_meta`."""
    if not meta:
        raise ConfigError("flysync_meta has no row", hint="run `flysync db init`")
    version, key = meta[0]
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"flysync's tables have version {version}, and this flysync knows {SCHEMA_VERSION}",
            hint="use the flysync that made them, or a newer one",
        )
    return Secret(key)


def credentials_of(rows: Iterable[tuple[str, bytes | None]]) -> Mapping[SecretName, Credential]:
    """Give credentials by name; what cannot be used says why."""
    found: dict[SecretName, Credential] = {}
    for raw, data in rows:
        name = SecretName(raw)
        credential = credential_of(raw, data)
        if name in found:
            credential = Credential(name=name, flaw="stands twice in cloud_credentials")
        found[name] = credential
    return found


def credential_of(raw: str, data: bytes | None) -> Credential:
    """Give one row as a credential."""
    name = SecretName(raw)
    try:
        secret_name(raw)
        return Credential(name=name, secret=None if data is None else Secret(bytes(data).decode()))
    except InvalidCredential:
        return Credential(name=name, flaw="is no name that Fly.io takes: letters, digits and underscores")
    except UnicodeDecodeError:
        return Credential(name=name, flaw="is not valid UTF-8")


def record_of(row: Row | list[Any]) -> SecretRecord:
    """Read the columns of `RECORD`."""
    name, state, project, fingerprint, mac, run_id, requested_at, written_at, deployed_at, rollouts = row
    return SecretRecord(
        name=SecretName(name),
        state=State(state),
        project_id=project,
        fingerprint=fingerprint,
        fly_digest_mac=mac,
        run_id=RunId(run_id) if run_id else None,
        requested_at=requested_at,
        written_at=written_at,
        deployed_at=deployed_at,
        rollouts=rollouts,
    )


def run_of(row: Row) -> OpenRun:
    """Read the columns of `RUN`."""
    run_id, sandbox, seconds_left, door, actor, started_at = row
    return OpenRun(
        run_id=RunId(run_id),
        sandbox=sandbox or "",
        borrowed=sandbox != f"flysync-{run_id}",
        seconds_left=seconds_left,
        door=door,
        actor=actor,
        started_at=started_at,
    )


def _record(row: Row) -> SecretRecord:
    state, project, fingerprint, mac, run_id, rollouts = row[1]
    return record_of([row[2], state, project, fingerprint, mac, run_id, row[9], row[10], row[11], rollouts])


def _run(row: Row) -> OpenRun:
    sandbox, door, actor, seconds_left = row[1]
    return run_of((row[2], sandbox, seconds_left, door, actor, row[9]))

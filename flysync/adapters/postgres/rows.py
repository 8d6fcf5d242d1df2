"""Rows of Postgres as the nouns of `flysync.model.core`, and the columns that they are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.tables import SCHEMA_VERSION
from flysync.errors import InvalidCredential
from flysync.model.core import Credential, OpenRun, RunId, SecretName, SecretRecord, State, secret_name
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: What `key` checks: the version of the tables and whether they are being migrated, and whether writes are taken here.
META = """
    (SELECT array_agg(ROW(m.schema_version, m.fingerprint_key::text, coalesce(m.closed_until > now(), false),
                          pg_is_in_recovery(), current_setting('transaction_read_only')::boolean))
     FROM flysync_meta AS m)
"""

#: A row of flysync_secrets, called s.
RECORD = """
    ROW(s.name::text, s.state::text, s.project_id::text, s.fingerprint::text, s.fly_digest_mac::text, s.run_id::text,
        s.requested_at, s.written_at, s.deployed_at, s.bad_tries, s.longest_limit_s, s.failed_release,
        CASE WHEN s.rollout IS NOT NULL THEN coalesce(s.rollout_after, 0) END)
"""

#: A row of flysync_runs, called r. A sandbox of ours has the run's name; any other was borrowed.
OPEN_RUN = """
    ROW(r.run_id::text, coalesce(r.sandbox::text, ''), coalesce(r.sandbox, '') <> 'flysync-' || r.run_id,
        greatest(0, extract(epoch FROM r.deadline - now()))::float8, r.origin::text, r.actor::text, r.started_at)
"""

#: A value as bytes in UTF-8: sent as text, one that is none would fail the whole query. What SQL_ASCII holds has no
#: known encoding and is taken as it is.
VALUE = """
    convert_to(c.credential_value, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)
"""

#: In the place of a value that is not read.
NO_VALUE = "NULL::bytea"


def key(meta: Sequence[tuple[Any, ...]] | None, *, begins: bool = False) -> Secret:
    """
    Give the key of fingerprints, from `META`: where the server takes writes, and the tables are of this version.

    Raises:
        ConfigError: neither.
        DatabaseUnavailable: a run *begins*, and the tables are being migrated.
    """
    version, text, is_closed, is_replica, is_read_only = meta[0] if meta else (None, "", False, False, False)
    if is_replica or is_read_only:
        raise errors.read_only(is_replica=is_replica)
    if is_closed and begins:
        raise errors.migrating()
    if version != SCHEMA_VERSION:
        raise errors.wrong_version(version)
    return Secret(text)


def record(row: tuple[Any, ...]) -> SecretRecord:
    """Give a `RECORD`."""
    name, state, project_id, fingerprint, fly_digest_mac, run_id, requested_at, written_at, deployed_at, *tries = row
    bad_tries, longest_limit_s, failed_release, rollout = tries
    return SecretRecord(
        name=SecretName(name),
        state=State(state),
        project_id=project_id,
        fingerprint=fingerprint,
        fly_digest_mac=fly_digest_mac,
        run_id=None if run_id is None else RunId(run_id),
        requested_at=when(requested_at),
        written_at=when(written_at),
        deployed_at=when(deployed_at),
        bad_tries=bad_tries,
        longest_limit_s=longest_limit_s,
        failed_release=failed_release,
        rollout_after=rollout,
    )


def records(rows: Iterable[tuple[Any, ...]] | None) -> dict[SecretName, SecretRecord]:
    """Give `RECORD`s by name."""
    return {one.name: one for one in map(record, rows or ())}


def open_runs(rows: Iterable[tuple[Any, ...]] | None) -> tuple[OpenRun, ...]:
    """Give `OPEN_RUN`s."""
    return tuple(map(_open_run, rows or ()))


def credentials(rows: Iterable[tuple[str, bytes | None]] | None) -> dict[SecretName, Credential]:
    """Give the credentials of one project; a row that is of no use says why, and harms no other."""
    found: dict[SecretName, Credential] = {}
    for text, value in rows or ():
        name = SecretName(text)
        found[name] = twice(name) if name in found else credential(name, value)
    return found


def twice(name: SecretName) -> Credential:
    """Give a credential that has two rows (a view may): nobody can say which of them counts."""
    return Credential(name=name, problem="stands twice in cloud_credentials")


def credential(name: SecretName, value: bytes | None) -> Credential:
    """Give one credential, with its problem if it has one."""
    problem = name_problem(name)
    secret = None
    if value is not None and problem is None:
        try:
            secret = Secret(value.decode("utf-8"))
        except UnicodeDecodeError:
            problem = "is not valid UTF-8"
    return Credential(name=name, secret=secret, problem=problem)


def name_problem(name: str) -> str | None:
    """Say why Fly cannot have a secret of this name, or nothing."""
    try:
        secret_name(name)
    except InvalidCredential:
        return "is not a valid credential name (letters, digits and underscores, and no digit first)"
    return None


def when(moment: datetime | None) -> datetime | None:
    """Give a moment in UTC, whatever the session's time zone is."""
    return None if moment is None else moment.astimezone(UTC)


def _open_run(row: tuple[Any, ...]) -> OpenRun:
    run_id, sandbox, borrowed, seconds_left, origin, actor, started_at = row
    return OpenRun(
        run_id=RunId(run_id),
        sandbox=sandbox,
        borrowed=borrowed,
        seconds_left=seconds_left,
        origin=origin,
        actor=actor,
        started_at=started_at.astimezone(UTC),
    )

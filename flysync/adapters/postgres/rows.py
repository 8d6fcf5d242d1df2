"""Rows of Postgres as the nouns of `flysync.model.core`, and the columns that they are made of."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.tables import SCHEMA_VERSION
from flysync.model.core import MAX_ARGUMENT_BYTES, Credential, OpenRun, SecretName, SecretRecord, State, size_problem
from flysync.model.names import name_problem
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

#: What `key` checks: the version of the tables and whether they are being migrated, and whether writes are taken here.
META = """
    (SELECT array_agg(ROW(m.schema_version, m.fingerprint_key::text, coalesce(m.closed_until > now(), false),
                          pg_is_in_recovery(), current_setting('transaction_read_only')::boolean))
     FROM flysync_meta AS m)
"""

#: A row of flysync_secrets, called s, as a `SecretRecord`.
RECORD = """
    ROW(s.name::text, s.state::text, s.project_id::text, s.fingerprint::text, s.stored_fingerprint::text,
        s.fly_digest_mac::text, s.run_id::text, s.requested_at, s.written_at, s.deployed_at, s.bad_tries,
        s.longest_limit_s, s.failed_release, CASE WHEN s.rollout IS NOT NULL THEN coalesce(s.rollout_after, 0) END)
"""

#: The open runs, called r, each as an `OpenRun`. A sandbox of ours has a name that begins with the run's; any other was
#: borrowed.
#: Whoever wants only some of them adds a condition.
OPEN_RUNS = """
    SELECT array_agg(
        ROW(r.run_id::text, coalesce(r.sandbox::text, ''),
            NOT starts_with(coalesce(r.sandbox, ''), 'flysync-' || r.run_id),
            greatest(0, extract(epoch FROM r.deadline - now()))::float8, r.origin::text, r.actor::text, r.started_at)
        ORDER BY r.started_at, r.run_id)
    FROM flysync_runs AS r WHERE r.finished_at IS NULL
"""

#: A run, if it has been ended in this very transaction: what is sent together with its end is done only then.
ENDED_NOW = """
    SELECT r.app FROM flysync_runs AS r WHERE r.run_id = %(run)s::text AND r.xmin = pg_current_xact_id()::xid
"""

#: The value, or nothing in its place where it is not to be read. It is chosen in a query of its own, called raw, that
#: ends with OFFSET 0: a view computes it once, and of one that is stored apart only what is sent is fetched (read:
#: Postgres' tuptoaster).
VALUE: Mapping[bool, LiteralString] = {True: "c.credential_value", False: "NULL::text"}
#: Whether there is a value that may be read.
HAS_VALUE: LiteralString = """
    EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass('cloud_credentials') AND a.attname = 'credential_value'
            AND NOT a.attisdropped AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    )
"""
#: Values that are read at once may have so many bytes together: in memory they can take seven times as much.
MOST_BYTES = 32 * 2**20
#: What texts are sent in. What SQL_ASCII holds has no known encoding and is taken as it is.
_UTF8 = "CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END"
#: The size of the value of a row called raw, and the value where that allows to send it: none that is larger is ever
#: copied, sorted or kept (200 MB of a view: 0.7 s instead of 3.6 s, measured).
CUT = f"""
    octet_length(raw.value) AS size,
    CASE WHEN octet_length(raw.value) <= {MAX_ARGUMENT_BYTES} THEN raw.value END AS value
"""
#: The size of a value and of all that are no larger or come *first*: the largest are those that are not sent.
SO_FAR = "sum(its.size) OVER (ORDER BY {first} its.size ROWS UNBOUNDED PRECEDING) AS so_far"
#: The value as it is sent: as bytes in UTF-8, for sent as text one that is none would fail the whole query.
SENT = f"CASE WHEN its.so_far <= {MOST_BYTES} THEN convert_to(its.value, {_UTF8}) END"
#: What a credential adds to the digest of its project, of a row called its; unambiguous, for Postgres quotes what a row
#: holds. A long value adds its hash, and one that is too long to be sent its size.
LINES = """
    string_agg(ROW(its.name, its.size, CASE
        WHEN its.size <= 256 THEN its.value
        ELSE encode(sha256(convert_to(its.value, getdatabaseencoding())), 'hex')
    END)::text, ',' ORDER BY its.name COLLATE "C", its.size, its.value COLLATE "C")
"""
#: The digest of a project, of its `LINES` and its newest apps, under the key of a row of flysync_meta called m.
DIGEST = """
    encode(sha256(convert_to(concat(m.digest_key, ROW({apps}, {lines})::text), getdatabaseencoding())), 'hex')
"""
#: The key of fingerprints, as HMAC uses it (RFC 2104): padded to 64 bytes, once for each of its two sums.
PADS = """
    SELECT string_agg(set_byte(decode('00', 'hex'), 0, get_byte(padded.key, its.place) # 54), NULL ORDER BY its.place)
               AS inside,
           string_agg(set_byte(decode('00', 'hex'), 0, get_byte(padded.key, its.place) # 92), NULL ORDER BY its.place)
               AS outside
    FROM (
        SELECT substring(CASE WHEN octet_length(given.key) > 64 THEN sha256(given.key) ELSE given.key END
            || decode(repeat('00', 64), 'hex') FROM 1 FOR 64) AS key
        FROM (SELECT convert_to(m.fingerprint_key, getdatabaseencoding()) AS key FROM flysync_meta AS m) AS given
    ) AS padded, generate_series(0, 63) AS its(place)
"""
#: `Secret.fingerprint` of a row called its, with a row of `PADS` called pads.
FINGERPRINT = f"""
    encode(sha256(pads.outside || sha256(pads.inside || convert_to(its.app, {_UTF8}) || decode('00', 'hex')
        || convert_to(its.name, {_UTF8}) || decode('00', 'hex') || convert_to(its.value, {_UTF8}))), 'hex')
"""
#: Texts of the backend's that flysync works with are shorter; more is not fetched of those that are not.
NAME = "left(c.credential_name::text, 129)"
PROJECT, APP = "left(d.project_id::text, 257)", "left(d.fly_app_name::text, 101)"
#: A moment that Python can hold.
MOMENT = "CASE WHEN {0} BETWEEN '0001-01-02' AND '9999-12-30' THEN {0} END"
#: Whether a deployment names an app. (Of a text of 128 MiB, btrim fails the whole query: XX000, measured.)
NAMES_APP = f"btrim({APP}) <> ''"

#: Which deployments `RANKED` reads: those of one project, or all; whoever reads those of others puts that in its place.
OF_ONE = "(%(project)s::text IS NULL OR d.project_id = %(project)s::text)"
#: Deployments that name an app; the newest of each project have place 1. Those without a time count as the oldest,
#: those that share the newest time count all.
RANKED = f"""
    SELECT {PROJECT} AS project_id, {APP} AS app, d.created_at,
           rank() OVER (PARTITION BY d.project_id ORDER BY d.created_at DESC NULLS LAST) AS place
    FROM project_deployments AS d
    WHERE {OF_ONE} AND {NAMES_APP}
"""
#: The apps that the newest deployment of the project names, or of each project, and its time.
NEWEST = f"""
    SELECT DISTINCT ranked.project_id, ranked.app, {MOMENT.format("ranked.created_at")}::timestamptz AS at
    FROM ({RANKED}) AS ranked WHERE ranked.place = 1
"""

#: When projects were last deployed to some apps.
NAMED = f"""
    SELECT {PROJECT} AS project_id, {APP} AS app, max(coalesce(d.created_at, '-infinity')) AS at
    FROM project_deployments AS d WHERE d.fly_app_name IN ({{apps}}) GROUP BY d.project_id, d.fly_app_name
"""
#: Whether a project that was deployed to an app at a time, called named, has not been deployed since.
STILL_DEPLOYED = f"""
    NOT EXISTS (
        SELECT FROM project_deployments AS d
        WHERE d.project_id = named.project_id AND {NAMES_APP}
            AND coalesce(d.created_at, '-infinity') > named.at
    )
"""

#: One page of projects whose ids are called ids, in their order: whether a row of theirs is on it, and the last one,
#: where there may be more.
PAGE = """page AS MATERIALIZED (
        SELECT min(ids.project_id) AS first, max(ids.project_id) AS last, count(*) AS size FROM ids
    )"""
ON_PAGE = "{0}.project_id BETWEEN (SELECT page.first FROM page) AND (SELECT page.last FROM page)"
LAST = "CASE WHEN page.size = %(limit)s THEN page.last::text END"


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


def made(noun: Callable[..., T], row: Iterable[Any]) -> T:
    """Give a dataclass of a row that has its fields, in their order."""
    return noun(**dict(zip(_names(noun), row, strict=True)))


@cache
def _names(noun: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(noun))


def record(row: Iterable[Any]) -> SecretRecord:
    """Give a `RECORD`."""
    name, state, *others = row
    known = State(state) if state in set(State) else State.WRITING  # somebody else's: nobody knows what was done
    return made(SecretRecord, (name, known, *others))


def records(rows: Iterable[Iterable[Any]] | None) -> dict[SecretName, SecretRecord]:
    """Give `RECORD`s by name."""
    return {one.name: one for one in map(record, rows or ())}


def open_runs(rows: Iterable[Iterable[Any]] | None) -> tuple[OpenRun, ...]:
    """Give `OPEN_RUNS`."""
    return tuple(made(OpenRun, row) for row in rows or ())


def credentials(rows: Iterable[tuple[SecretName, int | None, bytes | None]] | None) -> dict[SecretName, Credential]:
    """Give the credentials of one project; an invalid row says why, and harms no other."""
    found: dict[SecretName, Credential] = {}
    for name, size, value in rows or ():
        found[name] = twice(name) if name in found else credential(name, size, value)
    return found


def twice(name: SecretName) -> Credential:
    """Give a credential that has two rows (a view may): nobody can say which of them counts."""
    return Credential(name=name, problem="occurs twice in cloud_credentials")


def credential(name: SecretName, size: int | None, value: bytes | None) -> Credential:
    """Give one credential whose value has *size* bytes, with its problem if it has one."""
    problem: str | None = "is not valid UTF-8"
    if name_problem(name):
        problem = "is not a valid credential name (letters, digits and underscores, and no digit first)"
    elif value is None and size is not None:
        problem = size_problem(name, size)
        return Credential(name=name, problem=problem, left_out=not problem)
    else:
        with suppress(UnicodeDecodeError):
            return Credential(name=name, secret=None if value is None else Secret(value.decode("utf-8")))
    return Credential(name=name, problem=problem)

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any

import pytest

from flysync.errors import CredentialNotFound, InvalidCredential
from flysync.model.allowed import Allowed
from flysync.model.core import (
    MAX_ARGUMENT_BYTES,
    AppName,
    Credential,
    OpenRun,
    ProjectId,
    ProjectView,
    Reason,
    RunId,
    SecretName,
    SecretRecord,
    State,
    SyncOptions,
)
from flysync.model.names import secret_name
from flysync.plan import Plan, plan as decide
from flysync.secret import Secret

plan = partial(decide, allowed=Allowed(), removes=False)
NAME = SecretName("A")
KEY = Secret("key")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make_view(
    value: str | None = "v", record: SecretRecord | None = None, *, has_values: bool = True, problem: str | None = None
) -> ProjectView:
    secret = Secret(value) if value is not None else None
    return ProjectView(
        project=ProjectId("p"),
        apps=("app",),
        app=AppName("app"),
        credentials={NAME: Credential(name=NAME, secret=secret, problem=problem)},
        records={NAME: record} if record else {},
        open_runs=(),
        deployed_before=record is not None,
        has_values=has_values,
        key=KEY,
        read_at=NOW,
        digest="",
        deployed_at=None,
        standing=None,
    )


def make_record(state: State, value: str = "v", **more: object) -> SecretRecord:
    return SecretRecord(
        name=NAME,
        state=state,
        fingerprint=Secret(value).fingerprint(KEY, "app", NAME),
        **more,  # type: ignore[arg-type]
    )


OPEN_RUN = OpenRun(
    run_id=RunId("r"), sandbox="s", borrowed=False, seconds_left=1, origin="cli", actor="a", started_at=NOW
)


@pytest.mark.parametrize(
    ("record", "options", "expected"),
    [
        (None, {}, (Reason.NEW, True, False)),
        (SecretRecord(name=NAME, state=State.REQUESTED), {}, (Reason.NEW, True, False)),
        (make_record(State.DEPLOYED, "old"), {}, (Reason.CHANGED, True, False)),
        (make_record(State.DEPLOYED), {}, (Reason.UNCHANGED, False, False)),
        (make_record(State.DEPLOYED), {"verify": True}, (Reason.UNCHANGED, False, True)),
        (make_record(State.DEPLOYED), {"force": True}, (Reason.REQUESTED, True, False)),
        (make_record(State.STORED), {}, (Reason.REQUESTED, False, True)),
        (make_record(State.WRITING), {}, (Reason.REQUESTED, True, False)),
        (make_record(State.FAILED), {}, (Reason.REQUESTED, True, False)),
        (make_record(State.WRITING, rollout_after=0), {}, (Reason.REQUESTED, False, True)),
        (make_record(State.STORED, bad_tries=1, longest_limit_s=inf), {}, (Reason.REQUESTED, False, True)),
        (make_record(State.STORED, bad_tries=2, longest_limit_s=599.0), {}, (Reason.REQUESTED, False, True)),
        (make_record(State.STORED, bad_tries=2), {"verify": True}, (Reason.UNCHANGED, False, True)),
        (make_record(State.STORED, bad_tries=2), {"force": True}, (Reason.REQUESTED, True, False)),
        (make_record(State.STORED, "old", bad_tries=2), {}, (Reason.CHANGED, True, False)),
    ],
)
def test_each_record_has_its_reason(
    record: SecretRecord | None, options: dict[str, bool], expected: tuple[Reason, bool, bool]
) -> None:
    """What was last done, and what is asked for, decide on set, look-up or nothing."""
    (change,) = plan(make_view(record=record), [NAME], SyncOptions(**options)).changes  # type: ignore[arg-type]

    assert expected == (change.reason, change.set, change.check)


@pytest.mark.parametrize(
    ("longest_limit_s", "words", "hint"),
    [(inf, "the app failed with it", "fly logs"), (600.0, "ran out of time, the longest after 600 s", "--timeout")],
)
def test_a_value_that_failed_twice_is_given_up(longest_limit_s: float, words: str, hint: str) -> None:
    """It is decided from the record alone, and says whether it was the app or the time."""
    record = make_record(State.STORED, bad_tries=2, longest_limit_s=longest_limit_s)

    planned = plan(make_view(record=record), [NAME], SyncOptions(timeout_s=600.0))

    ((name, error),) = planned.failures
    assert (NAME, "deploy_failed", ()) == (name, error.code, planned.work)
    assert words in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("more", "options", "may"),
    [
        ({}, {}, True),
        ({"owner": "p"}, {}, True),
        ({"owner": "q"}, {}, False),
        ({"owner": "q"}, {"force": True}, False),
        ({"owner": "q"}, {"take_over": True}, True),
        ({"owner": "q", "owner_has_left": True}, {}, True),
        ({"deployed_by": ("q",)}, {}, True),
        ({"deployed_by": ("q",)}, {"app": "app"}, False),
        ({"deployed_by": ("q",), "owner": "p"}, {"app": "app"}, True),
        ({"deployed_by": ("q",)}, {"app": "app", "take_over": True}, True),
    ],
)
def test_only_its_own_project_writes_to_an_app(more: dict[str, Any], options: dict[str, Any], *, may: bool) -> None:
    """Setting and removing alike; whoever insists has to say that they take it over."""
    view = replace(make_view(record=make_record(State.STORED, "old")), project=ProjectId("p"), **more)
    gone = replace(view, credentials={})

    for planned in (
        plan(view, [NAME], SyncOptions(**options)),
        plan(gone, [NAME], SyncOptions(**options), removes=True),
    ):
        assert ([] if may else ["not_owner"]) == [error.code for _, error in planned.failures]
        assert may == bool(planned.work)


def test_nothing_is_removed_that_was_not_named() -> None:
    """All credentials can be set without their names; to remove them, even by force, takes those."""
    view = make_view(record=make_record(State.DEPLOYED))

    assert Plan() == plan(view, None, SyncOptions(force=True), removes=True)


def test_an_open_run_makes_a_deployed_secret_doubtful() -> None:
    """While somebody may be writing, an equal fingerprint proves nothing."""
    view = replace(make_view(record=make_record(State.DEPLOYED)), open_runs=(OPEN_RUN,))

    (change,) = plan(view, [NAME], SyncOptions()).changes

    assert (Reason.REQUESTED, True) == (change.reason, change.set)


def test_nothing_to_do_is_no_work() -> None:
    """An unchanged project needs no sandbox."""
    assert not plan(make_view(record=make_record(State.DEPLOYED)), [NAME], SyncOptions()).work


def test_a_name_without_a_row_is_not_found() -> None:
    """A credential that is not in the table fails alone."""
    planned = plan(make_view(), [SecretName("B"), NAME], SyncOptions())

    assert [(SecretName("B"), CredentialNotFound)] == [(name, type(error)) for name, error in planned.failures]
    assert [NAME] == [change.name for change in planned.to_set]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "has no value in cloud_credentials"),
        ("", "is empty"),
        ("a\0b", "NUL"),
        ("x" * (MAX_ARGUMENT_BYTES - 4), "131,066 is the most"),
    ],
)
def test_a_value_that_cannot_travel_is_refused(value: str | None, words: str) -> None:
    """The error names the credential and what is wrong, not the value."""
    ((_, error),) = plan(make_view(value), [NAME], SyncOptions()).failures

    assert isinstance(error, InvalidCredential)
    assert NAME in error.message
    assert words in error.message


def test_the_largest_value_and_an_allowed_empty_one_pass() -> None:
    """The limits are exact."""
    assert plan(make_view("x" * (MAX_ARGUMENT_BYTES - 5)), [NAME], SyncOptions()).to_set
    assert plan(make_view(""), [NAME], SyncOptions(empty_allowed=True)).to_set


def test_a_flawed_row_says_so() -> None:
    """What the database found wrong with a row is the credential's error."""
    ((_, error),) = plan(make_view(problem="is not valid UTF-8"), [NAME], SyncOptions()).failures

    assert "A is not valid UTF-8" == error.message


def test_the_row_wins_over_the_callers_value_and_says_so() -> None:
    """A job's older value does not overwrite a newer row."""
    planned = plan(make_view("row"), [NAME], SyncOptions(values={NAME: Secret("job")}))

    assert [True] == [change.superseded for change in planned.changes]
    assert Secret("row") == planned.to_set[0].secret


@pytest.mark.parametrize("options", [{"value_source": "caller"}, {}])
def test_the_callers_value_counts_where_the_table_has_none(options: dict[str, str]) -> None:
    """By setting, or because there is no such column, the value is the caller's."""
    view = make_view("row" if options else None, has_values=bool(options))

    planned = plan(view, [NAME], SyncOptions(values={NAME: Secret("job")}, **options))  # type: ignore[arg-type]

    assert Secret("job") == planned.to_set[0].secret
    assert [False] == [change.superseded for change in planned.changes]


def test_a_callers_value_that_is_missing_is_asked_for() -> None:
    """Without a value from anywhere the way out is named."""
    ((_, error),) = plan(make_view(None, has_values=False), [NAME], SyncOptions()).failures

    assert "--value-stdin" in (error.hint or "")


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=b", "Ä", "A\n"])
def test_a_name_that_fly_refuses_is_refused_first(name: str) -> None:
    """Letters, digits and underscores, and no digit first."""
    with pytest.raises(InvalidCredential):
        secret_name(name)


@pytest.mark.parametrize("name", ["A", "_", "a1_B"])
def test_a_good_name_passes(name: str) -> None:
    """What Fly takes is taken."""
    assert name == secret_name(name)

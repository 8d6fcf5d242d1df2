"""
What a project has come to when a sync of it ends: settled, or when it is worth another try.

It is about all credentials of the project as they were last read, also those that were not named. What all projects
would meet (the setup, a service) says nothing about this one: then nothing is written, and it stays as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import (
    AccessDenied,
    DecryptFailed,
    FlyRefused,
    FlysyncError,
    NotAllowed,
    NotOwner,
    Scope,
    TokenFailed,
)
from flysync.model.core import Outcome, ProjectView, SecretName, State
from flysync.plan import is_from_caller, plan
from flysync.ports import Settlement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flysync.handlers.sync.state import SyncState

#: The longest pauses in seconds. What can end without any change of the rows, but seldom does, is tried once a day.
_HOUR, _DAY = 3600.0, 86_400.0
_AT_ONCE = 0.0
_OUTSIDE = (NotOwner, NotAllowed, DecryptFailed, TokenFailed, AccessDenied, FlyRefused)
#: A longest pause; absent where only a change of the rows or a new deployment can help.
Pause = float | None


def settled(state: SyncState) -> Settlement | None:
    """Give what the project of a sync has come to; nothing where the sync says nothing of it."""
    view, request, failure = state.view, state.request, state.failure
    is_elsewhere = view is not None and request.options.app is not None and view.apps != (view.app,)
    if view is None or is_elsewhere or state.covered_by is not None or request.options.dry_run:
        return None
    left: list[tuple[Pause, FlysyncError | None]]
    if request.removes:
        kept = [name for name in view.credentials if state.is_touched(name)]  # the next sync brings them back
        if view.app is None:
            return None
        others = _others(state, view, [name for name in view.credentials if name not in kept])
        left = [*((_AT_ONCE, None) for _ in kept), *others]
    elif failure is None:
        left = [*_open(state, view)]
    elif failure.scope in {Scope.APP, Scope.CREDENTIAL}:
        left = [(_pause(failure), failure)]
    else:
        return None
    error = state.error or next((error for _, error in left if error), None)
    return Settlement(
        view=view,
        settled=not left,
        error_code=error.code if error and left else None,
        longest_pause_s=min((pause for pause, _ in left if pause is not None), default=None),
        stored_fingerprints={} if request.removes else dict(_changed_forms(view)),  # then nothing was decrypted
    )


def _changed_forms(view: ProjectView) -> Iterator[tuple[SecretName, str]]:
    """Give what is stored in another form since, though it is the value that was sent."""
    for name, record in view.records.items():
        row = view.credentials.get(name)
        if row is None or row.secret is None or row.stored_fingerprint in {None, record.stored_fingerprint}:
            continue
        if row.secret.fingerprint(view.key, view.app or "", name) == record.fingerprint:
            yield name, row.stored_fingerprint or ""


def is_news(settlement: Settlement) -> bool:
    """Tell whether it differs from what is known of the project and of what is stored."""
    standing, digest = settlement.view.standing, settlement.view.digest
    was_settled = standing is not None and standing.settled and standing.digest == digest
    return settlement.settled != was_settled or bool(settlement.stored_fingerprints)


def _open(state: SyncState, view: ProjectView) -> Iterator[tuple[Pause, FlysyncError | None]]:
    """Give, for each credential that has not arrived, its longest pause, and why."""
    options, lines = state.request.options, {line.name: line for line in state.report().credentials}
    arrived = {name for name, row in state.rows.items() if row is State.DEPLOYED}
    is_read = view.app is not None and not is_from_caller(view, options)
    # What is said of those that nothing was done with is of the rows as they were planned, not as they were read last.
    others = [name for name in view.credentials if name not in lines or (is_read and not state.is_touched(name))]
    for name, line in lines.items():
        if name not in view.credentials or name in {*arrived, *others}:
            continue
        if line.error is not None:
            yield _pause(line.error), line.error
        elif line.outcome is Outcome.SKIPPED:
            yield (None if view.app is None else _DAY), None
        elif line.outcome is Outcome.STAGED:
            yield (None if options.stage else _DAY if options.wait else _HOUR), None
        elif line.outcome not in {Outcome.SYNCED, Outcome.UNCHANGED}:  # the run was stopped, before anything was sent
            yield _AT_ONCE, None
    if view.app is not None:
        yield from _others(state, view, others)


def _others(
    state: SyncState, view: ProjectView, names: list[SecretName]
) -> Iterator[tuple[Pause, FlysyncError | None]]:
    """Do the same for credentials that this sync has not sent; it may have rolled out what was staged before."""
    options, allowed, arrived = state.request.options, state.request.services.allowed, state.rows
    records = {name: replace(record, state=arrived.get(name, record.state)) for name, record in view.records.items()}
    if is_from_caller(view, options):
        waiting = (name for name in names if name not in records or records[name].state is not State.DEPLOYED)
        yield from ((None, None) for _ in waiting)
        return
    plain = replace(options, force=False, verify=False)
    planned = plan(replace(view, open_runs=(), records=records), names, plain, allowed, removes=False)
    yield from ((_AT_ONCE, None) for _ in planned.work)
    yield from ((_pause(error), error) for _, error in planned.failures)


def _pause(error: FlysyncError) -> Pause:
    """Give the longest pause until it is worth another try."""
    if error.temporary:
        return _HOUR
    return _DAY if isinstance(error, _OUTSIDE) else None

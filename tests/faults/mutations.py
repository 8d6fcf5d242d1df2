"""
The guards of flysync, each with a way to take it out and the tests that must fail then.

A guard that can be removed without a test noticing is not held by any; `test_mutations.py` tries them all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guard: what stands for it in *file*, what to put there instead, and who has to notice."""

    name: str
    file: str
    text: str
    instead: str
    #: Node ids below `tests/`.
    tests: tuple[str, ...]


_HANDLERS = "unit/test_handlers.py::test_"
_GUARDS = "unit/test_handlers_guards.py::test_"
_PLAN = "unit/test_plan.py::test_"
_UNSET = "unit/test_unset.py::test_"
_SCRIPT = "unit/test_flyctl_script.py::test_"
_MACHINES = "unit/test_flyctl_machine_list.py::test_"
_SECRET = "unit/test_secret.py::test_"
_SETTINGS = "unit/test_settings.py::test_"
_OWNER = "contract/test_records.py::TestOwnerInPostgres::test_"
_ROLLOUT = "contract/test_records.py::TestRolloutInPostgres::test_"

MUTATIONS = (
    # -- who may write, and when
    Mutation(
        "fence a dead run before writing",
        "flysync/handlers/sync/fence.py",
        "    if view.open_runs:\n",
        "    if False:\n",
        (f"{_HANDLERS}a_dead_run_is_fenced_first", f"{_GUARDS}a_fenced_run_writes_no_more"),
    ),
    Mutation(
        "fence until the sandbox is gone",
        "flysync/handlers/sync/fence.py",
        "timeout_s=min(_FENCE_S, request.left_s), gone=True)",
        "timeout_s=min(_FENCE_S, request.left_s), gone=False)",
        (f"{_GUARDS}a_fenced_run_writes_no_more",),
    ),
    Mutation(
        "wait for the deadline of a borrowed sandbox",
        "flysync/handlers/sync/fence.py",
        "        if dead.seconds_left > min(request.left_s, request.options.lock_wait_s):\n",
        "        if False:\n",
        (f"{_HANDLERS}a_borrowed_sandbox_of_a_dead_run_is_waited_for",),
    ),
    Mutation(
        "never delete a borrowed sandbox",
        "flysync/handlers/sync/fence.py",
        "    if dead.borrowed:\n",
        "    if False:\n",
        (f"{_HANDLERS}a_borrowed_sandbox_of_a_dead_run_is_waited_for",),
    ),
    Mutation(
        "go past a sandbox that cannot be deleted only after its deadline",
        "flysync/handlers/sync/fence.py",
        "            if dead.seconds_left > 0:\n",
        "            if False:\n",
        (f"{_HANDLERS}a_sandbox_that_cannot_be_deleted_blocks_until_its_deadline",),
    ),
    Mutation(
        "begin before sending",
        "flysync/handlers/sync/attempt.py",
        "        await state.announce(planned.to_set, view)\n",
        "",
        (f"{_GUARDS}the_intent_is_there_before_the_sandbox",),
    ),
    Mutation(
        "ask for the lock when the sandbox is there",
        "flysync/handlers/sync/attempt.py",
        "    await lock.check()\n",
        "",
        (f"{_GUARDS}a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step",),
    ),
    Mutation(
        "ask for the lock before the values are sent",
        "flysync/handlers/sync/deliver.py",
        "                await self._lock.check()\n",
        "",
        (f"{_GUARDS}a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step",),
    ),
    Mutation(
        "ask for the lock before the roll-out",
        "flysync/handlers/sync/rollout.py",
        "            await self._lock.check()\n            rollout =",
        "            rollout =",
        (f"{_GUARDS}a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step",),
    ),
    Mutation(
        "stop when the lock is lost",
        "flysync/handlers/sync/attempt.py",
        "        await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)\n",
        "        await asyncio.wait({work})\n",
        (f"{_GUARDS}a_lock_whose_loss_is_told_stops_whatever_is_under_way",),
    ),
    Mutation(
        "read again under the lock",
        "flysync/handlers/sync/attempt.py",
        "    view = await fenced_view(state)\n",
        "    view = state.request.seen\n",
        (f"{_HANDLERS}all_of_a_project_is_what_is_there_under_the_lock",),
    ),
    Mutation(
        "notice that the app has changed",
        "flysync/handlers/sync/request.py",
        "        if view.app != self.app:\n",
        "        if False:\n",
        (f"{_HANDLERS}a_project_that_moves_while_it_is_synced_is_followed_once",),
    ),
    # -- what is to be done
    Mutation(
        "compare fingerprints",
        "flysync/plan.py",
        "    if record.fingerprint != fingerprint:\n",
        "    if False:\n",
        (f"{_PLAN}each_record_has_its_reason",),
    ),
    Mutation(
        "look where a run is open",
        "flysync/plan.py",
        "    if record.state is State.DEPLOYED and not view.open_runs:\n",
        "    if record.state is State.DEPLOYED:\n",
        (f"{_PLAN}an_open_run_makes_a_deployed_secret_doubtful",),
    ),
    Mutation(
        "give up after two roll-outs",
        "flysync/plan.py",
        " or record.bad_tries < MOST_BAD_TRIES:\n",
        " or True:\n",
        (f"{_HANDLERS}the_same_change_is_rolled_out_at_most_twice",),
    ),
    Mutation(
        "refuse what cannot travel",
        "flysync/plan.py",
        "    if problem := value_problem(name, secret, empty_allowed=options.empty_allowed):\n",
        "    if problem := None:\n",
        (f"{_PLAN}a_value_that_cannot_travel_is_refused",),
    ),
    Mutation(
        "write nothing in a dry run",
        "flysync/handlers/sync/entry.py",
        "        if options.dry_run:\n            if options.verify:\n",
        "        if False:\n            if options.verify:\n",
        (f"{_GUARDS}a_dry_run_writes_nothing",),
    ),
    Mutation(
        "take the newest value in after the set",
        "flysync/handlers/sync/deliver.py",
        "                    await self._take_in_news()\n",
        "                    pass\n",
        (f"{_HANDLERS}a_value_that_changes_while_it_is_set_is_set_again",),
    ),
    Mutation(
        "an app that was there before is not skipped",
        "flysync/handlers/sync/deliver.py",
        "        if self._view.deployed_before or self._request.removes:\n",
        "        if self._request.removes:\n",
        (f"{_HANDLERS}an_unknown_app_is_skipped_unless_we_have_been_there",),
    ),
    # -- roll-outs
    Mutation(
        "commit that a roll-out begins, before it",
        "flysync/handlers/sync/rollout.py",
        "self._state.run_id, self._request.app, self._shipped, down=",
        "self._state.run_id, self._request.app, (), down=",
        (f"{_HANDLERS}a_rollout_whose_end_is_not_known_is_counted_by_what_it_has_put_down",),
    ),
    Mutation(
        "count a roll-out that failed",
        "flysync/handlers/sync/rollout.py",
        "        records = await self._end_rollout(bad)\n",
        "        records = await self._end_rollout(None)\n",
        (f"{_HANDLERS}the_same_change_is_rolled_out_at_most_twice",),
    ),
    Mutation(
        "take back a roll-out that touched nothing",
        "flysync/handlers/sync/rollout.py",
        "            await self._end_rollout(None)\n        elif",
        "            await self._end_rollout(BadTry(limit_s=math.inf, release=None))\n        elif",
        (f"{_HANDLERS}a_rollout_that_touched_nothing_is_not_counted",),
    ),
    Mutation(
        "take back a roll-out to no machines",
        "flysync/handlers/sync/rollout.py",
        "            if rollout.end is RolloutEnd.NO_MACHINES:\n",
        "            if False:\n",
        (f"{_HANDLERS}an_app_without_machines_is_staged_and_no_failure",),
    ),
    Mutation(
        "count anew where somebody insists",
        "flysync/handlers/sync/state.py",
        "        anew = options.retry if request.removes else options.force\n",
        "        anew = False\n",
        (f"{_GUARDS}force_counts_the_roll_outs_anew",),
    ),
    Mutation(
        "begin no roll-out without time for it",
        "flysync/handlers/sync/rollout.py",
        "        if limit_s < _LEAST_DEPLOY_S:\n",
        "        if False:\n",
        (f"{_GUARDS}a_roll_out_that_cannot_begin_is_incomplete",),
    ),
    Mutation(
        "confirm by an equal digest",
        "flysync/handlers/sync/rollout.py",
        " and (mac == expected if expected else not self._state.is_old(name, mac))\n",
        "\n",
        (f"{_GUARDS}what_somebody_else_set_during_the_roll_out_is_not_claimed",),
    ),
    Mutation(
        "know what was put back while it was sent from a list that is behind",
        "flysync/handlers/sync/state.py",
        " and fingerprint != self.sent.get(name)\n",
        "\n",
        (f"{_HANDLERS}a_value_that_is_put_back_while_it_is_sent",),
    ),
    Mutation(
        "claim nothing that is not waited for",
        "flysync/handlers/sync/rollout.py",
        "        elif rollout.end is RolloutEnd.SUCCEEDED and not self._request.options.wait:\n",
        "        elif False:\n",
        (f"{_HANDLERS}no_wait_is_never_synced",),
    ),
    Mutation(
        "look up by the digest after our own write",
        "flysync/handlers/compare.py",
        "        return mac is not None and mac == record.fly_digest_mac\n",
        "        return mac is not None\n",
        (f"{_HANDLERS}force_and_verify",),
    ),
    # -- the end of a run
    Mutation(
        "delete first where something may be at work",
        "flysync/handlers/sync/finish.py",
        "    if state.may_be_at_work and not await _delete(sandbox, state, gone=True):\n",
        "    if False:\n",
        (
            f"{_GUARDS}what_may_still_be_at_work_is_gone_before_the_run_ends",
            f"{_GUARDS}a_run_whose_sandbox_may_still_write_stays_open_for_the_next",
        ),
    ),
    Mutation(
        "write down the worst before the set",
        "flysync/handlers/sync/state.py",
        "        self.mark(before, stage, cut_short(phase))\n",
        "",
        (f"{_HANDLERS}an_interrupted_run_cleans_up_and_says_what_is_known",),
    ),
    Mutation(
        "shield the end of a run",
        "flysync/handlers/sync/attempt.py",
        "        await shielded(finish(state, own))\n",
        "        await finish(state, own)\n",
        (f"{_GUARDS}a_second_interruption_does_not_stop_the_cleaning_up",),
    ),
    Mutation(
        "shield the waiting for it",
        "flysync/handlers/sync/attempt.py",
        "        await shielded(_release(work, lock), limit_s=None)",
        "        await _release(work, lock)",
        (f"{_GUARDS}a_second_interruption_does_not_stop_the_cleaning_up",),
    ),
    Mutation(
        "let a sandbox be made to its end",
        "flysync/handlers/sandbox.py",
        "        return await asyncio.shield(self._creating)\n",
        "        return await self._creating\n",
        (f"{_HANDLERS}a_sandbox_that_is_being_made_when_we_are_stopped_is_deleted",),
    ),
    Mutation(
        "look up an end whose answer was lost",
        "flysync/handlers/sync/finish.py",
        "attempt > 1 and await _is_written(state, end):",
        "False:",
        (f"{_HANDLERS}a_record_whose_answer_was_lost_is_looked_up",),
    ),
    Mutation(
        "take no fence for our own end",
        "flysync/handlers/sync/finish.py",
        "    return row == ours and end.outcome != Outcome.UNKNOWN\n",
        "    return True\n",
        (f"{_HANDLERS}a_record_that_somebody_else_has_closed_is_not_ours",),
    ),
    Mutation(
        "an action for what is confirmed",
        "flysync/handlers/sync/state.py",
        "(*self.settled, *self.confirmed)",
        "(*self.settled,)",
        (f"{_HANDLERS}what_a_run_has_brought_that_could_not_say_so_gets_its_action",),
    ),
    Mutation(
        "be content with what was asked for alone",
        "flysync/handlers/sync/waiting.py",
        "        if not enough.issuperset(states.values()):\n",
        "        if False:\n",
        (
            f"{_GUARDS}a_request_whose_carrier_failed_is_made_again",
            f"{_GUARDS}a_wait_for_a_carrier_that_only_stores_goes_on",
        ),
    ),
    # -- the state, in Postgres
    Mutation(
        "clear only a request that was seen, in Postgres",
        "flysync/adapters/postgres/state.py",
        "requested_at = nullif(s.requested_at, (SELECT change.seen FROM change WHERE change.name = excluded.name)),",
        "requested_at = NULL,",
        ("contract/test_records.py::TestStateInPostgres::test_begin_leaves_a_later_request",),
    ),
    Mutation(
        "end only an open run, in Postgres",
        "flysync/adapters/postgres/runs.py",
        "    WHERE run_id = %(run)s AND finished_at IS NULL\n    RETURNING run_id\n",
        "    WHERE run_id = %(run)s\n    RETURNING run_id\n",
        ("contract/test_records.py::TestStateInPostgres::test_a_run_ends_once",),
    ),
    Mutation(
        "take nothing from a run that came later, in Postgres",
        "flysync/adapters/postgres/state.py",
        "    if taken := fingerprints.keys() - {SecretName(name) for (name,) in await cursor.fetchall()}:\n",
        "    if taken := ():\n",
        ("contract/test_records.py::TestStateInPostgres::test_begin_takes_nothing_from_a_run_that_came_later",),
    ),
    Mutation(
        "write nothing to another project's app, in Postgres",
        "flysync/adapters/postgres/state.py",
        "a.project_id = excluded.project_id OR a.project_id = %(former)s::text OR %(take_over)s::boolean\n",
        "true\n",
        (f"{_OWNER}it_belongs_to_whoever_writes_first", f"{_OWNER}a_removal_needs_the_owner_too"),
    ),
    Mutation(
        "take over only from the owner that was seen to have left, in Postgres",
        "flysync/adapters/postgres/state.py",
        '"former": seen.owner if seen.owner_has_left else None,',
        '"former": seen.owner,',
        (f"{_OWNER}a_removal_needs_the_owner_too",),
    ),
    Mutation(
        "request nothing of another project's app, in Postgres",
        "flysync/adapters/postgres/state.py",
        "        WHERE owner.is_ours\n",
        "",
        (f"{_OWNER}a_request_of_another_project_is_not_written",),
    ),
    Mutation(
        "call no owner gone that is deployed here, in Postgres",
        "flysync/adapters/postgres/view.py",
        "            SELECT FROM deployed WHERE deployed.project_id = target.owner\n",
        "            SELECT FROM deployed WHERE false\n",
        (f"{_OWNER}an_owner_that_has_left",),
    ),
    Mutation(
        "keep what was down before the first roll-out, in Postgres",
        "flysync/adapters/postgres/state.py",
        "        WHEN a.down_before IS NULL THEN excluded.down_before\n",
        "        WHEN true THEN excluded.down_before\n",
        (f"{_ROLLOUT}what_was_down_before_is_kept_until_all_is_up",),
    ),
    Mutation(
        "forget nothing of an app that failed, in Postgres",
        "flysync/adapters/postgres/state.py",
        "greatest(s.longest_limit_s, %(limit_s)s::float8)",
        "%(limit_s)s::float8",
        (f"{_ROLLOUT}the_longest_limit_is_kept",),
    ),
    Mutation(
        "let no fenced run roll out, in Postgres",
        "flysync/adapters/postgres/state.py",
        "WHERE r.run_id = %(run)s AND r.finished_at IS NULL\n        FOR UPDATE",
        "WHERE r.run_id = %(run)s\n        FOR UPDATE",
        (f"{_ROLLOUT}a_fenced_run_writes_nothing_of_it",),
    ),
    Mutation(
        "read nothing that a policy may hide",
        "flysync/adapters/postgres/connection.py",
        "        if not sees_all_rows:\n",
        "        if False:\n",
        ("contract/test_row_security.py::test_what_a_policy_may_hide_is_not_read",),
    ),
    Mutation(
        "begin no run while the tables are migrated",
        "flysync/adapters/postgres/state.py",
        "        WHERE NOT meta.is_closed OR EXISTS",
        "        WHERE true OR EXISTS",
        ("contract/test_migration.py::test_a_closed_door_stops_only_those_who_come",),
    ),
    Mutation(
        "wait for runs that were being written when the door was closed",
        "flysync/adapters/postgres/migration.py",
        "    for wait in (None, _LOCK):\n",
        "    for wait in (None,):\n",
        ("contract/test_migration.py::test_a_run_that_begins_in_the_last_moment",),
    ),
    # -- the state; the tables in memory are held to the same contract as those in Postgres
    Mutation(
        "clear only a request that was seen",
        "tests/doubles/state.py",
        "requested_at=None if was_seen else record.requested_at,",
        "requested_at=None,",
        ("contract/test_records.py::TestStateInMemory::test_begin_leaves_a_later_request",),
    ),
    Mutation(
        "end only an open run",
        "tests/doubles/state.py",
        "        if run is None or run.finished_at is not None:\n",
        "        if run is None:\n",
        ("contract/test_records.py::TestStateInMemory::test_a_run_ends_once",),
    ),
    Mutation(
        "begin no run that was fenced",
        "tests/doubles/state.py",
        "        elif run.finished_at is not None:\n",
        "        elif False:\n",
        ("contract/test_records.py::TestStateInMemory::test_a_run_that_was_fenced_cannot_begin",),
    ),
    Mutation(
        "take nothing from a run that came later",
        "tests/doubles/state.py",
        "        if taken := [name for name in fingerprints if self._is_taken(intent, name, seen)]:\n",
        "        if taken := []:\n",
        (
            "contract/test_records.py::TestStateInMemory::test_begin_takes_nothing_from_a_run_that_came_later",
            f"{_HANDLERS}a_run_that_lost_its_lock_unawares_overwrites_no_record",
        ),
    ),
    # -- in the sandbox
    Mutation(
        "run a step once",
        "flysync/adapters/flyctl/script.py",
        'if ! mkdir "$m" 2>/dev/null; then\n',
        'if ! mkdir -p "$m" 2>/dev/null; then\n',
        (f"{_SCRIPT}a_step_runs_once_and_a_replay_gets_its_code",),
    ),
    Mutation(
        "begin nothing too late",
        "flysync/adapters/flyctl/script.py",
        '-gt "$(cat "$d/until")" ]; then',
        "-gt 99999999999 ]; then",
        (f"{_SCRIPT}nothing_begins_when_the_time_of_the_run_is_over",),
    ),
    Mutation(
        "know an answer by its nonce",
        "flysync/adapters/flyctl/script.py",
        'rf"^{re.escape(self.nonce)}:([a-z:-]+):',
        'r"^[a-z0-9]+:([a-z:-]+):',
        (f"{_SCRIPT}an_answer_that_is_not_whole_is_none",),
    ),
    Mutation(
        "let no value stay in the environment",
        "flysync/adapters/flyctl/script.py",
        'f"unset{gone}\\n" if gone else ""',
        '""',
        (f"{_SCRIPT}values_are_arguments_and_no_longer_in_the_environment",),
    ),
    Mutation(
        "let flyctl write no log",
        "flysync/adapters/flyctl/script.py",
        '[ -f "$d/config/logs" ] || : >"$d/config/logs"\n',
        "",
        (f"{_SCRIPT}logs_is_a_plain_file_and_everything_is_private",),
    ),
    Mutation(
        "let only words into a script",
        "flysync/adapters/flyctl/script.py",
        "    if not _SAFE_WORD.fullmatch(text):\n",
        "    if False:\n",
        (f"{_SCRIPT}only_words_get_into_a_script",),
    ),
    Mutation(
        "keep no standard error in a file",
        "flysync/adapters/flyctl/script.py",
        ' 2>&1 >"$m/@PART@.out"; r=$?;',
        ' 2>&1 >"$m/@PART@.out" | tee "$m/@PART@.err"; r=$?;',
        (f"{_SCRIPT}what_a_part_says_on_standard_error_is_in_no_file",),
    ),
    Mutation(
        "judge no app's log",
        "flysync/adapters/flyctl/verdicts.py",
        "    return found[0] if found else text\n",
        "    return text\n",
        ("unit/test_flyctl_verdicts.py::test_what_an_app_has_said_is_not_judged",),
    ),
    Mutation(
        "take no half of a list of machines",
        "flysync/adapters/flyctl/machines.py",
        "(?:.+\\n)*end|none)",
        "(?:.+\\n)*.*|none)",
        (f"{_MACHINES}an_answer_that_is_not_whole_is_refused",),
    ),
    Mutation(
        "know nothing of a machine whose host does not answer",
        "flysync/adapters/flyctl/machines.py",
        "        state=state if is_seen else host,\n",
        "        state=state,\n",
        (f"{_MACHINES}whether_a_machine_runs",),
    ),
    # -- values
    Mutation(
        "hide a value in text",
        "flysync/secret.py",
        "    def __str__(self) -> str:\n        return MASK\n",
        "    def __str__(self) -> str:\n        return self._value\n",
        (f"{_SECRET}a_secret_shows_itself_in_no_text",),
    ),
    Mutation(
        "redact every form of a value",
        "flysync/secret.py",
        '        yield quote(raw, safe="")\n',
        "",
        (f"{_SECRET}redaction_covers_every_form",),
    ),
    Mutation(
        "let a stray .env redirect nothing",
        "flysync/settings/loading.py",
        "            elif source.is_dot_env and VARIABLES[name][1].guarded:\n",
        "            elif False:\n",
        (f"{_SETTINGS}a_stray_file_redirects_nothing",),
    ),
    # -- what may be removed
    Mutation(
        "refuse to remove what is stored",
        "flysync/plan.py",
        "    if kept := [name for name in names if name in view.credentials]:\n",
        "    if kept := []:\n",
        (f"{_UNSET}what_a_sync_would_undo_and_what_is_not_ours_is_refused",),
    ),
    Mutation(
        "refuse to remove what is not ours",
        "flysync/plan.py",
        "    if foreign := [name for name in names if name not in view.records]:\n",
        "    if foreign := []:\n",
        (f"{_UNSET}what_a_sync_would_undo_and_what_is_not_ours_is_refused",),
    ),
    Mutation(
        "look again under the lock before removing",
        "flysync/handlers/sync/attempt.py",
        "    planned = state.request.plan(view)\n",
        "    planned = state.request.plan(state.request.seen)\n",
        (f"{_UNSET}a_row_that_comes_back_meanwhile_is_not_removed",),
    ),
    Mutation(
        "restart nothing for what is gone",
        "flysync/handlers/sync/deliver.py",
        "        if change.name in live or (",
        "        if True or (",
        (f"{_UNSET}what_fly_has_no_more_restarts_nothing",),
    ),
    Mutation(
        "let nothing of a machine's configuration out",
        "flysync/adapters/flyctl/machines.py",
        """printf "%s\\\\n" "$o" | LC_ALL=C sed""",
        """printf "%s\\\\n" "$o"; printf "%s\\\\n" "$o" | LC_ALL=C sed""",
        ("contract/test_flyctl_sandbox.py::test_what_a_machine_is_configured_with_does_not_leave_the_sandbox",),
    ),
)

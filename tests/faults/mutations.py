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
_MACHINES = "unit/test_flyctl_machines.py::test_"
_SECRET = "unit/test_secret.py::test_"
_SETTINGS = "unit/test_settings.py::test_"

MUTATIONS = (
    # -- who may write, and when
    Mutation(
        "fence a dead run before writing",
        "flysync/handlers/sync/attempt.py",
        "        if view.open_runs:\n",
        "        if False:\n",
        (f"{_HANDLERS}a_dead_run_is_fenced_first", f"{_GUARDS}a_fenced_run_writes_no_more"),
    ),
    Mutation(
        "fence until the sandbox is gone",
        "flysync/handlers/sync/attempt.py",
        "timeout_s=min(_FENCE_S, call.left_s), gone=True)",
        "timeout_s=min(_FENCE_S, call.left_s), gone=False)",
        (f"{_GUARDS}a_fenced_run_writes_no_more",),
    ),
    Mutation(
        "wait for the deadline of a borrowed sandbox",
        "flysync/handlers/sync/attempt.py",
        "            if dead.seconds_left > min(call.left_s, call.options.lock_wait_s):\n",
        "            if False:\n",
        (f"{_HANDLERS}a_borrowed_sandbox_of_a_dead_run_is_waited_for",),
    ),
    Mutation(
        "never delete a borrowed sandbox",
        "flysync/handlers/sync/attempt.py",
        "        if dead.borrowed:\n",
        "        if False:\n",
        (f"{_HANDLERS}a_borrowed_sandbox_of_a_dead_run_is_waited_for",),
    ),
    Mutation(
        "go past a sandbox that cannot be deleted only after its deadline",
        "flysync/handlers/sync/attempt.py",
        "                if dead.seconds_left > 0:\n",
        "                if False:\n",
        (f"{_HANDLERS}a_sandbox_that_cannot_be_deleted_blocks_until_its_deadline",),
    ),
    Mutation(
        "begin before sending",
        "flysync/handlers/sync/attempt.py",
        "            await announce()\n",
        "",
        (f"{_GUARDS}the_intent_is_there_before_the_sandbox",),
    ),
    Mutation(
        "ask for the lock when the sandbox is there",
        "flysync/handlers/sync/attempt.py",
        "        await self.hold.check()\n",
        "",
        (f"{_GUARDS}a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step",),
    ),
    Mutation(
        "ask for the lock before the values are sent",
        "flysync/handlers/sync/deliver.py",
        "        await run.hold.check()\n",
        "",
        (f"{_GUARDS}a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step",),
    ),
    Mutation(
        "ask for the lock before the roll-out",
        "flysync/handlers/sync/rollout.py",
        "        await self._run.hold.check()\n",
        "",
        (f"{_GUARDS}a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step",),
    ),
    Mutation(
        "stop when the lock is lost",
        "flysync/handlers/sync/attempt.py",
        "            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)\n",
        "            await asyncio.wait({work})\n",
        (f"{_GUARDS}a_lock_whose_loss_is_told_stops_whatever_is_under_way",),
    ),
    Mutation(
        "read again under the lock",
        "flysync/handlers/sync/attempt.py",
        "        await self.bring(await self._fenced_view())\n",
        "        await self.bring(self.call.seen)\n",
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
        " and not view.open_runs:",
        ":",
        (f"{_PLAN}an_open_run_makes_a_deployed_secret_doubtful",),
    ),
    Mutation(
        "give up after two roll-outs",
        "flysync/plan.py",
        "    if record.rollouts >= MAX_ROLLOUTS and",
        "    if False and",
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
        "            await self._take_in_news(store)\n",
        "",
        (f"{_HANDLERS}a_value_that_changes_while_it_is_set_is_set_again",),
    ),
    Mutation(
        "an app that was there before is not skipped",
        "flysync/handlers/sync/deliver.py",
        "        if self._view.deployed_before:\n",
        "        if False:\n",
        (f"{_HANDLERS}an_unknown_app_is_skipped_unless_we_have_been_there",),
    ),
    # -- roll-outs
    Mutation(
        "count a roll-out before it",
        "flysync/handlers/sync/rollout.py",
        "        counts = await self._count(1)\n",
        "        counts = await self._count(0)\n",
        (f"{_HANDLERS}the_same_change_is_rolled_out_at_most_twice",),
    ),
    Mutation(
        "take back a roll-out that touched nothing",
        "flysync/handlers/sync/rollout.py",
        "            counts = await self._count(-1)\n",
        "            counts = await self._count(0)\n",
        (f"{_HANDLERS}a_rollout_that_touched_nothing_is_not_counted",),
    ),
    Mutation(
        "take back a roll-out to no machines",
        "flysync/handlers/sync/rollout.py",
        "            await self._count(-1)\n            self._without_machines()\n",
        "            self._without_machines()\n",
        (f"{_HANDLERS}an_app_without_machines_is_staged_and_no_failure",),
    ),
    Mutation(
        "count anew where somebody insists",
        "flysync/handlers/sync/deliver.py",
        "anew=self._call.options.force)",
        "anew=False)",
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
        "found.mac(name) == self._macs[name]\n",
        "True\n",
        (f"{_GUARDS}what_somebody_else_set_during_the_roll_out_is_not_claimed",),
    ),
    Mutation(
        "claim nothing that is not waited for",
        "flysync/handlers/sync/rollout.py",
        "        if self._call.options.wait:\n",
        "        if True:\n",
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
        "    if run.in_flight and not await _delete(run, gone=True):\n",
        "    if False:\n",
        (
            f"{_GUARDS}what_may_still_be_at_work_is_gone_before_the_run_ends",
            f"{_GUARDS}a_run_whose_sandbox_may_still_write_stays_open_for_the_next",
        ),
    ),
    Mutation(
        "write down the worst before the set",
        "flysync/handlers/sync/deliver.py",
        '        self._ledger.put(names, Outcome.UNKNOWN, error=cut_short("set"))\n',
        "",
        (f"{_HANDLERS}an_interrupted_run_cleans_up_and_says_what_is_known",),
    ),
    Mutation(
        "shield the end of a run",
        "flysync/handlers/sync/attempt.py",
        "            await shielded(end(self))\n",
        "            await end(self)\n",
        (f"{_GUARDS}a_second_interruption_does_not_stop_the_cleaning_up",),
    ),
    Mutation(
        "shield the waiting for it",
        "flysync/handlers/sync/attempt.py",
        "            await shielded(self._over(work), limit_s=None)",
        "            await self._over(work)",
        (f"{_GUARDS}a_second_interruption_does_not_stop_the_cleaning_up",),
    ),
    Mutation(
        "let a sandbox be made to its end",
        "flysync/handlers/sync/attempt.py",
        "        return await asyncio.shield(self.creating)\n",
        "        return await self.creating\n",
        (f"{_HANDLERS}a_sandbox_that_is_being_made_when_we_are_stopped_is_deleted",),
    ),
    Mutation(
        "look up an end whose answer was lost",
        "flysync/handlers/sync/finish.py",
        "attempt > 1 and await _is_written(run, how):",
        "False:",
        (f"{_HANDLERS}a_record_whose_answer_was_lost_is_looked_up",),
    ),
    Mutation(
        "take no fence for our own end",
        "flysync/handlers/sync/finish.py",
        "    return state == ours and how.outcome != Outcome.UNKNOWN\n",
        "    return True\n",
        (f"{_HANDLERS}a_record_that_somebody_else_has_closed_is_not_ours",),
    ),
    Mutation(
        "an action for what is confirmed",
        "flysync/handlers/sync/finish.py",
        "    arrived |= dict.fromkeys(run.confirmed, str(Outcome.SYNCED))\n",
        "",
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
        "flysync/adapters/postgres/state.py",
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
    # -- the state; the tables in memory are held to the same contract as those in Postgres
    Mutation(
        "clear only a request that was seen",
        "tests/doubles/records.py",
        "requested_at=None if was_seen else record.requested_at,",
        "requested_at=None,",
        ("contract/test_records.py::TestStateInMemory::test_begin_leaves_a_later_request",),
    ),
    Mutation(
        "end only an open run",
        "tests/doubles/records.py",
        "        if run is None or run.finished_at is not None:\n",
        "        if run is None:\n",
        ("contract/test_records.py::TestStateInMemory::test_a_run_ends_once",),
    ),
    Mutation(
        "begin no run that was fenced",
        "tests/doubles/records.py",
        "        elif run.finished_at is not None:\n",
        "        elif False:\n",
        ("contract/test_records.py::TestStateInMemory::test_a_run_that_was_fenced_cannot_begin",),
    ),
    Mutation(
        "take nothing from a run that came later",
        "tests/doubles/records.py",
        "        if taken := [name for name in fingerprints if self._is_taken(intent, name, seen)]:\n",
        "        if taken := []:\n",
        (f"{_HANDLERS}a_run_that_lost_its_lock_unawares_overwrites_no_record",),
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
        "keep no words of what writes",
        "flysync/adapters/flyctl/script.py",
        "            run = _RUN_WRITING if part.writes else _RUN\n",
        "            run = _RUN\n",
        (f"{_SCRIPT}what_a_part_that_writes_says_on_standard_error_is_in_no_file",),
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
        "flysync/handlers/sync/unset.py",
        "    if kept := [name for name in names if name in view.credentials]:\n",
        "    if kept := []:\n",
        (f"{_UNSET}what_a_sync_would_undo_and_what_is_not_ours_is_refused",),
    ),
    Mutation(
        "refuse to remove what is not ours",
        "flysync/handlers/sync/unset.py",
        "    if foreign := [name for name in names if name not in view.records]:\n",
        "    if foreign := []:\n",
        (f"{_UNSET}what_a_sync_would_undo_and_what_is_not_ours_is_refused",),
    ),
    Mutation(
        "look again under the lock before removing",
        "flysync/handlers/sync/unset.py",
        "        _refuse(call.app, view, self.names, call.options)\n",
        "",
        (f"{_UNSET}a_row_that_comes_back_meanwhile_is_not_removed",),
    ),
    Mutation(
        "restart nothing for what is gone",
        "flysync/handlers/sync/unset.py",
        "            if name not in found and (",
        "            if False and (",
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

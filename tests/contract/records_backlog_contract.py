"""The promises of the port `Records` about what is left to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from records_contract import DONE, KEY, NOON, PROJECT, begin, finish, intent

from flysync.model.core import ProjectId, RunId, State
from flysync.ports import Backlog, Settlement

if TYPE_CHECKING:
    from collections.abc import Callable

    from records_contract import RecordsWorld

    from flysync.model.core import ProjectView

HOUR_S, DAY_S = 3600.0, 86_400.0
NOTHING = Backlog(behind=0, oldest_s=0.0, given_up=0, failed={}, open_runs=0)


def settlement(*, settled: bool = False, hours: float = 1.0, **changes: Any) -> Callable[[ProjectView], Settlement]:
    """Say of a view of a project what it has come to; it was read *hours* ago."""
    read_at = datetime.now(UTC) - timedelta(hours=hours)
    return lambda view: Settlement(view=replace(view, read_at=read_at), settled=settled, **changes)


class BacklogContract:
    """What is counted as behind, as failed and as given up."""

    async def _settle(self, world: RecordsWorld, **projects: Callable[[ProjectView], Settlement]) -> Backlog:
        for project, its in projects.items():
            world.put(ProjectId(project), KEY, "one")
            await world.records.settle(its(await world.view_of(ProjectId(project))))
        return await world.records.backlog()

    async def test_what_has_arrived_or_waits_for_its_app_is_not_behind(self, world: RecordsWorld) -> None:
        """Without an app, with one that Fly does not know, and without machines; nor is who was never looked at."""
        world.put(PROJECT, KEY, "one")

        assert NOTHING == await self._settle(
            world,
            done=settlement(settled=True),
            no_app=settlement(),
            no_machines=settlement(longest_pause_s=DAY_S),
        )

    async def test_what_fails_for_a_while_is_behind_since_it_was_first_seen(self, world: RecordsWorld) -> None:
        """Tried again by itself, at some time; the oldest counts, and failures are counted by their codes."""
        away: dict[str, Any] = {"error_code": "fly_unavailable", "longest_pause_s": HOUR_S}
        seen = await self._settle(
            world,
            first=settlement(hours=2, **away),
            second=settlement(hours=3, **away),
            other=settlement(error_code="not_owner", longest_pause_s=DAY_S),
        )

        assert (3, 0, {"fly_unavailable": 2, "not_owner": 1}) == (seen.behind, seen.given_up, dict(seen.failed))
        assert 3 * HOUR_S <= seen.oldest_s < 3 * HOUR_S + 60

    async def test_what_is_given_up_is_counted_apart(self, world: RecordsWorld) -> None:
        """Nothing that flysync does can help it, so how long it lasts hides nothing that is late."""
        seen = await self._settle(world, bad=settlement(hours=900, error_code="invalid_credential"))

        assert (0, 0.0, 1, {"invalid_credential": 1}) == (seen.behind, seen.oldest_s, seen.given_up, dict(seen.failed))

    async def test_what_has_no_row_any_more_is_not_behind(self, world: RecordsWorld) -> None:
        """Nobody would ever bring it up to date: there is nothing to bring."""
        before = await self._settle(world, gone=settlement(error_code="timeout", longest_pause_s=HOUR_S))
        world.remove(ProjectId("gone"), KEY)

        assert (1, NOTHING) == (before.behind, await world.records.backlog())

    async def test_what_is_due_without_an_error_is_behind_since_then(self, world: RecordsWorld) -> None:
        """What is left to a next run at once; that it has waited for an app before is nobody's delay."""
        seen = await self._settle(world, partly=settlement(hours=900, longest_pause_s=0.0))

        assert (1, 0, {}) == (seen.behind, seen.given_up, dict(seen.failed))
        assert seen.oldest_s < 60

    async def test_a_run_is_open_until_it_ends(self, world: RecordsWorld) -> None:
        """Its project is behind meanwhile, and all is well when it has ended so."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, "acme-web", NOON)
        its = await begin(world)
        under_way = await world.records.backlog()
        await finish(world, its, {KEY: State.DEPLOYED}, settlement=settlement(settled=True)(await world.view()))
        await world.records.note_run(intent("run2", run_id=RunId("run2")), DONE, None)

        assert (1, 1) == (under_way.behind, under_way.open_runs)
        assert NOTHING == await world.records.backlog()

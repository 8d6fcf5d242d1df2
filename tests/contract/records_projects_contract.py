"""The promises of the port `Records` about projects that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from records_contract import APP, KEY, NOON, TOKEN

from flysync.errors import ProjectNotFound
from flysync.model.core import ProjectId, SecretName

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from records_contract import RecordsWorld

    from flysync.ports import Records

#: The calls that a project has to be known for.
CALLS: dict[str, Callable[[Records, ProjectId], Awaitable[object]]] = {
    "view": lambda records, project: records.view(project, None, app=None, values=True),
    "overview": lambda records, project: records.overview(project, values=True),
    "history": lambda records, project: records.history(project, name=None, limit=1),
}


@pytest.mark.parametrize("call", CALLS)
class UnknownProjectContract:
    """What is told of a project that nobody knows."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        world.put("proj123", KEY, "one")
        world.deploy("proj124", APP, NOON)
        world.put("a-proj_12", KEY, "one")
        world.put("acme", KEY, "one")

    async def _hint(self, world: RecordsWorld, call: str, project: str) -> str | None:
        with pytest.raises(ProjectNotFound) as caught:
            await CALLS[call](world.records, ProjectId(project))
        assert project in caught.value.message
        return caught.value.hint

    async def test_those_that_are_spelled_nearly_so(self, world: RecordsWorld, call: str) -> None:
        """Three at most, the nearest first, whichever table they stand in and whichever way they sort."""
        world.put("proj1234", KEY, "one")
        hint = await self._hint(world, call, "proj_12")

        assert "did you mean a-proj_12 or proj124 or proj123? `flysync status` lists all that are known" == hint
        assert "acme" in str(await self._hint(world, call, "acne"))

    @pytest.mark.parametrize("project", ["nothing of the kind", "", "a\0b", "\udcff", "proj" * 1000])
    async def test_none_is_near(self, world: RecordsWorld, call: str, project: str) -> None:
        """Then all of them are to be looked at."""
        assert ProjectNotFound.default_hint == await self._hint(world, call, project)


class SimilarContract:
    """Where a credential may be that a project does not have."""

    async def _hint(self, world: RecordsWorld, name: str, project: str = "proj123") -> str | None:
        return (await world.records.similar_credentials(ProjectId(project), [SecretName(name)])).get(SecretName(name))

    @pytest.mark.parametrize(
        "name", ["aws_access_key_id", "AWS_ACCESS_KEYID", "aws_acess_key_id", "AWS_ACCESS_KEY_ID_"]
    )
    async def test_another_name(self, world: RecordsWorld, name: str) -> None:
        """Case does not count; what is near is named, and nothing that is not."""
        world.put("proj123", "AWS_ACCESS_KEY_ID", "canary")
        world.put("proj123", "TOKEN", "canary")

        assert "did you mean AWS_ACCESS_KEY_ID?" == await self._hint(world, name)
        assert await self._hint(world, "NOTHING_LIKE_IT") is None
        assert await self._hint(world, "TOKEN") is None, "it is there"

    async def test_another_project(self, world: RecordsWorld) -> None:
        """A few that have it are named; of many only those with a similar id."""
        world.put("proj123", "TOKEN", "canary")
        world.put("acme", KEY, "canary")
        assert f"project acme has a credential {KEY}: is proj123 the right project?" == await self._hint(world, KEY)
        world.put("proj124", KEY, "canary")
        assert "projects acme, proj124 have a credential" in str(await self._hint(world, KEY))
        for number in range(9):
            world.put(f"customer-{number}", KEY, "canary")

        assert f"project proj124 has a credential {KEY}: is proj123 the right project?" == await self._hint(world, KEY)
        assert await self._hint(world, KEY, "zebra") is None

    async def test_both_and_several_names(self, world: RecordsWorld) -> None:
        """Each name has its own hint; no value is in one."""
        world.put("proj123", "AWS_KEYS", "canary")
        world.put("proj124", KEY, "canary")
        hints = await world.records.similar_credentials(ProjectId("proj123"), [KEY, TOKEN])

        assert {
            KEY: f"did you mean AWS_KEYS? project proj124 has a credential {KEY}: is proj123 the right project?"
        } == hints

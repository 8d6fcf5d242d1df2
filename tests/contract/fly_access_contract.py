"""The promises of the port `FlyAccess`, for every implementation."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from flysync.errors import AccessDenied, AppNotFound, DaytonaUnavailable
from flysync.model.core import AppName
from flysync.model.fly import TokenKind
from flysync.sim import macaroon as made

if TYPE_CHECKING:
    from flysync.ports import FlyAccess, SandboxFlyctl

DAY_S = 24 * 3600


class AccessWorld(ABC):
    """One app `acme` that the token shows; one `theirs` of another organisation, one called `nope` nowhere."""

    @abstractmethod
    async def flyctl(self) -> SandboxFlyctl:
        """Give the flyctl of a new sandbox that is there; `prepare` has not been called."""

    async def access(self) -> FlyAccess:
        """Give the way to Fly, by a flyctl that is prepared."""
        flyctl = await self.flyctl()
        await flyctl.prepare()
        return flyctl.access()

    @abstractmethod
    def refuse(self) -> None:
        """Let Fly refuse the token."""

    @abstractmethod
    async def lose_sandbox(self) -> None:
        """Take the sandbox away."""


class FlyAccessContract:
    """Inherit, and give the fixture `world`."""

    async def test_a_sandbox_that_reaches_fly_asks_nobody_else(self, world: AccessWorld) -> None:
        """Three addresses answer, without a flyctl; no others are tried."""
        reach = await (await world.flyctl()).access().reach()

        assert reach is not None
        assert [True] * 3 == list(reach.fly.values())
        assert (None, None) == (reach.essential, reach.other)

    async def test_a_new_sandbox_has_no_flyctl(self, world: AccessWorld) -> None:
        """It is installed, and its version told."""
        flyctl = await (await world.flyctl()).prepare()

        assert (False, None) == (flyctl.was_there, flyctl.too_old)
        assert flyctl.version

    async def test_a_token_that_says_nothing(self, world: AccessWorld) -> None:
        """One that is no macaroon has no end that could be told."""
        access = await world.access()
        token = await access.token()

        assert (TokenKind.OAUTH, None, None) == (token.kind, token.expires_at, token.left_s)

    async def test_a_token_that_fly_accepts_shows_its_apps(self, world: AccessWorld) -> None:
        """Those of others are as if they were not there."""
        access = await world.access()
        await access.sign_in()
        await access.see(AppName("acme"))
        for hidden in ("theirs", "nope"):
            with pytest.raises(AppNotFound):
                await access.see(AppName(hidden))

    async def test_a_token_that_fly_refuses(self, world: AccessWorld) -> None:
        """Whatever is asked with it."""
        access = await world.access()
        world.refuse()

        with pytest.raises(AccessDenied):
            await access.sign_in()
        with pytest.raises(AccessDenied):
            await access.see(AppName("acme"))

    async def test_without_its_sandbox_nothing_is_seen(self, world: AccessWorld) -> None:
        """Nor guessed."""
        access = await world.access()
        await world.lose_sandbox()

        with pytest.raises(DaytonaUnavailable):
            await access.reach()
        with pytest.raises(DaytonaUnavailable):
            await access.token()


def tokens() -> dict[str, tuple[str, TokenKind, float | None]]:
    """Give tokens with their kind and their days left."""
    now = int(time.time())
    end = made.until(now + 10 * DAY_S)
    org, app = made.organization(9), made.deploys(1)
    discharge = made.macaroon(made.until(now + DAY_S), location=made.DISCHARGES)
    whole = made.macaroon(org, app, end)
    return {
        "deploy": (f"FlyV1 {whole}", TokenKind.DEPLOY, 10),
        "organisation": (made.macaroon(org, end), TokenKind.ORG, 10),
        "without an end": (made.macaroon(org), TokenKind.ORG, None),
        "in another age": (made.macaroon(org, made.until(2**62)), TokenKind.ORG, None),
        "the first end counts": (made.macaroon(org, made.until(now + 3 * DAY_S), end), TokenKind.ORG, 3),
        "over": (made.macaroon(org, app, made.until(now - DAY_S)), TokenKind.DEPLOY, -1),
        "personal": (made.macaroon(org, made.login()), TokenKind.PERSONAL, None),
        "with its discharge": (f"{made.macaroon(org, made.login(), end)},{discharge}", TokenKind.ORG, 10),
        "beside an old one": (f"{whole},fo1_abc", TokenKind.DEPLOY, 10),
        "cut": (whole[:-40], TokenKind.DAMAGED, None),
        "cut in the middle of a letter": (whole[:-41], TokenKind.DAMAGED, None),
        "old": ("fo1_abc", TokenKind.OAUTH, None),
    }

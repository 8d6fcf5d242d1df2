from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import REAL
from parts import cases
from rollout_contract import RolloutContract
from secret_store_contract import SecretStoreContract
from store_worlds import MemoryWorld, StoreWorld, loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TestInMemorySecrets(SecretStoreContract, RolloutContract):
    @pytest.fixture
    def world(self) -> StoreWorld:
        return MemoryWorld()


@cases("shell", ["sh", "bash", "zsh"], quick=1)
class TestStandInFlyctl(SecretStoreContract):
    @pytest.fixture
    async def world(self, shell: str) -> AsyncIterator[StoreWorld]:
        path = shutil.which(shell)
        if path is None:
            pytest.skip(f"no {shell} on this machine")
        async with loopback(path) as world:
            yield world


class TestStandInRollouts(RolloutContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[StoreWorld]:
        async with loopback() as world:
            yield world


class TestRealFlyctl(SecretStoreContract, RolloutContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[StoreWorld]:
        flyctl = REAL or shutil.which("flyctl")
        if not flyctl:
            pytest.skip("no real flyctl: set FLYSYNC_TEST_FLYCTL")
        async with loopback("", Path(flyctl)) as world:
            yield world

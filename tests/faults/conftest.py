"""The platform, and the world around it; and that all tests of this folder are slow ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage
from platform_of_tests import platform, world

__all__ = ["platform", "world"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is below this folder; pytest gives what it has found anywhere."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _not_measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """They run again what others run, up to tens of thousands of times; measured, they take a third longer."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    if measuring := Coverage.current():
        measuring.stop()
    yield
    if measuring:
        measuring.start()

"""The platform, and the world around it; and that all tests of this folder are slow ones."""

from pathlib import Path

import pytest
from platform_of_tests import platform, world

__all__ = ["platform", "world"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is below this folder; pytest gives what it has found anywhere."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)

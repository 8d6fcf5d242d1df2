"""Parts of the tests that a machine may lack."""

from __future__ import annotations

import os

import pytest


def need(missing: str | None) -> None:
    """Skip the test where a part is missing, for the reason given; in CI that is a failure."""
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)

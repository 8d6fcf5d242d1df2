"""The optional parts of the package."""

from __future__ import annotations


def how_to_add(extras: str) -> str:
    """Say how to add some: flysync is on no index, and pipx and uv give it an environment of its own."""
    again = f'pipx install --force ".[{extras}]", or uv tool install --force ".[{extras}]"'
    return f'in a checkout of flysync: {again}; in a virtual environment: pip install ".[{extras}]"'

"""What keeps other processes of this machine from the memory of this one."""

from __future__ import annotations

from contextlib import suppress

_PR_SET_DUMPABLE = 4  # read: prctl(2)


def hide() -> None:
    """Make no core dump; on Linux, let nobody trace this process either, or read its memory and environment."""
    import ctypes  # 7 ms, which psycopg takes anyway
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a program in `core_pattern` heeds this, not the limit

"""The platform, and the world around it."""

from platform_of_tests import platform, world

__all__ = ["platform", "world"]

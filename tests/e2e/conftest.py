"""The platform, the world around it, and the backend in Node."""

from node_of_tests import backend, backend_process, node
from platform_of_tests import platform, world

__all__ = ["backend", "backend_process", "node", "platform", "world"]

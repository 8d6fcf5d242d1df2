"""
flyctl inside a sandbox: how it comes there, what it is asked, and what its answers mean.

What flyctl prints can hold anything, values and an app's own log lines included. Only harmless lines of it leave the
sandbox, and of its texts nothing is ever shown: `verdicts` makes types of them, and nobody else reads them.
"""

from flysync.adapters.flyctl.install import FlyctlRecipe, Source
from flysync.adapters.flyctl.sandbox import CONTROLS, FlyctlSandbox, needed_hosts
from flysync.adapters.flyctl.steps import Limits, Steps

__all__ = ["CONTROLS", "FlyctlRecipe", "FlyctlSandbox", "Limits", "Source", "Steps", "needed_hosts"]

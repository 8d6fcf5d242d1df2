"""
Flags, environment, env files and keyring, to one frozen `Settings`.

`bootstrap.load_settings` reads what is around; `load` makes settings of it and does no I/O.
"""

from flysync.settings.loading import Source, load, read_secret
from flysync.settings.table import VARIABLES, Settings

__all__ = ["VARIABLES", "Settings", "Source", "load", "read_secret"]

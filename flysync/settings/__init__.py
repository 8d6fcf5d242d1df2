"""
Flags, environment, env files and keyring, to one frozen `Settings`.

`bootstrap.load_settings` reads what is around; `load` makes settings of it, `survey` shows it; neither does any I/O.
"""

from flysync.settings.loading import Source, load, read_secret, survey
from flysync.settings.table import SECRETS, VARIABLES, Settings

__all__ = ["SECRETS", "VARIABLES", "Settings", "Source", "load", "read_secret", "survey"]

"""
From flags, environment, files and keyring to one frozen `Settings`.

`bootstrap.load_settings` reads the sources; `load` makes settings of them and `survey` shows them, without any I/O.
"""

from flysync.settings.loading import Source, load, survey
from flysync.settings.table import SECRETS, VARIABLES, Settings, needed, read_secret

__all__ = ["SECRETS", "VARIABLES", "Settings", "Source", "load", "needed", "read_secret", "survey"]

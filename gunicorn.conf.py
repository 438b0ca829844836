"""How gunicorn runs the service from a checkout: it finds this file by itself.

The settings stand in the package. Without a checkout: `--config python:puffle_accounts.serving`.
"""

from puffle_accounts.serving import *  # noqa: F403 - all of the settings, by their names

"""gunicorn's processes: at what its master looks before it serves, and how its workers run."""

SETTINGS = "python:puffle_accounts.serving"  # not the gunicorn.conf.py of whatever folder

"""The commands, for `puffle-accounts` and for `flask --app wsgi` alike."""

from __future__ import annotations

from flask import Flask

from puffle_accounts.cli import db, demo, forgotten, keys, orphans, serve, state
from puffle_accounts.cli.terminal import EXTENSION
from puffle_accounts.service import Service

orphans.group.add_command(forgotten.find)
orphans.group.add_command(forgotten.adopt)

COMMANDS = (
    serve.serve,
    db.group,
    keys.group,
    orphans.group,
    state.plugins,
    state.check,
    demo.demo,
)


def init_app(app: Flask, service: Service) -> None:
    """Offer the commands under `flask --app wsgi`, at work on this service."""
    app.extensions[EXTENSION] = service
    for command in COMMANDS:
        app.cli.add_command(command)

"""The real application with one plugin alone, on a temporary database."""

from __future__ import annotations

import logging
import os
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

from werkzeug.test import TestResponse

from puffle_accounts import keys
from puffle_accounts.account import Account
from puffle_accounts.app import create_app
from puffle_accounts.database import schema
from puffle_accounts.database.models import MODELS, AccountRow
from puffle_accounts.environment import FILE
from puffle_accounts.orphans import standing
from puffle_accounts.orphans.attempt import Retrier
from puffle_accounts.orphans.record import NOW
from puffle_accounts.orphans.retry import Pass, Scope
from puffle_accounts.service import Service
from puffle_accounts.snapshots import COLUMNS
from puffle_accounts.testing.calls import account, alone


class PluginService:
    """The service with an author's plugin and no other.

    Args:
        plugin: a module, or an object with methods that are marked with `@hookimpl`.
        folder: for the database.
        timeout: seconds for the hooks of one DELETE.

    Raises:
        BrokenPlugin: the service could not use the plugin.
        ConfigError: a variable has a value that cannot be used.
    """

    def __init__(self, plugin: Any, folder: Path, timeout: float = 10.0) -> None:
        own = {
            "DATABASE_URL": f"sqlite:///{folder / 'puffle-accounts.db'}",
            "PUFFLE_TEARDOWN_TIMEOUT": str(timeout),
        }
        by_file = {f"{name}{FILE}" for name in own}
        environ = {n: value for n, value in os.environ.items() if n not in by_file} | own
        app = create_app(environ, alone(plugin))
        self._client = app.test_client()
        self._service: Service = app.extensions["puffle_accounts"]
        self._user = str(uuid.uuid4())
        schema.upgrade(self._service.database)
        with self._service.database.writing():
            self._key = keys.create(self._user, "tests")

    def add(self, like: Account | None = None, **values: Any) -> Account:
        """Store an account of the user whose DELETEs are sent; return it as it is stored.

        Args:
            like: an account to take the fields from, its id too; an e-mail account by default.
            values: fields that differ, such as the id of a second one.
        """
        given = {name: getattr(like, name) for name in COLUMNS} if like else {}
        stored = account(**{**given, "user_id": self._user, **values})
        row = {name: getattr(stored, name) for name in COLUMNS}
        row["metadata"] = thawed(stored.metadata)
        with self._service.database.writing():
            AccountRow.create(**row)
        return stored

    def delete(self, ended: Account | str, **headers: str) -> TestResponse:
        """Send `DELETE /api/accounts/{id}` as its user, with the key; return the response.

        Args:
            ended: the account, or its id.
            headers: more of them, with `_` for `-`.
        """
        account_id = ended.id if isinstance(ended, Account) else ended
        sent = {"Authorization": f"Bearer {self._key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/api/accounts/{account_id}"
        # In a context of its own: the request's id is not to be that of the test.
        return copy_context().run(self._client.delete, path, headers=sent)

    def orphans(self) -> list[dict[str, Any]]:
        """Return what was left behind, the oldest first, with all columns of the table."""
        return [orphan for page in standing.pages(self._service.database) for orphan in page]

    def retry(self, parked: bool = True) -> dict[str, int]:
        """Try all orphans again, as if all were due; return how many ended in which result.

        Args:
            parked: the parked ones too.
        """
        with self._service.database.autocommitting():
            self._service.database.sql("UPDATE orphans SET next_attempt_at = clock(?)", NOW)
        retrier = Retrier(self._service.ledger, self._service.plugins, self._service.timeout)
        scope = Scope(self._service.plugins.active, parked)
        return dict(copy_context().run(Pass(retrier, scope, threading.Event()).work))

    def close(self) -> None:
        """Close the database."""
        self._service.database.close_all()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back what the application changes in its process: the log, the models' database."""
    root, bound, shown = logging.getLogger(), AccountRow._meta.database, warnings.showwarning
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for added in set(root.handlers) - set(handlers):
            root.removeHandler(added)
        root.setLevel(level)
        logging.captureWarnings(False)
        warnings.showwarning = shown
        if bound:
            bound.bind(MODELS)


def thawed(value: Any) -> Any:
    """Return metadata as JSON knows it: objects as dicts, arrays as lists."""
    if isinstance(value, tuple):
        return [thawed(item) for item in value]
    if hasattr(value, "items"):
        return {name: thawed(item) for name, item in value.items()}
    return value

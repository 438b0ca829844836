"""The database as the soak itself uses it, whatever becomes of the servers meanwhile."""

import threading
import time

import psycopg

PATIENCE = 120.0  # seconds
AGAIN = 0.1


class Sql:
    """Executes a statement until it has been answered: each must be harmless when repeated."""

    def __init__(self, url):
        self._url = url
        self._local = threading.local()

    def __call__(self, statement, *params):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._execute(statement, params)
            except psycopg.Error as error:
                self._drop()
                if time.monotonic() > until or isinstance(error, psycopg.ProgrammingError):
                    raise
                time.sleep(AGAIN)

    def _execute(self, statement, params):
        if getattr(self._local, "connection", None) is None:
            self._local.connection = psycopg.connect(
                self._url,
                autocommit=True,
                application_name="soak",
                connect_timeout=2,
                target_session_attrs="read-write",
            )
        cursor = self._local.connection.execute(statement, params)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    def _drop(self):
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            connection.close()

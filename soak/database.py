"""The database as the soak itself uses it, whatever becomes of the servers meanwhile."""

import time
from contextlib import suppress
from queue import Empty, SimpleQueue

import psycopg

PATIENCE = 120.0  # seconds
AGAIN = 0.1


class Sql:
    """Executes a statement until it has been answered: each must be harmless when repeated."""

    def __init__(self, url):
        self._url = url
        self._idle = SimpleQueue()

    def __call__(self, statement, *params):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._execute(statement, params)
            except psycopg.Error as error:
                if time.monotonic() > until or isinstance(error, psycopg.ProgrammingError):
                    raise
                time.sleep(AGAIN)

    def _execute(self, statement, params):
        connection = self._connected()
        try:
            cursor = connection.execute(statement, params)
            answer = cursor.fetchall() if cursor.description else cursor.rowcount
        except psycopg.Error:
            connection.close()
            raise
        self._idle.put(connection)
        return answer

    def _connected(self):
        with suppress(Empty):
            return self._idle.get_nowait()
        return psycopg.connect(
            self._url,
            autocommit=True,
            application_name="soak",
            connect_timeout=2,
            target_session_attrs="read-write",
        )

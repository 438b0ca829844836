"""The databases: a PostgreSQL server and a SQLite file, both new; the product makes the tables."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.accounts import COLUMNS, FIRST, ID_PREFIX, USER_ID
from tests.postgresql import postgres_server

COMMAND = Path(sys.executable).with_name("puffle-accounts")
# Autovacuum would start in somebody's measurement and not in another's.
SETTINGS = "-c autovacuum=off -c max_connections=200"
EMPTY = ("accounts", "orphans", "idempotency_keys")
# The statements of a delete that calls no provider, for pgbench.
FLOOR = """\\set i :i + 1
\\set n {first} + :i * {clients} + :client_id
SELECT a.* FROM accounts a JOIN api_keys k ON k.user_id = a.user_id
 WHERE a.id = ('{prefix}' || :n)::uuid AND k.sha256 = encode(sha256('{key}'), 'hex')
 AND k.revoked_at IS NULL;
DELETE FROM accounts WHERE id = ('{prefix}' || :n)::uuid;
"""


def command(url, *words):
    """What a command of the product prints; none of these needs a provider."""
    disabled = {"PUFFLE_DISABLED_PLUGINS": "unipile,instantly,agentmail"}
    environment = os.environ | {"DATABASE_URL": url} | disabled
    done = subprocess.run(
        [COMMAND, *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


class Database:
    """Tables, one API key, and accounts to delete."""

    def __init__(self, url):
        self.url = url
        command(url, "db", "upgrade")
        self.key = command(url, "keys", "create", USER_ID)
        self.connection = self.connect()

    def count(self, table):
        """How many rows."""
        return self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


class Postgres(Database):
    name = "PostgreSQL"

    def __init__(self, server):
        self.programs = server.programs
        super().__init__(server.get_uri())

    def connect(self):
        return psycopg.connect(self.url, autocommit=True)

    def version(self):
        return self.connection.execute("SHOW server_version").fetchone()[0]

    def fill(self, rows, table="accounts", columns=COLUMNS):
        self.connection.execute(f"TRUNCATE {', '.join(EMPTY)}")
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
        self.connection.execute(f"ANALYZE {table}")
        self.connection.execute("CHECKPOINT")

    def pgbench(self, clients, count):
        """Deletes per second of the bare statements: nothing is faster on this server."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(FLOOR.format(first=FIRST, prefix=ID_PREFIX, clients=clients, key=self.key))
            script.flush()
            words = [
                self.programs.path("pgbench"),
                "--no-vacuum",
                "--protocol=prepared",
                "--define=i=-1",
                f"--file={script.name}",
            ]
            words += [f"--client={clients}", f"--transactions={count // clients}", self.url]
            done = subprocess.run(
                words,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        return float(done.stdout.partition("tps = ")[2].split()[0])


class SQLite(Database):
    name = "SQLite"

    def connect(self):
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
        # The file remembers it: every contestant gets WAL.
        connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def fill(self, rows, table="accounts", columns=COLUMNS):
        marks = ", ".join("?" * len(columns))
        self.connection.execute("BEGIN")
        for emptied in EMPTY:
            self.connection.execute(f"DELETE FROM {emptied}")
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        self.connection.executemany(statement, rows)
        self.connection.execute("COMMIT")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def postgres():
    with postgres_server(SETTINGS) as server:
        yield Postgres(server)


@contextmanager
def sqlite():
    with tempfile.TemporaryDirectory() as directory:
        yield SQLite(f"sqlite:///{directory}/bench.db")

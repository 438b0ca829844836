"""docs/backups.md, done: copied while the service works, restored, and what that brings back."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from postgresql import program
from support import ROOT, Stack, invoke, only

from puffle_accounts.app import create_app

FIND = ("find", "--missing", "--older-than", "0")  # as on the page
PAGE = (ROOT / "docs" / "backups.md").read_text()


def path_of(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


def from_page(name: str) -> list[str]:
    """Return the arguments of the one command of the page that begins so."""
    [line] = re.findall(rf"^ *\$ {name} (.*)$", PAGE, re.MULTILINE)
    return line.split()


class SqliteBackup:
    def __init__(self, url: str, folder: Path) -> None:
        self._folder = folder
        [code] = re.findall(r'^\$ python3 -c "(.*)"$', PAGE, re.MULTILINE)
        code = code.replace('\\"', '"').replace("puffle-accounts.db", str(path_of(url)))
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)

    def restore(self) -> str:
        return f"sqlite:///{shutil.move(self._folder / 'copy.db', self._folder / 'restored.db')}"

    def drop(self) -> None:
        pass


class PostgresBackup:
    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._dump = url, folder / "puffle.dump"
        options = [o for o in from_page("pg_dump") if o.startswith("--format")]
        self._run("pg_dump", *options, f"--file={self._dump}", url)

    def restore(self) -> str:
        name = f"r{uuid.uuid4().hex}"
        self._sql(f"CREATE DATABASE {name}")
        self._name = name
        restored = re.sub(r"/\w+\?", f"/{name}?", self._url)
        options = [o for o in from_page("pg_restore") if o.startswith(("--exit", "--no-owner"))]
        self._run("pg_restore", *options, f"--dbname={restored}", self._dump)
        return restored

    def drop(self) -> None:
        self._sql(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    def _run(self, name: str, *arguments: object) -> None:
        subprocess.run([program(name), *map(str, arguments)], check=True)

    def _sql(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture
def backup(tmp_path):
    """Copy the database of a stack that works."""
    made = []

    def copy(stack: Stack) -> SqliteBackup | PostgresBackup:
        kind = SqliteBackup if stack.database_url.startswith("sqlite") else PostgresBackup
        made.append(kind(stack.database_url, tmp_path))
        return made[-1]

    yield copy
    for each in made:
        each.drop()


@pytest.fixture
def orphans_of(live):
    """Run a command of `orphans`, with the rest of the configuration as it was."""

    def run(url: str, *arguments: str):
        return invoke({**live.environ, "DATABASE_URL": url}, "orphans", *arguments)

    return run


def delete(url: str, live: Stack, account: str, key: str) -> tuple[int, str | None]:
    """Send a DELETE to a service over the restored database."""
    app = create_app({**live.environ, "DATABASE_URL": url})
    headers = {"Authorization": f"Bearer {live.key}", "Idempotency-Key": key}
    answer = app.test_client().delete(f"/api/accounts/{account}", headers=headers)
    app.extensions["puffle_accounts"].database.close_all()
    return answer.status_code, answer.headers.get("Teardown-Status")


def test_the_page_says_what_is_tried_here():
    assert f"puffle-accounts orphans {' '.join(FIND)}\n" in PAGE


def test_what_a_restore_brings_back_is_found_and_put_right(live, backup, orphans_of):
    kept, ended, disconnected = live.add_email(), live.add_email(), live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    left = live.add_linkedin()
    assert live.delete(left).headers["Teardown-Status"] == "partial"
    live.sandbox.behave("unipile", "ok")

    copy = backup(live)
    assert live.delete(ended, Idempotency_Key="k").headers["Teardown-Status"] == "complete"
    assert live.delete(disconnected).headers["Teardown-Status"] == "complete"
    assert live.retry() == {"done": 1}
    connected = live.row(live.add_email())["email_address"]
    restored = copy.restore()

    def find() -> list[dict]:
        return json.loads(orphans_of(restored, *FIND, "--json").stdout)

    found = find()
    missing = {(row["plugin"], row["account_id"]) for row in found if row.get("missing")}
    assert missing == {("agentmail", ended), ("instantly", ended), ("unipile", disconnected)}
    assert {row["resource_id"] for row in found if not row.get("missing")} == {connected}
    assert orphans_of(restored, "retry").stdout.startswith("1 done, 0 superseded, 0 failed")
    assert delete(restored, live, ended, "k") == (200, "complete"), "the key is forgotten"
    assert delete(restored, live, disconnected, "again") == (200, "complete")
    assert {row["resource_id"] for row in find()} == {connected}
    assert orphans_of(restored, "list", "--json").stdout.strip() == "[]"
    assert delete(restored, live, kept, "kept") == (200, "complete")


def test_a_key_revoked_after_the_backup_is_valid_again(live, backup):
    account = live.add_email()
    copy = backup(live)
    live.sql("UPDATE api_keys SET revoked_at = created_at")
    assert live.delete(account).status_code == 401
    assert delete(copy.restore(), live, account, "k") == (200, "complete")


@only("sqlite")
def test_a_plain_copy_of_a_live_file_lacks_what_was_committed_last(live, backup, tmp_path):
    """Why the page says how to copy."""
    account = live.add_email()
    copied = Path(shutil.copy(path_of(live.database_url), tmp_path / "plain.db"))
    whole = path_of(backup(live).restore())

    def holds(file: Path) -> bool:
        with closing(sqlite3.connect(file)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if "accounts" not in tables:
                return False
            rows = database.execute("SELECT 1 FROM accounts WHERE id = ?", [account])
            return rows.fetchone() is not None

    assert (holds(copied), holds(whole)) == (False, True)

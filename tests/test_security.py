"""What docs/security.md says of attacks, where no other test tries them; and that it says so."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import logging
import re
import sys
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.errors import NoMoreData, ParseException
from support import ROOT, only

from puffle_accounts import idempotency, keys, logs
from puffle_accounts.upstream import bodies
from soak.bad_requests import Requests

PAGE = (ROOT / "docs" / "security.md").read_text()
VICTIM = str(uuid4())
SQL = "'; DROP TABLE accounts; DROP TABLE orphans; --"
ANSI = "\x1b[2J\x1b]0;owned\x07\x9b31m"
SWEEPS = {idempotency.SWEEP.format("<="), idempotency.SWEEP.format(">")}  # in a thread, hourly
RUNS_AS_CODE = {"pickle", "marshal", "shelve", "dill", "yaml", "jsonpickle"}
TESTS = set(
    re.findall(
        r"^def (test_\w+)",
        "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py")),
        re.MULTILINE,
    )
)


def test_every_attack_of_the_page_has_a_test_that_exists():
    table = PAGE.partition("| attack |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) > 25
    for attack, _, named in rows:
        tests = re.findall(r"`(test_\w+)`", named)
        assert tests, f"nothing tries: {attack}"
        assert set(tests) <= TESTS, attack


def test_the_page_tells_of_every_table_that_the_service_makes():
    [first] = (ROOT / "puffle_accounts/database/migrations").glob("0001_*.py")
    for table in re.findall(r"CREATE TABLE (\w+)", first.read_text()):
        assert f"`{table}`" in PAGE


# Requests


def parsed(data: bytes) -> list[str]:
    """Return the targets of all requests that gunicorn, set as the service sets it, reads."""
    config = Config()
    for name, value in (("forwarder_headers", ""), ("http_parser", "python")):
        config.set(name, value)
    found, parser = [], RequestParser(config, iter([data]), ("127.0.0.1", 1))
    with suppress(ParseException, NoMoreData, StopIteration):
        for request in parser:
            found.append(request.path)
            if request.should_close():
                break
    return found


def test_a_request_in_the_body_of_another_is_never_one_of_its_own():
    cases = list(Requests("pk_live_x", VICTIM).smuggled())
    assert len(cases) > 15
    served = {case.name: parsed(b"".join(case.parts)) for case in cases}
    assert {name for name, paths in served.items() if any(VICTIM in p for p in paths)} == set()
    assert any(served.values()), "some are read as what they are"


def test_what_is_a_request_of_its_own_would_be_noticed():
    pair = Requests("pk_live_x", VICTIM)
    assert len(parsed(pair.request() + pair.request(f"/{VICTIM}".encode()))) == 2


@only("sqlite")
@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_is_logged_forges_a_line_or_commands_a_terminal(live, form):
    [handler] = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    handler.setFormatter(logs.formatter(form))
    handler.setStream(written := io.StringIO())
    odd = ANSI + "\n\r\u2028 forged"
    logging.getLogger("a.server").warning("Invalid request: %s", odd)
    logging.getLogger("a.plugin").warning("said", extra={"reason": ANSI, odd: "name"})
    handler.setStream(sys.stderr)
    assert len(written.getvalue().splitlines()) == 2
    assert all(c.isprintable() or c == "\n" for c in written.getvalue())


# The database


@pytest.fixture
def statements(live, monkeypatch):
    """Every statement that is sent from now on, with its parameters."""
    sent, sql = [], type(live.database).sql

    def noted(self, statement, *params):
        sent.append((statement, params))
        return sql(self, statement, *params)

    monkeypatch.setattr(type(live.database), "sql", noted)
    return sent


@only("sqlite")
def test_somebody_elses_account_costs_the_statements_of_one_that_never_was(live, statements):
    cost = []
    for account in (live.add_linkedin(user_id=str(uuid4())), str(uuid4())):
        statements.clear()
        assert live.delete(account, Idempotency_Key="same").status_code == 404
        said = [statement for statement, _ in statements]
        cost.append([each for each in said if each not in SWEEPS])
    assert len(cost[0]) > 2
    assert cost[0] == cost[1]


@only("sqlite")
def test_the_database_is_asked_for_the_digest_of_a_key_and_never_told_the_key(live, statements):
    assert live.delete(str(uuid4())).status_code == 404
    params = [value for _, given in statements for value in given]
    assert hashlib.sha256(live.key.encode()).hexdigest() in params
    assert live.key not in map(str, params)
    assert "sha256 = ?" in keys.IDENTIFY, "an index finds it: nothing compares byte by byte"


def test_what_is_sql_is_a_value_wherever_it_stands(live):
    live.sandbox.behave("unipile", "fail")
    bystander = live.add_linkedin(provider_account_id="bystander")
    account = live.add_linkedin(provider_account_id=SQL, display_name=SQL)
    assert live.delete(account, Idempotency_Key=SQL).status_code == 200
    assert live.delete(account, Idempotency_Key=SQL).headers["Idempotency-Replayed"] == "true"
    [orphan] = live.orphans()
    assert SQL in str(orphan["account"])
    live.make_due()
    live.retry()
    assert live.row(bystander)["status"] == "connected"


# Providers, and what is read


def test_a_bomb_within_a_bomb_is_not_unpacked_whole():
    bomb = gzip.compress(gzip.compress(b"[" * 20_000_000))
    answer = SimpleNamespace(body=bomb, whole=True, header=lambda _: "gzip, gzip")
    tracemalloc.start()
    try:
        assert bodies._decoded(answer, 100) == b"[" * 100
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_nothing_that_is_read_can_run_as_code():
    for path in [*(ROOT / "puffle_accounts").rglob("*.py"), *(ROOT / "plugins").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path
                continue
            else:
                continue
            assert not names & RUNS_AS_CODE, path


@only("sqlite")
def test_a_key_that_other_code_named_reaches_the_terminal_without_control_characters(live):
    live.sql("UPDATE api_keys SET name = ?", ANSI)
    shown = live.app.test_cli_runner().invoke(args=["keys", "list"]).stdout
    assert "31m" in shown
    assert shown.replace("\n", "").isprintable()

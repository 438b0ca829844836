"""How PostgreSQL goes about the product's statements: each is explained just before it is run."""

import threading
from contextlib import contextmanager
from typing import NamedTuple

import psycopg

from bench import rows
from puffle_accounts.app import create_app
from puffle_accounts.cli.terminal import EXTENSION
from puffle_accounts.orphans.attempt import Retrier
from puffle_accounts.orphans.retry import Pass, Scope

EXPLAINED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


class Plan(NamedTuple):
    """Milliseconds, the ways to the rows, and the statement's text in one line."""

    ms: float
    scans: list
    statement: str


def plans_of_a_delete(environ, url, key):
    """The plans of what a keyed DELETE of one account asks."""
    with psycopg.connect(url) as connection:
        statement = "SELECT id FROM accounts WHERE user_id = %s"
        [(account_id,)] = connection.execute(statement, [rows.USER_ID]).fetchall()
    app = create_app(environ)
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "bench"}
    with explained(app, url) as found:
        app.extensions[EXTENSION].idempotency_keys.sweep()
        answer = app.test_client().delete(f"/api/accounts/{account_id}", headers=headers)
    assert answer.status_code == 200, answer.get_data()
    return found


def plans_of_a_retry(environ, url):
    """The plans of what a retry of one orphan of each plugin asks."""
    app = create_app(environ)
    service = app.extensions[EXTENSION]
    retrier = Retrier(service.ledger, service.plugins, service.timeout)
    with explained(app, url) as found:
        for plugin in service.plugins.active:
            Pass(retrier, Scope([plugin], limit=1), threading.Event()).work()
    return found


@contextmanager
def explained(app, url):
    """The plans of each different statement that the application runs meanwhile."""
    database, found = app.extensions[EXTENSION].database, {}
    execute = database.execute_sql

    def explain(sql, params=None):
        if sql.lstrip().startswith(EXPLAINED) and sql not in found:
            found[sql] = plan_of(url, sql, params)
        return execute(sql, params)

    database.execute_sql = explain
    plans = []
    try:
        yield plans
    finally:
        database.close_all()
        plans.extend(found.values())


def plan_of(url, sql, params):
    with psycopg.connect(url) as connection:
        connection.execute("SET LOCAL timezone = 'UTC'; SET LOCAL lock_timeout = '2s'")
        [(answer,)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params).fetchall()
        connection.rollback()
    scans = [
        f"{node['Node Type']} {node.get('Index Name') or node.get('Relation Name', '')}".strip()
        for node in nodes(answer[0]["Plan"])
        if "Scan" in node["Node Type"]
    ]
    return Plan(answer[0]["Execution Time"], scans, " ".join(sql.split()))


def nodes(node):
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)

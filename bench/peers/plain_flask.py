"""The service as a competent engineer writes it without thinking of speed.

Flask under gunicorn's threads, a pool of psycopg connections, `requests`
without a session, one provider after the other.
"""

import hashlib
import os
import re
import sqlite3
from contextlib import closing
from urllib.parse import quote

import requests
from flask import Flask, jsonify, request

DATABASE_URL = os.environ["DATABASE_URL"]
ACCOUNT_ID = re.compile(
    "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff"
)
FIND_KEY = "SELECT user_id FROM api_keys WHERE sha256 = %s AND revoked_at IS NULL"
FIND_ACCOUNT = (
    "SELECT type, status, provider_account_id, email_address, agentmail_inbox_id,"
    " instantly_account_id FROM accounts WHERE id = %s AND user_id = %s"
)
SOFT_DELETE = (
    "UPDATE accounts SET status = 'disconnected', updated_at = CURRENT_TIMESTAMP WHERE id = %s"
)
HARD_DELETE = "DELETE FROM accounts WHERE id = %s"

app = Flask(__name__)

if DATABASE_URL.startswith("sqlite"):
    PATH = DATABASE_URL.removeprefix("sqlite:///")

    def query(statement, *values):
        with closing(sqlite3.connect(PATH, timeout=30)) as connection, connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection.execute(statement.replace("%s", "?"), values).fetchone()
else:
    from psycopg_pool import ConnectionPool

    POOL = ConnectionPool(DATABASE_URL, min_size=4, max_size=32, open=True)

    def query(statement, *values):
        with POOL.connection() as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchone() if cursor.description else None


@app.delete("/api/accounts/<account_id>")
def delete_account(account_id):
    user_id = authenticate()
    if user_id is None:
        return problem(401, "unauthorized")
    if not ACCOUNT_ID.fullmatch(account_id):
        return problem(400, "invalid_account_id")
    account_id = account_id.lower()
    account = query(FIND_ACCOUNT, account_id, user_id)
    if account is None:
        return problem(404, "account_not_found")
    kind, status, *provider_ids = account
    query(remove_from_providers(kind, status, *provider_ids), account_id)
    return jsonify(success=True)


def authenticate():
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    row = query(FIND_KEY, hashlib.sha256(key.encode()).hexdigest())
    return row[0] if row and scheme == "Bearer" else None


def remove_from_providers(kind, status, unipile_id, email, inbox_id, instantly_id):
    """Call the account's providers; answer with the statement for its row."""
    if kind == "linkedin":
        if status == "disconnected":
            return HARD_DELETE
        call("unipile", "DELETE", f"/accounts/{quote(unipile_id, safe='')}")
        return SOFT_DELETE
    if instantly_id:
        call("instantly", "POST", "/api/v2/accounts/warmup/disable", json={"emails": [email]})
        call("instantly", "DELETE", f"/api/v2/accounts/{quote(instantly_id, safe='')}")
    if inbox_id:
        call("agentmail", "DELETE", f"/v0/inboxes/{quote(inbox_id, safe='')}")
    return HARD_DELETE


def call(provider, method, path, **options):
    key = os.environ[f"{provider.upper()}_API_KEY"]
    headers = {"X-API-KEY": key} if provider == "unipile" else {"Authorization": f"Bearer {key}"}
    url = os.environ[f"{provider.upper()}_BASE_URL"] + path
    try:
        requests.request(method, url, headers=headers, timeout=10, **options).raise_for_status()
    except requests.RequestException as error:
        app.logger.warning("%s: %s", provider, error)


def problem(status, code):
    response = jsonify(type="about:blank", title=code, status=status, error=code)
    response.status_code, response.mimetype = status, "application/problem+json"
    return response

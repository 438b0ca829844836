"""What the service writes down of its work: events, their form, and what is never among it."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from support import Gunicorn, only, run_forked, use, wait_until, write_distribution

from puffle_accounts import TeardownFailed
from puffle_accounts.testing import FakeProvider

on_one_database = only("sqlite")
TRACEBACK = "Traceback (most recent call last)"
NO_METHOD = "Invalid HTTP method: 'not'"
UNKNOWN = "0d9a8a52-7f0c-4f38-9d0a-5f1d7a1c9b3e"
MARKER = "what-the-provider-said"
PROVIDERS = ("UNIPILE", "INSTANTLY", "AGENTMAIL")
PLUGIN = """
import logging
from datetime import timedelta
from puffle_accounts import hookimpl

log = logging.getLogger(__name__)

@hookimpl
def teardown_account(account):
    log.info("crm.asked")
    {does}
"""


def of(lines: list[dict], event: str) -> dict:
    """Return the one line of an event."""
    [line] = [line for line in lines if line["event"] == event]
    return line


def events(text: str) -> list[dict]:
    """Return the lines of a log in JSON; every line has to be one."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def logged(live):
    """Return the lines that the service of this process has written since the last call."""
    [handler] = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]

    def lines() -> list[dict]:
        written = handler.setStream(io.StringIO())
        return events(written.getvalue())

    handler.setStream(io.StringIO())
    return lines


# Events and their fields


@on_one_database
def test_a_delete_is_a_line_for_each_plugin_and_one_for_the_account(logged, live):
    live.sandbox.behave("agentmail", "fail")
    linkedin, email = live.add_linkedin(), live.add_email()
    for account in (linkedin, email):
        assert live.delete(account, X_Request_ID=f"request-{account}").status_code == 200
    lines = logged()
    assert len(lines) == 5
    for line in lines:
        account = line["account"]
        assert line["request_id"] == f"request-{account}"
        assert line["user"] == live.user_id
        assert isinstance(line["ms"], int)
        assert line["ms"] >= 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    told = {(line["event"], line.get("plugin"), line["level"]): line for line in lines}
    assert {key: line["outcome"] for key, line in told.items()} == {
        ("teardown.done", "unipile", "info"): "session revoked",
        ("account.disconnected", None, "info"): "complete",
        ("teardown.done", "instantly", "info"): "warm-up disabled, account deleted",
        ("teardown.failed", "agentmail", "warning"): "AgentMail: inbox delete: 500 internal_error",
        ("account.deleted", None, "info"): "partial",
    }
    assert told["account.deleted", None, "info"]["account"] == email


@on_one_database
@pytest.mark.parametrize(
    ("token", "outcome"), [("Basic eA==", "missing"), ("Bearer pk_live_" + "x" * 43, "invalid")]
)
def test_a_rejected_key_is_a_line_without_the_key(logged, live, token, outcome):
    assert live.delete(UNKNOWN, X_Request_ID="r-1", Authorization=token).status_code == 401
    [line] = logged()
    assert (line["event"], line["level"]) == ("key.rejected", "warning")
    assert (line["outcome"], line["request_id"]) == (outcome, "r-1")
    assert "x" * 20 not in str(line)


@on_one_database
def test_a_retry_is_a_line_for_each_orphan_with_the_request_id_of_its_delete(live):
    live.sandbox.behave("unipile", "fail")
    accounts = {name: live.add_linkedin() for name in ("done", "superseded", "failed", "parked")}
    for name, account in accounts.items():
        assert live.delete(account, X_Request_ID=f"r-{name}").status_code == 200
    live.change(accounts["superseded"], status="connected")
    live.sql(
        "UPDATE orphans SET next_attempt_at = clock(?)"
        " WHERE request_id IN ('r-failed', 'r-parked')",
        timedelta(days=1),
    )
    live.sandbox.behave("unipile", "ok")
    lines = events(live.command("orphans", "retry").stderr)
    live.sandbox.behave("unipile", "fail")
    live.make_due()
    live.sql("UPDATE orphans SET attempts = 9 WHERE request_id = 'r-parked'")
    lines += events(live.command("orphans", "retry").stderr)
    told = {line["request_id"]: line for line in lines if line["event"].startswith("orphan.")}
    assert {
        request_id: (line["event"], line["account"], line["user"])
        for request_id, line in told.items()
    } == {
        f"r-{name}": (event, accounts[name], live.user_id)
        for name, event in {
            "done": "orphan.retried",
            "superseded": "orphan.superseded",
            "failed": "orphan.retried",
            "parked": "orphan.parked",
        }.items()
    }
    assert {line["plugin"] for line in told.values()} == {"unipile"}
    assert all(isinstance(line["ms"], int) for line in told.values())
    assert {n: told[f"r-{n}"]["outcome"] for n in accounts} == {
        "done": "done",
        "superseded": "superseded",
        "failed": "Unipile: session revoke: 500 errors/unexpected_error",
        "parked": "Unipile: session revoke: 500 errors/unexpected_error",
    }
    asked = [line for line in lines if line["event"] == "teardown.failed"]
    assert {line["request_id"] for line in asked} == {"r-failed", "r-parked"}


@on_one_database
def test_a_retry_that_hangs_is_logged_with_the_request_id_of_its_own_delete(logged, live):
    def hang(account):
        time.sleep(10)

    use(live, crm=hang)
    live.service.timeout = 0.2
    accounts = {f"r-{number}": live.add(type="smtp") for number in range(2)}
    for request_id, account in accounts.items():
        assert live.delete(account, X_Request_ID=request_id).status_code == 200
    logged()
    live.make_due()
    live.app.test_cli_runner().invoke(args=["orphans", "retry"])
    lines = logged()
    assert min(line["ms"] for line in lines) >= 150
    assert {(line["event"], line["request_id"], line["account"]) for line in lines} == {
        (event, request_id, account)
        for event in ("teardown.failed", "orphan.retried")
        for request_id, account in accounts.items()
    }


# Plugins' own lines


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
@on_one_database
def test_a_plugins_own_lines_carry_the_request_id_and_its_traceback_is_logged_once(
    stack, gunicorn, tmp_path, worker
):
    write_distribution(tmp_path, "crm", PLUGIN.format(does="{}['what the plugin did wrong']"))
    server = gunicorn("--worker-class", worker, PYTHONPATH=str(tmp_path))
    assert stack.delete(stack.add(type="smtp"), X_Request_ID="r-1").status_code == 200
    lines = events(server.log.read_text())
    assert of(lines, "crm.asked")["request_id"] == "r-1"
    failed = of(lines, "plugin.failed")
    assert failed["level"] == "error"
    assert failed["outcome"] == "KeyError: 'what the plugin did wrong'"
    assert failed["exception"].startswith(TRACEBACK)
    assert "in teardown_account" in failed["exception"]
    assert server.log.read_text().count(TRACEBACK) == 1


@on_one_database
def test_a_failure_that_a_plugin_announces_has_no_traceback(logged, live):
    def announce(account):
        raise TeardownFailed("contact is left")

    use(live, crm=announce)
    assert live.delete(live.add(type="smtp")).status_code == 200
    line = of(logged(), "teardown.failed")
    assert line["outcome"] == "contact is left"
    assert TRACEBACK not in str(line)


@on_one_database
def test_no_part_of_a_traceback_holds_control_characters_or_is_endless(logged, live):
    def fail(account):  # the only exception that brings a file's name and a line of its own
        raise SyntaxError("odd", ("f\x1b[2J" + "f" * 5000, 1, 1, "x\x1b[2J" + "y" * 5000))

    use(live, crm=fail)
    assert live.delete(live.add(type="smtp")).status_code == 200
    trace = of(logged(), "plugin.failed")["exception"]
    assert "\x1b" not in trace
    assert "SyntaxError: odd" in trace
    assert max(map(len, trace.splitlines())) <= 510, "500 and the indentation"


@on_one_database
def test_a_warning_takes_the_same_form(stack, gunicorn, tmp_path):
    warns = "return __import__('warnings').warn('this will go away')"
    write_distribution(tmp_path, "crm", PLUGIN.format(does=warns))
    server = gunicorn(PYTHONPATH=str(tmp_path))
    assert stack.delete(stack.add(type="smtp")).status_code == 200
    [line] = [e for e in events(server.log.read_text()) if "this will go away" in e["event"]]
    assert line["level"] == "warning"


# gunicorn's own lines


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
@on_one_database
def test_gunicorns_logs_are_in_the_same_form_and_know_which_request_they_are_of(
    stack, gunicorn, worker
):
    server = gunicorn(
        *("--worker-class", worker, "--threads", "1"),
        *("--access-logfile", "-", "--log-level", "debug"),
    )
    account = stack.add_linkedin()
    assert stack.delete(account, X_Request_ID="r-1").status_code == 200
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: r-2\r\n\r\n")
        assert b"r-2" in client.recv(10_000)
        client.sendall(b"not HTTP at all\r\n\r\n")
        wait_until(lambda: "Invalid request" in server.log.read_text())
    server.stop()
    lines = events(server.log.read_text())
    assert {"level", "event", "timestamp"} <= set.intersection(*(set(line) for line in lines))
    [access] = [line for line in lines if '" 200 17 "' in line["event"]]
    assert f'"DELETE /api/accounts/{account} HTTP/1.1"' in access["event"]
    assert (access["level"], access["request_id"]) == ("info", "r-1")
    assert "request_id" not in of(lines, "Invalid request from ip=127.0.0.1: " + NO_METHOD)


# The two forms


def through_a_terminal(*arguments: str, **environ: str) -> str:
    """Run the console command with a terminal as standard error; return what it showed."""
    outside, inside = pty.openpty()
    with os.fdopen(outside, "rb") as terminal:
        subprocess.run(
            [sys.executable, "-m", "puffle_accounts", *arguments],
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=inside,
            timeout=60,
        )
        os.close(inside)
        shown = b""
        try:
            while more := terminal.read1():
                shown += more
        except OSError:  # how a terminal says that nobody writes to it any more
            pass
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("asked", "on_a_terminal", "is_json"),
    [("", True, False), ("", False, True), ("json", True, True), ("text", False, False)],
)
def test_lines_are_text_on_a_terminal_and_json_elsewhere_unless_asked(
    tmp_path, asked, on_a_terminal, is_json
):
    environ = {"PUFFLE_LOG_FORMAT": asked, "DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}"}
    if on_a_terminal:
        shown = through_a_terminal("plugins", **environ)
    else:
        shown = run_forked("puffle_accounts", "plugins", **environ).stderr
    lines = shown.splitlines()
    assert len(lines) == 3, "each provider's missing key, a line each"
    if is_json:
        assert {line["event"] for line in events(shown)} == {"provider.unconfigured"}
    else:
        assert all(re.search(r"warning.* provider\.unconfigured .*plugin=", line) for line in lines)
        assert "\x1b" not in shown
        assert "{" not in shown


@on_one_database
def test_text_holds_the_same_fields_and_a_traceback_that_can_be_read(stack, gunicorn, tmp_path):
    write_distribution(tmp_path, "crm", PLUGIN.format(does="raise ValueError('no')"))
    server = gunicorn(
        *("--access-logfile", "-"), PUFFLE_LOG_FORMAT="text", PYTHONPATH=str(tmp_path)
    )
    account = stack.add_linkedin()
    assert stack.delete(account, X_Request_ID="r-1").status_code == 200
    text = wait_until(lambda: (t := server.log.read_text()) and "200 17" in t and t)
    [done] = [line for line in text.splitlines() if " teardown.done " in line]
    for field in (
        "plugin=unipile",
        f"account={account}",
        f"user={stack.user_id}",
        "outcome='session revoked'",
        "request_id=r-1",
    ):
        assert field in done
    assert re.search(r" ms=\d+", done)
    assert re.search(r"\[info +\] .*DELETE /api/accounts/.* 200 17", text)
    assert text.count(TRACEBACK) == 1
    assert "\nValueError: no\n" in text
    assert "\x1b" not in text


# Never


@on_one_database
def test_no_log_and_no_table_holds_a_key_or_what_a_provider_said(stack, tmp_path):
    """DELETEs of every kind at providers that fail in every way, and retries of what is left."""
    write_distribution(
        tmp_path,
        "crm",
        PLUGIN.format(
            does="import os; raise ValueError('refused ' + os.environ['INSTANTLY_API_KEY']"
            " + ' at https://me:crm-password@crm.example')"
        ),
    )
    log = tmp_path / "gunicorn.log"
    body = {"message": MARKER, "code": MARKER + " !", "type": f"<{MARKER}>", "detail": [MARKER]}
    secrets = {f"{name}_API_KEY": f'a-half-of-{name}"\\+/' for name in PROVIDERS}
    with ExitStack() as closing:
        urls = {}
        for name in PROVIDERS:
            provider = closing.enter_context(FakeProvider())
            for status in (400, 401, 402, 403, 404, 409, 429, 500, 503, 302, 200):
                provider.answer(status, body, Location=f"http://127.0.0.1:9/?{MARKER}")
            urls[f"{name}_BASE_URL"] = provider.url
        environ = {**urls, **secrets, "PYTHONPATH": str(tmp_path)}
        server = Gunicorn(
            stack, log, "--access-logfile", "-", "--log-level", "debug", **environ
        ).wait_until_ready()
        closing.callback(server.kill)
        accounts = [stack.add_linkedin() for _ in range(6)] + [stack.add_email() for _ in range(6)]
        for account in accounts:
            assert stack.delete(account, Idempotency_Key=f"k-{account}").status_code == 200
        assert stack.delete(accounts[0], key=stack.key + "x").status_code == 401
        stack.make_due()
        said = [stack.command("orphans", "retry", "--parked", **environ)]
        said += [
            stack.command(*arguments, **environ)
            for arguments in (
                ("orphans", "list", "--json"),
                ("check",),
            )
        ]
        assert stack.orphans()
    texts = [log.read_text(), *(p.stdout + p.stderr for p in said)]
    texts += [
        str(stack.sql(f"SELECT * FROM {table}"))
        for table in ("accounts", "api_keys", "orphans", "idempotency_keys")
    ]
    for secret in (stack.key, MARKER, "crm-password", "a-half-of"):
        assert [text for text in texts if secret in text] == [], secret

"""The real gunicorn with the project's own gunicorn.conf.py, under both kinds of worker."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from support import Gunicorn, only, run, wait_until, write_distribution

on_one_database = only("sqlite")
both_workers = pytest.mark.parametrize("worker", ["gevent", "gthread"])

SLEEPER = """
import logging, time
from puffle_accounts import hookimpl

@hookimpl
def teardown_account(account):
    logging.getLogger(__name__).info("sleeping")
    time.sleep(600)
"""


@both_workers
def test_accounts_of_every_kind_are_taken_apart(stack, gunicorn, worker):
    server = gunicorn("--worker-class", worker)
    connected, email = stack.add_linkedin(), stack.add_email()
    disconnected, other = stack.add_linkedin(status="disconnected"), stack.add(type="smtp")
    answers = [stack.delete(account) for account in (connected, email, disconnected, other)]
    assert [(a.status_code, a.content) for a in answers] == [(200, b'{"success": true}')] * 4
    assert stack.row(connected)["status"] == "disconnected"
    assert [stack.row(account) for account in (email, disconnected, other)] == [None] * 3
    assert stack.sandbox.resources["instantly"] == stack.sandbox.resources["agentmail"] == set()
    assert f"Using worker: {worker}" in [line["event"] for line in server.lines()]


@on_one_database
def test_gevent_is_what_serves_where_it_is_installed(stack, tmp_path):
    server = Gunicorn(stack, tmp_path / "gunicorn.log").wait_until_ready()
    server.kill()
    assert "Using worker: gevent" in [line["event"] for line in server.lines()]


@pytest.mark.parametrize(
    ("worker", "number"),
    [
        ("gevent", signal.SIGTERM),
        ("gthread", signal.SIGTERM),
        ("gevent", signal.SIGINT),
        ("gevent", signal.SIGKILL),  # of the master alone
    ],
)
@on_one_database
def test_a_request_under_way_when_it_is_ended_gets_its_200(stack, gunicorn, worker, number):
    server = gunicorn("--worker-class", worker)
    noticed = re.compile("Handling signal: |Parent changed")
    stack.sandbox.behave("unipile", "hang")
    account = stack.add_linkedin()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(stack.delete, account, Connection="close")
        wait_until(lambda: stack.sandbox.calls)
        if number is signal.SIGINT:
            os.killpg(server.process.pid, number)  # a terminal's Ctrl-C goes to the workers too
        else:
            server.process.send_signal(number)
        wait_until(lambda: noticed.search(server.log.read_text()))
        time.sleep(0.5)  # longer than gunicorn's quick end
        stack.sandbox.behave("unipile", "ok")
        assert answer.result().headers["Teardown-Status"] == "complete"
    assert stack.row(account)["status"] == "disconnected"
    assert server.process.wait(timeout=30) == (-number if number is signal.SIGKILL else 0)
    wait_until(lambda: "Worker exiting" in server.log.read_text())


@both_workers
@on_one_database
def test_a_plugin_that_never_returns_does_not_keep_it_from_ending(
    stack, gunicorn, worker, tmp_path
):
    write_distribution(tmp_path, "puffle-sleeper", SLEEPER)
    server = gunicorn(
        *("--worker-class", worker), PYTHONPATH=str(tmp_path), PUFFLE_TEARDOWN_TIMEOUT="0.5"
    )
    account = stack.add(type="smtp")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(stack.delete, account, Connection="close")
        wait_until(lambda: '"sleeping"' in server.log.read_text())
        server.process.send_signal(signal.SIGTERM)
        assert answer.result().headers["Teardown-Status"] == "partial"
    assert stack.row(account) is None
    assert [orphan["plugin"] for orphan in stack.orphans()] == ["puffle-sleeper"]
    assert server.process.wait(timeout=30) == 0


@pytest.mark.parametrize("graceful", ["5", "10"])
def test_a_graceful_timeout_within_the_teardown_deadline_is_refused(graceful):
    ended = run(
        *("gunicorn", "--bind", "127.0.0.1:0", "--graceful-timeout", graceful, "wsgi:app"),
        PUFFLE_TEARDOWN_TIMEOUT="10",
    )
    assert ended.returncode not in (0, -9)
    [line] = [line for line in ended.stderr.splitlines() if "Starting gunicorn" not in line]
    assert f"graceful_timeout ({graceful} s)" in line
    assert "PUFFLE_TEARDOWN_TIMEOUT (10 s)" in line


@pytest.mark.parametrize(
    ("calls", "admitted"), [(" ", 3), ("2", 2)], ids=["half of its threads", "what is set"]
)
@on_one_database
def test_under_gthread_a_hung_provider_holds_no_more_than(stack, gunicorn, calls, admitted):
    gunicorn(
        *("--worker-class", "gthread", "--threads", "6"),
        **{"PUFFLE_PLUGIN_CALLS": calls, "PUFFLE_TEARDOWN_TIMEOUT": "20"},
    )
    stack.sandbox.behave("unipile", "hang")
    accounts = [stack.add_linkedin() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(stack.delete, account) for account in accounts]
        wait_until(lambda: sum(answer.done() for answer in answers) == 6 - admitted)
        assert len(stack.sandbox.calls) == admitted
        stack.sandbox.behave("unipile", "ok")
    said = [answer.result().headers["Teardown-Status"] for answer in answers]
    assert (said.count("complete"), said.count("partial")) == (admitted, 6 - admitted)


@on_one_database
def test_nothing_is_put_into_the_home_directory(stack, gunicorn, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    gunicorn(
        "--worker-class",
        "gevent",
        HOME=str(home),
        XDG_RUNTIME_DIR=str(home),
        XDG_CONFIG_HOME=str(home),
    )
    assert list(home.iterdir()) == []


@on_one_database
def test_no_header_of_a_peer_changes_the_route(stack, gunicorn):
    gunicorn("--worker-class", "gevent")
    account = stack.add_email()
    answer = stack.delete(account, SCRIPT_NAME="/foo", X_Forwarded_Proto="https")
    assert (answer.status_code, stack.row(account)) == (200, None)
    url = f"{stack.url}/x/api/accounts/{account}"
    elsewhere = requests.delete(url, headers={"SCRIPT_NAME": "/x"})
    assert (elsewhere.status_code, elsewhere.json()["error"]) == (404, "not_found")


@on_one_database
@pytest.mark.parametrize("path", ["/api%2Faccounts/{}", "/api/accounts%2f{}"])
def test_a_quoted_slash_separates_nothing(stack, gunicorn, path):
    gunicorn()
    account = stack.add_email()
    answer = requests.delete(
        stack.url + path.format(account), headers={"Authorization": f"Bearer {stack.key}"}
    )
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert stack.row(account) is not None

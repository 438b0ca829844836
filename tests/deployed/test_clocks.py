"""Contract §4: one clock counts, the database's, however wrong that of a machine is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import requests
from orphanage import called_for, leave
from support import ROOT, Stack, assert_problem, free_port, only, wait_until

HOUR = timedelta(hours=1)

pytestmark = [
    pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed"),
    only("postgresql"),
]


def faked(clock: str, **environ: str) -> dict[str, str]:
    """Return the environment of a process whose clock is wrong by so much: `+10m`, `-1y`."""
    # A machine whose clock is set does not set the monotonic one.
    return {"LD_PRELOAD": preload(), "FAKETIME": clock, "DONT_FAKE_MONOTONIC": "1", **environ}


@cache
def preload() -> str:
    """Return the library that fakes a clock, as the command knows it.

    The command fails where one of its own with the same process id was killed and left a semaphore.
    """
    for _ in range(10):
        words = ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"]
        found = subprocess.run(words, stdout=subprocess.PIPE, text=True)
        if found.returncode == 0:
            return found.stdout.strip()
    raise AssertionError("faketime does not start: remove /dev/shm/*faketime*")


def times_in(stack: Stack, table: str, *columns: str) -> list[timedelta]:
    """Return how far ahead of the database's clock each time lies that stands in a table."""
    ahead = ", ".join(f"{column} - statement_timestamp()" for column in columns)
    return [t for row in stack.sql(f"SELECT {ahead} FROM {table}") for t in row if t is not None]


def test_machines_whose_clocks_are_wrong_work_on_each_orphan_once(stack):
    """Each of four retriers holds its eight while the next one looks for work."""
    accounts = leave(stack, 32)
    stack.sandbox.behave("unipile", "hang")
    retriers = []
    for clock in ("-10m", "+1y", "+0", "-1y"):
        environ = faked(clock, PUFFLE_TEARDOWN_TIMEOUT="60")
        retriers.append(stack.start_command("orphans", "retry", **environ))
        wait_until(lambda: len(called_for(stack)) == 8 * len(retriers))
    assert len(set(called_for(stack))) == 32
    stack.sandbox.behave("unipile", "ok")
    said = [retrier.communicate(timeout=60)[0] for retrier in retriers]
    assert said == ["8 done, 0 superseded, 0 failed, 0 parked\n"] * 4
    assert len(called_for(stack)) == len(accounts)


def test_a_clock_that_jumps_makes_no_orphan_due_early_or_late(stack, tmp_path):
    file = tmp_path / "clock"
    file.write_text("+0")
    environ = faked("", FAKETIME_TIMESTAMP_FILE=str(file), FAKETIME_NO_CACHE="1")
    del environ["FAKETIME"]
    stack.sandbox.behave("unipile", "fail")
    retrier = stack.start_command("orphans", "retry", "--every", "0.1", **environ)
    for calls, clock in enumerate(("+0", "+1y", "-1y", "+10m"), 1):
        file.write_text(clock)
        leave(stack)
        wait_until(lambda: all(orphan["attempts"] == 2 for orphan in stack.orphans()))
        time.sleep(0.5)  # several passes
        assert len(called_for(stack)) == calls
    retrier.terminate()
    log = retrier.communicate(timeout=60)[1]
    assert {"2026", "2027", "2025"} <= {line[15:19] for line in log.splitlines()}, "it was faked"
    for ahead in times_in(stack, "orphans", "next_attempt_at"):
        assert timedelta(0) < ahead <= timedelta(minutes=4)
    for ahead in times_in(stack, "orphans", "created_at"):
        assert -HOUR < ahead <= timedelta(0)
    assert times_in(stack, "orphans", "leased_until") == []


@pytest.fixture
def serve(stack):
    """Start the application in a process with another clock; return its URL."""
    started = []

    def start(clock: str) -> str:
        port = free_port()
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", str(port)]
        environ = stack.process_environ(**faked(clock))
        started.append(subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url))
        return url

    yield start
    for process in started:
        process.kill()
        process.wait()
        for left in Path("/dev/shm").glob(f"*faketime_*_{process.pid}"):
            left.unlink()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 404
    except requests.ConnectionError:
        return False


def test_an_idempotency_key_holds_on_machines_whose_clocks_are_wrong(stack, serve):
    def delete(url: str, account: str, key: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {stack.key}", "Idempotency-Key": key}
        return requests.delete(f"{url}/api/accounts/{account}", headers=headers, timeout=30)

    def assert_held(holder: str, other: str) -> None:
        """While one works under a key, another one does not."""
        account, calls = stack.add_linkedin(), len(stack.sandbox.calls)
        stack.sandbox.behave("unipile", "hang")
        with ThreadPoolExecutor() as pool:
            held = pool.submit(delete, holder, account, account)
            wait_until(lambda: len(stack.sandbox.calls) > calls)
            answer = delete(other, account, account)
            stack.sandbox.behave("unipile", "ok")
            assert_problem(answer, 409, "idempotency_key_in_use")
            assert held.result().status_code == 200
        assert len(stack.sandbox.calls) == calls + 1

    right, account = serve("+0"), stack.add_linkedin()
    assert delete(right, account, "k").status_code == 200
    for wrong in map(serve, ("+1y", "-1y")):
        assert_held(wrong, right)
        assert_held(right, wrong)
        assert delete(wrong, account, "k").headers["Idempotency-Replayed"] == "true"
    time.sleep(0.5)  # they sweep
    assert delete(right, account, "k").headers["Idempotency-Replayed"] == "true"
    for ahead in times_in(stack, "idempotency_keys", "leased_until", "finished_at"):
        assert -HOUR < ahead < HOUR
    for ahead in times_in(stack, "accounts", "updated_at"):
        assert -HOUR < ahead <= timedelta(0)

"""What an error tracker hears of a plugin: its own faults, and not what a provider did."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from itertools import pairwise

from support import only, write_distribution

from puffle_accounts.testing import FakeProvider

FAULTY = """
from puffle_accounts import hookimpl

@hookimpl
def teardown_account(account):
    return 1 / 0
"""
HONEST = """
from puffle_accounts import TeardownFailed, hookimpl

@hookimpl
def teardown_account(account):
    raise TeardownFailed("the provider has no time")
"""
SERVICE = """
import os
import sentry_sdk
from puffle_accounts.app import create_app

sentry_sdk.init(os.environ["DSN"])
headers = {"Authorization": "Bearer " + os.environ["KEY"]}
answer = create_app().test_client().delete(os.environ["ASKED"], headers=headers)
sentry_sdk.flush()
print(answer.status_code, answer.headers["Teardown-Status"])
"""


def tracked(bodies: list[bytes]) -> list[dict]:
    """Return the events of Sentry's envelopes: lines of JSON, of which an item's first is its."""
    lines = [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]
    return [item for header, item in pairwise(lines) if header.get("type") == "event"]


@only("sqlite")
def test_a_plugins_fault_reaches_sentry_and_an_announced_failure_does_not(stack, tmp_path):
    write_distribution(tmp_path, "crm", FAULTY)
    write_distribution(tmp_path, "erp", HONEST)
    path = f"/api/accounts/{stack.add(type='smtp')}"
    with FakeProvider() as sentry:
        dsn = sentry.url.replace("://", "://public@") + "/1"
        ended = subprocess.run(
            [sys.executable, "-c", SERVICE],
            env=stack.process_environ(PYTHONPATH=str(tmp_path), DSN=dsn, ASKED=path, KEY=stack.key),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.stdout.split() == ["200", "partial"], ended.stderr
        [event] = tracked([each.body for each in sentry.requests])
    assert (event["level"], event["logentry"]["message"]) == ("error", "plugin.failed")
    assert [each["type"] for each in event["exception"]["values"]] == ["ZeroDivisionError"]
    assert event["extra"]["plugin"] == "crm"
    assert stack.key not in json.dumps(event)

"""What a collector gets of the real gunicorn and the retrier under `opentelemetry-instrument`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from orphanage import leave
from receiver import Receiver
from support import only, wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
INSTRUMENT = str(Path(sys.executable).parent / "opentelemetry-instrument")


@pytest.fixture
def receiver(certificate):
    with Receiver(certificate) as receiver:
        yield receiver


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
@only("sqlite")
def test_a_delete_is_one_trace_and_nothing_is_lost_at_the_end(stack, gunicorn, worker, receiver):
    server = gunicorn("--worker-class", worker, by=(INSTRUMENT,), **receiver.environ)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "Connection": "close"}
    answer = stack.delete(stack.add_email(), **headers)
    assert answer.headers["Teardown-Status"] == "complete"
    assert server.stop() == 0
    log = server.log.read_text().splitlines()
    levels = [json.loads(line)["level"] for line in log]  # no warning of Python's, no traceback
    assert set(levels) == {"info"}, log
    spans = {s.span_id: s for s in receiver.spans() if s.trace_id.hex() == TRACE}
    above = sorted(
        (span.name, spans[span.parent_span_id].name if span.parent_span_id in spans else "")
        for span in spans.values()
    )
    route = "DELETE /api/accounts/<account_id>"
    assert above == [
        ("DELETE", "teardown agentmail"),
        ("DELETE", "teardown instantly"),
        (route, ""),
        ("POST", "teardown instantly"),
        ("teardown", route),
        ("teardown agentmail", "teardown"),
        ("teardown instantly", "teardown"),
    ]
    assert {"puffle.deletes", "puffle.teardown.duration", "puffle.plugin.call.count"} <= (
        receiver.metrics()
    )
    [deleted] = [line for line in map(json.loads, log) if line["event"] == "account.deleted"]
    assert deleted["trace_id"] == TRACE


@only("sqlite")
def test_a_retrier_tells_of_orphans_and_links_to_what_made_them(stack, receiver):
    [account] = leave(stack)
    kept = {**json.loads(account.to_json()), "traceparent": f"00-{TRACE}-{PARENT}-01"}
    stack.sql("UPDATE orphans SET account = ?", json.dumps(kept))
    command = (INSTRUMENT, sys.executable, "-m", "puffle_accounts")
    retrier = subprocess.Popen(
        [*command, "orphans", "retry", "--every", "60"],
        env=stack.process_environ(**receiver.environ, OTEL_METRIC_EXPORT_INTERVAL="500"),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: "puffle.orphan.count" in receiver.metrics() and not stack.orphans())
    retrier.terminate()
    log = retrier.communicate(timeout=30)[1].splitlines()
    assert retrier.returncode == 0
    assert {json.loads(line)["level"] for line in log} == {"info"}, log
    [retry] = [span for span in receiver.spans() if span.name == "retry unipile"]
    [link] = retry.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, PARENT)
    assert not retry.parent_span_id
    assert {s.name for s in receiver.spans() if s.trace_id == retry.trace_id} == {
        "retry unipile",
        "teardown unipile",
        "DELETE",
    }

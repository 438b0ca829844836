"""What OpenTelemetry is told by the API, seen by the real SDK; without the extra, nothing."""

from __future__ import annotations

import contextvars
import json
import logging
import re
import subprocess
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from orphanage import leave
from support import only, use, wait_until
from wire import KEY, Wire, answer, hear, upstream

from puffle_accounts import Account, TeardownFailed
from puffle_accounts.telemetry import telemetry
from puffle_accounts.text import hide_secrets_of
from puffle_accounts.upstream import in_query

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "baggage": "tenant=confidential"}

on_one_database = only("sqlite")


@pytest.fixture(autouse=True)
def sdk():
    """The real SDK, for the test alone: what a process has set globally, it has for good."""
    traces, meters = TracerProvider(), MeterProvider([reader := InMemoryMetricReader()])
    traces.add_span_processor(SimpleSpanProcessor(exporter := InMemorySpanExporter()))
    telemetry.tell(traces, meters)
    yield SimpleNamespace(traces=traces, meters=meters, exporter=exporter, reader=reader)
    telemetry.tell(trace.get_tracer_provider(), metrics.get_meter_provider())


@pytest.fixture
def spans(sdk):
    """Return the spans that have ended during the test, by their names."""
    return lambda: {span.name: span for span in sdk.exporter.get_finished_spans()}


def hexadecimal(number: int, digits: int = 16) -> str:
    return f"{number:0{digits}x}"


def calling(serve, **changes):
    """Return a hook that asks a provider on the wire, and the wire."""
    wire = Wire(serve)
    client = upstream(f"{wire.url}/v1", **changes)
    return lambda account: client.delete("things", account.id, tried="thing delete") and None, wire


# The trace


@on_one_database
def test_one_trace_holds_a_delete_its_plugin_and_the_providers_call(live, spans, sdk):
    FlaskInstrumentor().instrument_app(live.app, tracer_provider=sdk.traces)
    heard = []
    hook, wire = calling(lambda c, _: (heard.append(hear(c).decode()), c.sendall(answer(200))))
    use(live, example=hook)
    with wire:
        account = live.add(type=" SMTP ")
        assert live.delete(account, **CALLER, X_Request_ID="order-4711").status_code == 200
    server, teardown, plugin, call = wait_until(lambda: len(spans()) == 4 and in_order(spans()))
    assert {span.context.trace_id for span in spans().values()} == {int(TRACE, 16)}
    parents = [hexadecimal(span.parent.span_id) for span in (server, teardown, plugin, call)]
    ours = [hexadecimal(span.context.span_id) for span in (server, teardown, plugin, call)]
    assert parents == [PARENT, *ours[:3]]
    assert server.kind == SpanKind.SERVER
    assert dict(teardown.attributes) == {
        "puffle.account.id": account,
        "puffle.account.type": "smtp",
        "puffle.request.id": "order-4711",
        "puffle.teardown.status": "complete",
    }
    assert dict(plugin.attributes) == {
        "puffle.plugin": "example",
        "puffle.teardown.outcome": "nothing",
    }
    assert call.kind == SpanKind.CLIENT
    assert dict(call.attributes) == {
        "http.request.method": "DELETE",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": wire.port,
        "url.full": f"{wire.url}/v1/things/{account}",
    }
    [request] = heard
    assert f"\r\ntraceparent: 00-{TRACE}-{ours[3]}-01\r\n" in request
    assert "confidential" not in request, "what a caller says is none of a provider's business"


def in_order(named):
    route = "DELETE /api/accounts/<account_id>"
    return [named[name] for name in (route, "teardown", "teardown example", "DELETE")]


@on_one_database
def test_nothing_but_the_trace_and_the_works_own_reaches_a_plugins_thread(live, spans):
    seen = {}
    use(live, example=lambda account: seen.update(contextvars.copy_context()))
    assert live.delete(live.add(type="smtp")).status_code == 200
    names = {variable.name for variable in seen}
    assert names == {"deadline", "request_id", "current_context"}


# What failed


def failing(live, hook) -> None:
    use(live, example=hook)
    assert live.delete(live.add(type="smtp")).headers["Teardown-Status"] == "partial"


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "429"), (404, "404"), (None, "NoAnswer")], ids=str
)
@on_one_database
def test_a_call_that_fails_is_an_error_of_its_kind(live, spans, status, kind):
    hook, wire = calling(lambda c, _: hear(c) and status and c.sendall(answer(status)))
    with wire:
        failing(live, hook)
    call, plugin = spans()["DELETE"], spans()["teardown example"]
    assert call.attributes.get("http.response.status_code") == status
    assert call.attributes["error.type"] == kind
    assert plugin.attributes["error.type"] == (str(status) if status else "_OTHER")
    assert plugin.attributes["puffle.teardown.outcome"] == "failed"
    assert {call.status.status_code, plugin.status.status_code} == {StatusCode.ERROR}
    assert "Example: thing delete: " in plugin.status.description
    assert spans()["teardown"].attributes["puffle.teardown.status"] == "partial"


@on_one_database
def test_no_span_holds_a_key_whatever_a_plugin_does_with_it(live, spans):
    hide_secrets_of({"EXAMPLE_API_KEY": KEY})

    def hook(account):
        with wire:
            client.get(KEY, params={"api_key": "of-nobody-we-know", "page": "2"}, tried="a look")
            raise ValueError(f"not with {KEY}\nnor \ud800")

    wire = Wire(lambda c, _: hear(c) and c.sendall(answer(200, b"{}")))
    client = upstream(wire.url)
    failing(live, hook)
    told = " ".join(span.to_json() for span in spans().values())
    assert "/***?api_key=REDACTED&page=2" in told
    assert KEY not in told
    assert "of-nobody-we-know" not in told
    assert "ValueError: not with *** nor" in told


def test_a_key_in_the_query_is_in_no_span_whatever_its_names_are(spans):
    with Wire(lambda c, _: hear(c) and c.sendall(answer(200))) as wire:
        client = upstream(wire.url, authenticate=in_query("k"))
        client.delete("things", "t-1", params={"of": "a"}, tried="thing delete")
    (span,) = spans().values()
    assert span.attributes["url.full"] == f"{wire.url}/things/t-1?of=a"
    assert KEY not in span.to_json()


@on_one_database
def test_a_plugin_that_hangs_has_a_span_that_ends_at_the_deadline(live, spans):
    released = threading.Event()
    live.service.timeout = 0.2
    failing(live, lambda account: released.wait(20) and None)
    plugin = spans()["teardown example"]
    released.set()
    assert plugin.status.description == "did not finish before the teardown deadline"


@on_one_database
def test_a_delete_whose_row_stays_is_an_error(live, spans):
    account = live.add_email()
    live.sql("CREATE TRIGGER keep BEFORE DELETE ON accounts BEGIN SELECT RAISE(IGNORE); END")
    assert live.delete(account).status_code == 500
    assert spans()["teardown"].attributes["error.type"] == "DeleteFailed"


# The retry


@on_one_database
def test_a_retry_is_a_trace_of_its_own_that_is_linked_to_the_delete(live, spans, events):
    live.sandbox.behave("unipile", "fail")
    account = live.add_linkedin()
    assert live.delete(account).headers["Teardown-Status"] == "partial"
    made = spans()["teardown"]
    live.sandbox.behave("unipile", "ok")
    live.make_due()
    [orphan] = live.orphans()
    assert live.retry() == {"done": 1}
    retry, plugin = spans()["retry unipile"], spans()["teardown unipile"]
    assert retry.parent is None
    assert plugin.parent.span_id == retry.context.span_id
    [link] = retry.links
    assert (link.context.trace_id, link.context.span_id) == (
        made.context.trace_id,
        made.context.span_id,
    )
    assert retry.context.trace_id != made.context.trace_id
    assert dict(retry.attributes) == {
        "puffle.plugin": "unipile",
        "puffle.orphan.id": str(orphan["id"]),
        "puffle.orphan.attempts": 1,
        "puffle.account.id": account,
        "puffle.account.type": "linkedin",
        "puffle.request.id": orphan["request_id"],
    }


@on_one_database
def test_retries_are_counted_by_plugin_and_by_what_became_of_them(live, sdk):
    leave(live)
    live.sandbox.behave("unipile", "fail")
    live.retry()
    live.sandbox.behave("unipile", "ok")
    live.make_due()
    live.retry()
    counted = {
        (point.attributes["puffle.plugin"], point.attributes["puffle.orphan.result"]): point.value
        for resource in sdk.reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "puffle.orphan.retries"
        for point in metric.data.data_points
    }
    assert counted == {("unipile", "failed"): 1, ("unipile", "done"): 1}


@on_one_database
def test_what_a_trace_adds_to_a_snapshot_is_no_part_of_the_account(live, spans):
    seen = []
    failing(live, lambda account: seen.append(account) or fail())
    [orphan] = live.orphans()
    assert orphan["account"].pop("traceparent").startswith("00-")
    assert Account.from_json(json.dumps(orphan["account"])) == seen[0]
    assert json.loads(seen[0].to_json()) == orphan["account"]
    live.make_due()
    live.retry()
    assert seen[0] == seen[1]


def fail():
    raise TeardownFailed("left")


@on_one_database
def test_of_a_trace_that_is_not_sampled_only_the_ids_are_passed_on(live, spans, sdk):
    telemetry.tell(TracerProvider(sampler=ALWAYS_OFF), sdk.meters)
    heard = []
    hook, wire = calling(lambda c, _: (heard.append(hear(c).decode()), c.sendall(answer(500))))
    with wire:
        failing(live, hook)
    assert re.search(r"\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[02]\r\n", heard[0])
    [orphan] = live.orphans()
    assert "traceparent" not in orphan["account"], "a link to it would lead nowhere"


@pytest.mark.parametrize(
    "kept", [None, "", "rubbish", 7, f"00-{'0' * 32}-{PARENT}-01", {"nested": 1}], ids=str
)
@on_one_database
def test_a_retry_of_what_no_trace_made_has_no_link(live, spans, kept):
    [account] = leave(live)
    if kept is not None:
        text = json.dumps({**json.loads(account.to_json()), "traceparent": kept})
        live.sql("UPDATE orphans SET account = ?", text)
    assert live.retry() == {"done": 1}
    assert not spans()["retry unipile"].links


@on_one_database
def test_a_retry_that_fails_says_why(live, spans):
    leave(live)
    live.sandbox.behave("unipile", "fail")
    assert live.retry() == {"failed": 1}
    retry = spans()["retry unipile"]
    assert retry.status.description.startswith("Unipile: session revoke: 5")
    assert retry.attributes["error.type"] == "_OTHER"


def test_a_retry_is_the_first_of_a_trace_wherever_it_begins_and_an_error_has_no_secret(spans):
    hide_secrets_of({"EXAMPLE_API_KEY": KEY})
    with suppress(ValueError), telemetry.begin("outer", {"of": "a\ud800b"}):
        with telemetry.retry("retry", {}, None):
            pass
        raise ValueError(f"not with {KEY}\nnor \ud800")
    assert spans()["retry"].parent is None
    assert spans()["outer"].status.description == "not with *** nor"
    assert spans()["outer"].attributes["of"] == "a b", "it could not be sent, nor all beside it"


# The log


@pytest.mark.parametrize("log_format", ["json", "text"])
@on_one_database
def test_every_line_of_a_trace_has_its_ids_and_no_other_has(stack, log_format, capfd, spans):
    from support import invoke

    stack.sandbox.behave("unipile", "ok")
    leave(stack)
    ended = invoke({**stack.environ, "PUFFLE_LOG_FORMAT": log_format}, "orphans", "retry")
    logging.getLogger("elsewhere").warning("of no trace")
    assert ended.exit_code == 0
    lines = capfd.readouterr().err.splitlines()
    done, retried, other = (
        next(line for line in lines if event in line)
        for event in ("teardown.done", "orphan.retried", "of no trace")
    )
    retry, plugin = spans()["retry unipile"], spans()["teardown unipile"]
    assert hexadecimal(retry.context.trace_id, 32) in done
    assert hexadecimal(plugin.context.span_id) in done
    assert hexadecimal(retry.context.trace_id, 32) in retried
    assert hexadecimal(retry.context.span_id) in retried
    assert "trace_id" not in other
    assert done.count("span_id") == 1


# Without the extra

WITHOUT = """
import json, sys
sys.modules["opentelemetry"] = None
from puffle_accounts.app import create_app
from puffle_accounts.telemetry import telemetry
import os
app = create_app(os.environ)
answer = app.test_client().delete(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
loaded = [name for name in sys.modules if name.startswith("opentelemetry.")]
print(json.dumps([answer.status_code, type(telemetry).__name__, loaded]))
"""


@on_one_database
def test_without_the_extra_nothing_is_imported_and_nothing_is_written(stack):
    stack.sandbox.behave("unipile", "fail")
    path = f"/api/accounts/{stack.add_linkedin()}"
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, path, stack.key],
        env=stack.process_environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(ended.stdout) == [200, "Silent", []], ended.stderr
    [orphan] = stack.orphans()
    assert "traceparent" not in orphan["account"]
    assert stack.command("orphans", "retry").returncode == 1
    assert '"trace_id"' not in ended.stderr

"""The metrics that are sent are those of the page; dashboard and alerts ask for no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from types import SimpleNamespace

import pytest
from documents import documents
from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY
from support import ROOT, only

from puffle_accounts import gauges
from puffle_accounts.database import connect
from puffle_accounts.telemetry import telemetry
from puffle_accounts.telemetry.metrics import METRICS

PAGE = (ROOT / "docs" / "telemetry.md").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "puffle-accounts.json").read_text())
[ALERTS] = documents(ROOT / "deploy" / "alerts" / "puffle-accounts.yml")
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ASKED = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ASKED += [rule["expr"] for rule in RULES]
SERVICES = re.findall(r"OTEL_SERVICE_NAME=([\w-]+)", PAGE)
OF_PROMETHEUS = {"job", "le"}


@pytest.fixture
def sent(live):
    """Return what a service and a retrier have sent: by OpenTelemetry's names, by Prometheus'."""
    meters = MeterProvider([reader := InMemoryMetricReader(), PrometheusMetricReader()])
    telemetry.tell(trace.get_tracer_provider(), meters)
    gauges.of_process(live.service)
    live.sandbox.behave("unipile", "fail")
    live.service.plugins.find("instantly").bulkhead.limit = 3
    answers = [live.delete(live.add_email()), live.delete(live.add_linkedin())]
    answers += [live.delete(live.add_email(), key="pk_live_nobody"), live.delete("no-uuid")]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 400]
    live.make_due()
    with gauges.of_orphans(live.service):
        assert live.retry() == {"failed": 1}
        found = SimpleNamespace(opentelemetry=collected(reader), prometheus=scraped())
    assert "puffle.orphan.count" not in collected(reader)
    yield found
    meters.shutdown()
    telemetry.tell(trace.get_tracer_provider(), metrics.get_meter_provider())


def collected(reader):
    """Return each metric with its points, each as (attributes, point)."""
    data = json.loads(reader.get_metrics_data().to_json())
    [resource] = data["resource_metrics"]
    [scope] = resource["scope_metrics"]
    assert scope["scope"]["name"] == "puffle_accounts"
    return {metric["name"]: metric for metric in scope["metrics"]}


def scraped() -> dict[str, dict[str, set[str]]]:
    """Return each series with its labels and their values."""
    series: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for family in REGISTRY.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                series[sample.name][label].add(value)
    return series


def points(metric) -> dict[frozenset, dict]:
    return {frozenset(p["attributes"].items()): p for p in metric["data"]["data_points"]}


def value(metric, **attributes):
    """Return the value of the one point that has these attributes, `_` for `.`."""
    [found] = [
        point
        for key, point in points(metric).items()
        if all(dict(key).get(f"puffle.{n}".replace("_", ".")) == v for n, v in attributes.items())
    ]
    return found.get("value", found.get("count"))


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)
def test_each_alert_fires_when_it_should_and_on_a_day_like_any_other_none_does():
    tests = ROOT / "tests" / "deployed" / "alerts.yml"
    told = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    fired = re.findall(r'alertname="(\w+)"', tests.read_text())
    assert set(fired) == {rule["alert"] for rule in RULES}


@only("postgresql")
def test_what_is_sent_is_what_the_page_tells_and_what_others_ask_for(sent):
    rows = re.findall(r"^\| `(puffle\.[\w.]+)` \| ([\w -]+) \| `(.+?)` \|(.*?)\|", PAGE, re.M)
    kinds = {"counter": "counter", "histogram": "histogram", "sum": "up-down counter"}
    told = {name: (kind, unit) for name, kind, unit, _ in rows}
    assert told == {
        name: (kinds.get(metric.kind, metric.kind), metric.unit) for name, metric in METRICS.items()
    }
    assert {name: set(re.findall(r"`([\w.]+)`", split)) for name, _, _, split in rows} == {
        name: {key for point in metric["data"]["data_points"] for key in point["attributes"]}
        for name, metric in sent.opentelemetry.items()
    }
    assert {name: metric["unit"] for name, metric in sent.opentelemetry.items()} == {
        name: metric.unit for name, metric in METRICS.items()
    }
    for expression in ASKED:
        asked_for_is_there(expression, sent.prometheus)
    shown = {
        name for panel in DASHBOARD["panels"] for t in panel["targets"] for name in names(t["expr"])
    }
    assert len({re.sub("_(bucket|count)$", "", n) for n in shown if "duration" in n}) == 1
    counted_right(sent.opentelemetry)


def names(expression: str) -> set[str]:
    """Return the series that an expression asks for."""
    without_labels = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", expression)
    return set(re.findall(r"\bpuffle_\w+", without_labels))


def asked_for_is_there(expression: str, there: dict[str, dict[str, set[str]]]) -> None:
    assert names(expression), expression
    assert names(expression) <= set(there), expression
    labels = {label for name in names(expression) for label in there[name]} | OF_PROMETHEUS
    for by in re.findall(r"by \(([^)]*)\)", expression):
        assert set(by.split(", ")) <= labels, expression
    for name, chosen in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label, how, wanted in re.findall(r'(\w+)(=~?)"([^"]*)"', chosen):
            assert label in there[name].keys() | OF_PROMETHEUS, expression
            known = SERVICES if label == "job" else there[name][label]
            assert how == "=~" or wanted in known, expression


def counted_right(sent) -> None:
    deletes = {
        dict(key)["http.response.status_code"]: point["value"]
        for key, point in points(sent["puffle.deletes"]).items()
    }
    assert deletes == {200: 2, 401: 1, 400: 1}
    teardowns = sent["puffle.teardown.duration"]
    assert value(teardowns, plugin="agentmail", teardown_outcome="done") == 1
    assert value(teardowns, plugin="unipile", teardown_outcome="failed") == 2
    [failed] = [point for key, point in points(teardowns).items() if "failed" in dict(key).values()]
    assert failed["attributes"]["error.type"] == "500"
    assert 0 < failed["sum"] < 10
    calls = sent["puffle.plugin.call.count"]
    assert value(calls, plugin="instantly", plugin_call_state="waiting") == 0
    assert value(sent["puffle.plugin.call.max"], plugin="instantly") == 3
    orphans = sent["puffle.orphan.count"]
    assert value(orphans, plugin="unipile", orphan_state="waiting") == 1
    assert value(orphans, plugin="agentmail", orphan_state="due") == 0
    assert value(sent["puffle.orphan.retries"], plugin="unipile", orphan_result="failed") == 1
    assert value(sent["puffle.orphan.age.max"], plugin="unipile") > 0
    assert value(sent["puffle.database.connection.max"]) == 20
    connections = points(sent["puffle.database.connection.count"]).values()
    assert sum(point["value"] for point in connections) > 0


def test_the_dashboard_shows_every_metric():
    shown = " ".join(ASKED[: -len(RULES)])
    missing = [n for n in METRICS if f"{n.replace('.', '_')}" not in shown]
    assert missing == []
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule):
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert len(rule["annotations"]["description"]) > 100
    events = set(re.findall(r"\b[a-z]+\.[a-z_]+\b", rule["annotations"]["description"]))
    logs = (ROOT / "docs" / "logs.md").read_text()
    assert {event for event in events if f"| `{event}` |" not in logs} == set()
    assert rule["alert"] in PAGE


@only("sqlite")
def test_a_database_that_is_away_only_leaves_the_orphans_out(live, tmp_path):
    live.service.ledger.database.close_all()
    away = SimpleNamespace(
        plugins=live.service.plugins,
        ledger=type(live.service.ledger)(connect(f"sqlite:///{tmp_path / 'x.db'}"), None),
    )
    telemetry.tell(trace.get_tracer_provider(), MeterProvider([reader := InMemoryMetricReader()]))
    with gauges.of_orphans(away):
        assert {"puffle.orphan.count", "puffle.orphan.age.max"}.isdisjoint(collected(reader))
    telemetry.tell(trace.get_tracer_provider(), metrics.get_meter_provider())

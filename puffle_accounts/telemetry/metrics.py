"""Every metric by its name; docs/telemetry.md tells what each is for.

Names and units follow OpenTelemetry's conventions:
https://opentelemetry.io/docs/specs/semconv/general/metrics/
"""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric.

    Args:
        kind: `counter`, `histogram` (seconds), or what is read when somebody looks: `sum` of all
            processes, or `gauge`, which is the same from whichever process it comes.
        unit: in UCUM; what stands in braces is a word for people.
    """

    kind: str
    unit: str
    description: str


METRICS = {
    "puffle.deletes": Metric("counter", "{delete}", "DELETEs answered"),
    "puffle.teardown.duration": Metric("histogram", "s", "Duration of plugins' calls"),
    "puffle.plugin.call.count": Metric("sum", "{call}", "Plugins' calls under way or waiting"),
    "puffle.plugin.call.max": Metric("sum", "{call}", "Plugins' calls that may be under way"),
    "puffle.database.connection.count": Metric(
        "sum", "{connection}", "Connections of the pool, used or idle"
    ),
    "puffle.database.connection.max": Metric(
        "sum", "{connection}", "Connections that the pool may have"
    ),
    "puffle.database.connection.pending_requests": Metric(
        "sum", "{request}", "Requests that wait for a connection"
    ),
    "puffle.orphan.count": Metric("gauge", "{orphan}", "Orphans, by what they wait for"),
    "puffle.orphan.age.max": Metric("gauge", "s", "Age of the oldest orphan"),
    "puffle.orphan.retries": Metric("counter", "{retry}", "Retries of orphans, by result"),
}

#: Seconds; those of HTTP's conventions, for calls to providers are what takes the time.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

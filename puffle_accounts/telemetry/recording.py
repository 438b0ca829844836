"""Tells OpenTelemetry's API, whatever stands behind it; imported where the extra is installed.

The names of attributes are those of the conventions for HTTP clients, version 1.43, where they
have one: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import contextvars
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import baggage, context, metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from puffle_accounts.telemetry.metrics import BUCKETS, METRICS
from puffle_accounts.telemetry.silent import NOBODY, Attributes, Reading, Silent, Span
from puffle_accounts.text import one_line, scrub

NAME = "puffle_accounts"

_SECRET_QUERY = re.compile(
    r"([?&][^=&]*(?:key|token|secret|password|sig)[^=&]*=)[^&]*", re.IGNORECASE
)
_trace_context = TraceContextTextMapPropagator()


class Recorded(Span):
    """A span of OpenTelemetry's; what others have said is told without their secrets."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: Any = None

    def __enter__(self) -> Recorded:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, *error: object) -> None:
        context.detach(self._token)
        if error[1] is not None:
            self.failed(_kind(error[1]), error[1])
        self._span.end()

    @property
    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        # Without baggage: what a caller says to the service is none of a provider's business.
        propagate.inject(carrier, baggage.clear(trace.set_span_in_context(self._span)))
        return carrier

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_clean(attributes))

    def failed(self, kind: str, why: object) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, one_line(why)))

    def again(self) -> AbstractContextManager[object]:
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def carry(self, into: contextvars.Context) -> None:
        into.run(context.attach, trace.set_span_in_context(self._span))

    def end(self) -> None:
        self._span.end()


class Recording(Silent):
    """Tells the providers of traces and metrics that are, or will be, set."""

    traces = True

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], Iterable[Reading]]] = {}
        self.tell(trace.get_tracer_provider(), metrics.get_meter_provider())

    def tell(self, traces: trace.TracerProvider, meters: metrics.MeterProvider) -> None:
        """Let these be told from now on; at first it is those that the process has, or will."""
        self._tracer = traces.get_tracer(NAME)
        self._instruments = self._made(meters.get_meter(NAME))

    def begin(self, name: str, attributes: Attributes) -> Span:
        return self._begin(name, attributes)

    def retry(self, name: str, attributes: Attributes, origin: str | None) -> Span:
        made_by = _trace_context.extract({"traceparent": origin or ""}, context.Context())
        linked = trace.get_current_span(made_by).get_span_context()
        links = [Link(linked)] if linked.is_valid else []
        return self._begin(name, attributes, context=context.Context(), links=links)

    def request(self, method: str, url: str, host: str, port: int) -> Span:
        attributes: Attributes = {
            "http.request.method": method,
            "url.full": _without_secrets(url),
            "server.address": host,
            "server.port": port,
        }
        return self._begin(method, attributes, kind=SpanKind.CLIENT)

    def answered(self, span: Span, status: int) -> None:
        span.set({"http.response.status_code": status})
        if status >= 400:
            span.failed(str(status), "")

    def origin(self) -> str | None:
        carrier: dict[str, str] = {}
        if trace.get_current_span().get_span_context().trace_flags.sampled:  # else it leads nowhere
            _trace_context.inject(carrier)
        return carrier.get("traceparent")

    def add_ids(self, _: object, __: str, event: Any) -> Any:
        here = trace.get_current_span().get_span_context()
        if here.is_valid and isinstance(event, MutableMapping):
            event["trace_id"] = trace.format_trace_id(here.trace_id)
            event["span_id"] = trace.format_span_id(here.span_id)
        return event

    def count(self, metric: str, attributes: Attributes) -> None:
        self._instruments[metric].add(1, _clean(attributes))

    def time(self, metric: str, seconds: float, attributes: Attributes) -> None:
        self._instruments[metric].record(seconds, _clean(attributes))

    def observe(self, metric: str, read: Callable[[], Iterable[Reading]] | None) -> None:
        if read is None:
            self._readers.pop(metric, None)
        else:
            self._readers[metric] = read

    def _begin(self, name: str, attributes: Attributes, **more: Any) -> Span:
        span = self._tracer.start_span(name, attributes=_clean(attributes), **more)
        return Recorded(span) if span.get_span_context().is_valid else NOBODY

    def _made(self, meter: metrics.Meter) -> dict[str, Any]:
        make: dict[str, Callable[..., Any]] = {
            "counter": meter.create_counter,
            "histogram": meter.create_histogram,
            "sum": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }
        made = {}
        for name, (kind, unit, description) in METRICS.items():
            more: dict[str, Any] = {}
            if kind == "histogram":
                more["explicit_bucket_boundaries_advisory"] = BUCKETS
            elif kind != "counter":
                more["callbacks"] = [self._callback(name)]
            made[name] = make[kind](name, unit=unit, description=description, **more)
        return made

    def _callback(self, metric: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def read(_: CallbackOptions) -> Iterator[Observation]:
            for value, attributes in self._readers.get(metric, tuple)():
                yield Observation(value, _clean(attributes))

        return read


def _kind(error: object) -> str:
    names = (of.__name__ for of in type(error).__mro__)
    return next(name for name in names if not name.startswith("_"))


def _without_secrets(url: str) -> str:
    url = scrub(url)
    return _SECRET_QUERY.sub(r"\1REDACTED", url) if "?" in url else url


def _clean(attributes: Attributes) -> dict[str, str | int]:
    return {
        name: one_line(value) if isinstance(value, str) and not value.isprintable() else value
        for name, value in attributes.items()
        if value is not None
    }

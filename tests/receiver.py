"""A receiver of OTLP on loopback, by TLS: http/protobuf, as a collector takes it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from wire import server_side

KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Receiver:
    """Keeps what it is sent.

    Args:
        certificate: its own, which the sender is told to trust.
    """

    def __init__(self, certificate: Path) -> None:
        self.received: dict[str, list[Any]] = {path: [] for path in KINDS}
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                received[self.path].append(KINDS[self.path].FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = server_side(certificate).wrap_socket(
            self._server.socket, server_side=True
        )
        self.environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{self._server.server_port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
            "REQUESTS_CA_BUNDLE": str(certificate),  # which goes first, where it is set
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "puffle",
        }

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> Iterator[Any]:
        """Return every span that has come."""
        for request in self.received["/v1/traces"]:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def metrics(self) -> set[str]:
        """Return the names of the metrics that have come."""
        return {
            metric.name
            for request in self.received["/v1/metrics"]
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

"""What an operator's OpenTelemetry is told; without the extra `otel` nobody is told anything."""

from __future__ import annotations

from importlib.util import find_spec

from puffle_accounts.telemetry.silent import Silent


def _chosen() -> Silent:
    if not (find_spec("opentelemetry") and find_spec("opentelemetry.trace")):
        return Silent()
    from puffle_accounts.telemetry.recording import Recording

    return Recording()


telemetry = _chosen()

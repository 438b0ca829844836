"""One line per event: JSON for machines, readable text on a terminal."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level
from structlog.typing import EventDict, Processor, WrappedLogger

from puffle_accounts import context, streams
from puffle_accounts.text import one_line, scrub


def formatter(log_format: str, *more: Processor) -> logging.Formatter:
    """Return the formatter of every line this service writes.

    Args:
        log_format: `text` or `json`.
        more: each adds something to a line.
    """
    rendered: list[Processor] = [structlog.processors.JSONRenderer()]
    if log_format == "text":
        as_text: Any = structlog.dev.ConsoleRenderer(
            colors=False, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
        )
        rendered = [_escape, as_text]  # JSON escapes by itself
    return ProcessorFormatter(
        foreign_pre_chain=[add_log_level, ExtraAdder(), _add_request_id, *more],
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            ProcessorFormatter.remove_processors_meta,
            _first("timestamp", "level", "event"),
            structlog.processors.ExceptionRenderer(_traceback),
            *rendered,
            _hide_secrets,
        ],
    )


def configure(log_format: str, *more: Processor) -> None:
    """Send every logger's lines through our formatter to standard error.

    Args:
        log_format: `text` or `json`.
        more: each adds something to a line.
    """
    root = logging.getLogger()
    handler = streams.handler(sys.stderr)
    handler.setFormatter(formatter(log_format, *more))
    streams.lose_quietly(handler)
    ours = [h for h in root.handlers if isinstance(h.formatter, ProcessorFormatter)]
    for old in ours:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.getLogger("peewee").setLevel(logging.WARNING)  # its migrations speak of themselves
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # what counts of it is raised
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings quote what providers sent


def _add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    request_id = context.request_id.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Leave nothing by which a line could forge another, or command a terminal."""
    laid_out = ("exception", "stack")  # of several lines, clean already
    return {
        _printable(name): _printable(value) if name not in laid_out else value
        for name, value in event.items()
    }


def _printable(value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)


def _traceback(exc_info: Any) -> str:
    """Return a traceback in which all that an exception says is one clean line."""
    return "\n".join(map(_cleaned, traceback.TracebackException(*exc_info).format()))


def _cleaned(part: str) -> str:
    """Return a part of a traceback clean; a frame keeps its lines and their indentation."""
    if not part.startswith("  File "):
        return one_line(part)
    lines = part.rstrip().split("\n")
    return "\n".join(line[: -len(line.lstrip(" "))] + one_line(line) for line in lines)


def _hide_secrets(_: WrappedLogger, __: str, line: Any) -> str:
    return scrub(str(line))


def _first(*names: str) -> Processor:
    """Return a processor that puts these fields before the others, for readers."""

    def order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: event.pop(name) for name in names if name in event} | dict(event)

    return order

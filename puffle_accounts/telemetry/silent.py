"""What can be told, and a listener to whom it means nothing: the extra is not installed."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

Attributes = Mapping[str, "str | int | None"]  # `None` is left out
Reading = tuple[float, Attributes]
Event = TypeVar("Event", bound=Mapping[str, object])


class Span:
    """A piece of work with a beginning and an end. As a context manager, it is the current one."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by which whoever is called can join the trace."""
        return {}

    def set(self, attributes: Attributes) -> None:
        """Say more of it."""

    def failed(self, kind: str, why: object) -> None:
        """Say that it failed.

        Args:
            kind: one of few, such as a status or the class of an error.
            why: for a person.
        """

    def again(self) -> AbstractContextManager[object]:
        """Let it be the current one for a while, though it has ended."""
        return _NOTHING

    def carry(self, into: contextvars.Context) -> None:
        """Let it be the current one of a thread, whose context has nothing else of this one's."""

    def end(self) -> None:
        """End it, where it is no context manager."""


class Silent:
    """Says nothing to nobody."""

    traces = False  # whether a span can come of it

    def begin(self, name: str, attributes: Attributes) -> Span:
        """Return a span within the current one, or the first of a trace where there is none."""
        return NOBODY

    def retry(self, name: str, attributes: Attributes, origin: str | None) -> Span:
        """Return the first span of a trace, with a link to what `origin` once returned."""
        return NOBODY

    def request(self, method: str, url: str, host: str, port: int) -> Span:
        """Return the span of a request to a provider."""
        return NOBODY

    def answered(self, span: Span, status: int) -> None:
        """Say with which HTTP status a request was answered."""

    def origin(self) -> str | None:
        """Return what names the current span elsewhere and later, `None` if there is none."""
        return None

    def add_ids(self, _: object, __: str, event: Event) -> Event:
        """Add the ids of the current span to a line of the log."""
        return event

    def count(self, metric: str, attributes: Attributes) -> None:
        """Count one more."""

    def time(self, metric: str, seconds: float, attributes: Attributes) -> None:
        """Say how long something took."""

    def observe(self, metric: str, read: Callable[[], Iterable[Reading]] | None) -> None:
        """Let a metric be read by this from now on, or by nobody any more."""


NOBODY = Span()  # what nobody listens to
_NOTHING = nullcontext()

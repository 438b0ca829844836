"""What a provider's answer means: done, gone, or a failure, and of which kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.transport import Answer, Wanted
from puffle_accounts.upstream import bodies, waits

TEMPORARY = frozenset({408, 409, 425, 429})
CODE = re.compile(r"[\w./-]{1,64}", re.ASCII)

Body = Mapping[str, Any]
Field = str | Callable[[Body], Any]


@dataclass(frozen=True, slots=True)
class Judge:
    """Knows how one provider says things.

    Args:
        is_secret: whether a word holds credentials, which a provider's code may echo.

    The others are those of `Upstream`.
    """

    name: str
    key_variable: str
    base_url_variable: str
    code: Field
    is_gone: Callable[[Body], bool]
    is_done: Callable[[Body], bool] | None
    retry_after: Field | None
    temporary_codes: frozenset[str]
    is_secret: Callable[[str], bool]

    @property
    def wanted(self) -> Wanted:
        """How much of an answer there is to judge."""
        return bodies.telling if self.is_done else bodies.wanted

    def judge(self, answer: Answer, method: str, tried: str, wanted: Wanted) -> bool:
        """Return whether what an answer is about was there.

        Args:
            wanted: what was wanted of its body.

        Raises:
            UpstreamFailed: it is left, or may be.
        """
        succeeded = 200 <= answer.status < 300
        if succeeded:
            self._believe(answer, method, tried)
            if self.is_done is None:
                return True
        body = bodies.json_object(answer, wanted(answer.status)[0])
        if succeeded and body and _read(self.is_done, body):
            return True
        return self._refused(answer, body, method, tried)

    def failed(
        self, tried: str, why: str, *, status: int | None = None, **details: Any
    ) -> UpstreamFailed:
        """Return the error that says what was tried and why that failed."""
        return UpstreamFailed(f"{self.name}: {tried}: {why}", status=status, **details)

    def _believe(self, answer: Answer, method: str, tried: str) -> None:
        """Raise UpstreamFailed if it was not the provider's API that answered with success."""
        wrong = bodies.not_the_api(answer, json_expected=method == "GET")
        if wrong:
            why = f"{answer.status} with {wrong} (check {self.base_url_variable})"
            raise self.failed(tried, why, status=answer.status)

    def _refused(self, answer: Answer, body: Body | None, method: str, tried: str) -> bool:
        status = answer.status
        told_by_body = 200 <= status < 300
        may_be_gone = body and (told_by_body or status in bodies.GONE)
        gone = bool(may_be_gone and _read(self.is_gone, body or {}))
        if gone and method != "GET":
            return False
        undecided = not body if told_by_body else body is None and status in bodies.BODY_DECIDES
        code = str(_read(self.code, body or {}) or "")
        passing = status in TEMPORARY or status >= 500 or code in self.temporary_codes
        words = [
            str(status),
            code if CODE.fullmatch(code) and not self.is_secret(code) else "",
            "(its body cannot be read)" if undecided else self._hint(status, gone),
        ]
        raise self.failed(
            tried,
            " ".join(filter(None, words)),
            retry_after=waits.asked_for(answer, _read(self.retry_after, body or {})),
            permanent=not (passing or undecided),
            status=status,
        )

    def _hint(self, status: int, gone: bool) -> str:
        if 300 <= status < 400:
            return f"(redirects are not followed; check {self.base_url_variable})"
        if status in bodies.GONE:
            whose = "" if gone else f"not the provider's own {status}; "
            return f"({whose}check {self.base_url_variable})"
        return f"(check {self.key_variable})" if status == 401 else ""


def _read(field: Field | None, body: Body) -> Any:
    """Return what stands in a field; a function of the plugin's may expect what is not there."""
    if isinstance(field, str):
        return bodies.field(body, field)
    with suppress(LookupError, TypeError, AttributeError):
        return field(body) if field else None
    return None

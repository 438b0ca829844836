"""The HTTP client for plugins: what a provider's answer means, and no surprises on the way.

    provider = Upstream(
        "Example",
        key_variable="EXAMPLE_API_KEY",
        base_url_variable="EXAMPLE_BASE_URL",
        base_url="https://api.example.com/v1",
        authenticate=lambda key: {"Authorization": f"Bearer {key}"},
        code="code",
        is_gone=lambda body: body.get("code") == "not_found",
    )

    removed = provider.delete("things", thing_id, tried="thing delete")

How it is sent is in `transport`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from puffle_accounts import clock, config, context
from puffle_accounts.errors import TeardownFailed, UpstreamFailed
from puffle_accounts.resources import Resource
from puffle_accounts.transport import Answer, Clock, NoAnswer, Transport, Wanted

__all__ = ["Upstream", "UpstreamFailed", "resource"]

DEFAULT_SECONDS = 10.0  # where no deadline has been set
OF_DEADLINE = 0.95  # give up before the core does, to say what it was that took so long
JUDGE_SECONDS = 1.0  # to read what a 2xx says; its status has decided nearly everything
MOST_BODY = 8192  # bytes; neither a message nor a judgement needs more
MOST_ENVELOPE = 1 << 20  # bytes, where the body decides between a success and a wrong URL
MOST_PAGE = 16 << 20  # bytes of one page of a list
PATIENCE = (1.0, 5.0, 15.0)  # seconds to wait for a list whose provider says 429, but not when
LONGEST_WAIT = 60.0

TEMPORARY = frozenset({408, 409, 425, 429})
GONE = frozenset({404, 410})
BODY_DECIDES = GONE | {403}  # what these mean stands in their body alone
CODE = re.compile(r"[\w./-]{1,64}", re.ASCII)
SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
DATE = re.compile(r"[a-z]{3,9},? ", re.IGNORECASE)  # begins with a day of the week
JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.IGNORECASE)
HTML_TYPE = re.compile(r"text/html|application/xhtml", re.IGNORECASE)
HTML = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<(\?xml|!--)[^>]*>\s*)*"
    rb"<(!doctype\s+html|html|head|body|title|meta|script|style|div|h1|p|br|center)\b",
    re.IGNORECASE,
)
JSON_BEGINS = re.compile(rb"(\xef\xbb\xbf)?\s*([\[{\"]|-?[0-9]|true|false|null)")


class Upstream:
    """One provider's HTTP API. Safe to share between threads and greenlets.

    Args:
        name: the provider's, for messages.
        key_variable: the environment variable with the API key.
        base_url_variable: the environment variable with the base URL.
        base_url: where the API is if that variable is not set; `{VARIABLE}` in it
            stands for the value of another variable.
        authenticate: returns the headers that carry the key.
        code: the field of an error's body that holds the provider's short code.
        is_gone: whether the body of a 404 or a 410 is the provider's own "there is no
            such resource", which makes it a success. Any other one is a wrong URL.
        temporary_codes: short codes that will pass, whatever the status says.
    """

    def __init__(
        self,
        name: str,
        *,
        key_variable: str,
        base_url_variable: str,
        base_url: str,
        authenticate: Callable[[str], Mapping[str, str]],
        code: str,
        is_gone: Callable[[Mapping[str, Any]], bool],
        temporary_codes: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.missing: str | None = None
        self._key_variable = key_variable
        self._base_url_variable = base_url_variable
        self._default_base_url = base_url
        self._authenticate = authenticate
        self._code = code
        self._is_gone = is_gone
        self._temporary_codes = temporary_codes
        self._transport: Transport
        self._configured = False

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that it reads."""
        return (self._key_variable, self._base_url_variable, *self._in_default_base_url())

    def _in_default_base_url(self) -> list[str]:
        return [v for _, v, *_ in string.Formatter().parse(self._default_base_url) if v]

    def configure(self, environ: Mapping[str, str]) -> None:
        """Read the provider's variables; afterwards `missing` names one that is not set.

        Called by the service at its start; otherwise by the first request, with
        the process's environment.

        Raises:
            ConfigError: a value cannot be used.
        """
        key = config.secret(environ, self._key_variable)
        needed = {name: config.host(environ, name) for name in self._in_default_base_url()}
        base_url = config.url(environ, self._base_url_variable)
        if base_url is None and all(needed.values()):
            base_url = self._default_base_url.format(**needed)
        without = [self._key_variable] if not key else []
        without += [n for n, value in needed.items() if not value] if not base_url else []
        self.missing = ", ".join(without) or None
        if key and base_url:
            headers = {"Accept": "application/json", "User-Agent": "puffle-accounts"}
            self._transport = Transport(base_url, {**headers, **self._authenticate(key)})
        self._configured = True

    def delete(self, *segments: str, tried: str, share: float = 1.0) -> bool:
        """Remove a resource; return whether it was there.

        Args:
            segments: of the path below the base URL, each quoted as a whole.
            tried: what this is, for messages ("session revoke").
            share: part of the time that is left, from 0 to 1.

        Raises:
            UpstreamFailed: it is left, or may be.
        """
        return self._request("DELETE", segments, tried, share)

    def post(self, *segments: str, payload: Any, tried: str, share: float = 1.0) -> bool:
        """Send `payload` as JSON; arguments, answer and errors as for `delete`."""
        return self._request("POST", segments, tried, share, payload=payload)

    def get(self, *segments: str, params: Mapping[str, str], tried: str) -> None:
        """Ask for JSON that has to be there, with a query; arguments and errors as for `delete`."""
        self._request("GET", segments, tried, 1.0, params=params)

    def pages(
        self,
        *segments: str,
        items: str,
        cursor: str | tuple[str, ...],
        cursor_param: str,
        limit: int,
        tried: str,
    ) -> Iterator[Mapping[str, Any]]:
        """Return the items of a list, page by page, following its cursor to the end.

        A provider that asks to wait (429) is waited for, a few times.

        Args:
            segments: of the list's path below the base URL.
            items: the field with a page's items.
            cursor: the field with the cursor of the next page, or several that may have it.
            cursor_param: the query parameter that the cursor is given in.
            limit: items on a page, at most.
            tried: what this is, for messages ("inbox list").

        Raises:
            UpstreamFailed: the list could not be read to its end.
        """
        names = (cursor,) if isinstance(cursor, str) else cursor
        params, seen = {"limit": str(limit)}, set()
        while True:
            page = self._page(segments, params, tried)
            found = page.get(items)
            if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
                raise self._failed(tried, f"an answer without a list of {items}")
            yield from found
            following = next((page[name] for name in names if page.get(name)), None)
            if following is None:
                return
            if following in seen:
                raise self._failed(tried, "a cursor that came before: the list has no end")
            seen.add(following)
            params[cursor_param] = str(following)

    def _page(
        self, segments: tuple[str, ...], params: Mapping[str, str], tried: str
    ) -> Mapping[str, Any]:
        for patience in PATIENCE:
            try:
                return self._read_page(segments, params, tried)
            except UpstreamFailed as error:
                if error.status != 429:
                    raise
                time.sleep(min(error.retry_after or patience, LONGEST_WAIT))
        return self._read_page(segments, params, tried)

    def _read_page(
        self, segments: tuple[str, ...], params: Mapping[str, str], tried: str
    ) -> Mapping[str, Any]:
        answer = self._ask("GET", segments, tried, wanted=_whole_page, params=params)
        if not 200 <= answer.status < 300:
            self._judge(answer, "GET", tried)
        self._believe(answer, "GET", tried)
        body = _json_object(answer, MOST_PAGE) if answer.whole else None
        if not body:
            raise self._failed(tried, "an answer that is no JSON object, or was cut short")
        return body

    def _request(
        self,
        method: str,
        segments: tuple[str, ...],
        tried: str,
        share: float,
        payload: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> bool:
        answer = self._ask(method, segments, tried, _wanted, share, payload, params)
        if 200 <= answer.status < 300:
            self._believe(answer, method, tried)
            return True
        return self._judge(answer, method, tried)

    def _ask(
        self,
        method: str,
        segments: tuple[str, ...],
        tried: str,
        wanted: Wanted,
        share: float = 1.0,
        payload: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return whatever is answered."""
        if not self._configured:
            self.configure(os.environ)
        if self.missing:
            raise self._failed(tried, f"{self.missing} is not set", permanent=True)
        try:
            path = "".join(f"/{_quoted(segment)}" for segment in segments)
        except ValueError:
            why = "an id that cannot be part of a URL"
            raise self._failed(tried, why, permanent=True) from None
        if params:
            path += f"?{urlencode(params)}"
        seconds = context.seconds_left(DEFAULT_SECONDS) * OF_DEADLINE * share
        if seconds <= 0:
            raise self._failed(tried, "no time was left for it")
        request_id = context.request_id.get()
        headers = {"X-Request-ID": request_id} if request_id else {}
        try:
            return self._transport.send(method, path, headers, payload, Clock(seconds), wanted)
        except NoAnswer as error:
            raise self._failed(tried, str(error)) from None

    def _believe(self, answer: Answer, method: str, tried: str) -> None:
        """Raise UpstreamFailed if it was not the provider's API that answered with success."""
        wrong = _not_the_api(answer, json_expected=method == "GET")
        if wrong:
            why = f"{answer.status} with {wrong} (check {self._base_url_variable})"
            raise self._failed(tried, why, status=answer.status)

    def _judge(self, answer: Answer, method: str, tried: str) -> bool:
        status, body = answer.status, _json_object(answer)
        gone = status in GONE and bool(body) and self._is_gone(body or {})
        if gone and method != "GET":
            return False
        undecided = body is None and status in BODY_DECIDES
        code = str((body or {}).get(self._code) or "")
        passing = status in TEMPORARY or status >= 500 or code in self._temporary_codes
        words = [
            str(status),
            code if CODE.fullmatch(code) else "",
            "(its body cannot be read)" if undecided else self._hint(status, gone),
        ]
        raise self._failed(
            tried,
            " ".join(filter(None, words)),
            retry_after=_retry_after(answer.header("retry-after")),
            permanent=not (passing or undecided),
            status=status,
        )

    def _hint(self, status: int, gone: bool) -> str:
        if 300 <= status < 400:
            return f"(redirects are not followed; check {self._base_url_variable})"
        if status in GONE:
            whose = "" if gone else f"not the provider's own {status}; "
            return f"({whose}check {self._base_url_variable})"
        return f"(check {self._key_variable})" if status == 401 else ""

    def _failed(
        self, tried: str, why: str, *, status: int | None = None, **details: Any
    ) -> UpstreamFailed:
        error = UpstreamFailed(f"{self.name}: {tried}: {why}", **details)
        error.status = status
        return error


def resource(
    item: Mapping[str, Any], id: str, *, name: str | None = None, created_at: str | None = None
) -> Resource:
    """Return what an item of a list stands for.

    Args:
        item: one of those that `Upstream.pages` returns.
        id, name, created_at: the fields that have them; a time is ISO 8601, and one that
            cannot be read is unknown.

    Raises:
        TeardownFailed: the item has no id, so that the list cannot be trusted.
    """
    found, called = item.get(id), item.get(name) if name else None
    if isinstance(found, bool) or not isinstance(found, (str, int)) or found == "":
        raise TeardownFailed(f"a list with an item that has no {id}")
    try:
        born = clock.moment(item.get(created_at) if created_at else None)
    except ValueError:
        born = None
    return Resource(str(found), called if isinstance(called, str) else None, born)


def _quoted(segment: str) -> str:
    if segment in ("", ".", ".."):  # quoting keeps these
        raise ValueError(segment)
    return quote(segment, safe="")


def _wanted(status: int) -> tuple[int, float]:
    """Return how many bytes of an answer's body are of interest, and for how many seconds."""
    if 200 <= status < 300:
        return MOST_BODY, JUDGE_SECONDS
    return MOST_ENVELOPE if status in BODY_DECIDES else MOST_BODY, math.inf


def _whole_page(status: int) -> tuple[int, float]:
    """Return what is wanted of a page of a list: all of it, as far as pages go."""
    return (MOST_PAGE, math.inf) if 200 <= status < 300 else _wanted(status)


def _not_the_api(answer: Answer, json_expected: bool) -> str | None:
    """Return what a success holds that no API sends: a login page, say. `None`: nothing.

    An empty body is as good as any, and so is the beginning of one that is right so far.
    """
    if answer.whole and not answer.body:
        return None
    kind, body = answer.header("content-type"), _decoded(answer)
    if HTML_TYPE.match(kind) or HTML.match(body or answer.body):
        return "a web page"
    if body and (json_expected or JSON_TYPE.match(kind)) and not _is_json(body, answer.whole):
        return "a body that is no JSON"
    return None


def _is_json(body: bytes, whole: bool) -> bool:
    if not whole or len(body) >= MOST_BODY:
        return JSON_BEGINS.match(body) is not None
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(answer: Answer, most: int | None = None) -> bytes | None:
    """Return the body as it was before it was packed, `None` if that cannot be told."""
    packed = answer.header("content-encoding").lower()
    if not packed or packed == "identity":
        return bytes(answer.body)
    if any(each.strip() not in HTTPResponse.CONTENT_DECODERS for each in packed.split(",")):
        return None
    most = most or _wanted(answer.status)[0]
    raw, headers = io.BytesIO(answer.body), {"Content-Encoding": packed}
    try:
        return HTTPResponse(raw, headers, preload_content=False).read(most, decode_content=True)
    except (HTTPError, OSError):
        return None


def _json_object(answer: Answer, most: int | None = None) -> Mapping[str, Any] | None:
    """Return the JSON object in an answer's body, empty if that is no object.

    `None` is for a body that did not come, or not in time, or is packed in an unknown way.
    """
    most = most or _wanted(answer.status)[0]
    data = _decoded(answer, most) if answer.whole or len(answer.body) >= most else None
    if data is None:
        return None
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which may hold a date (RFC 9110 §10.2.3).

    `None` is for what cannot be read: it backs off, for nobody said "now".
    """
    if SECONDS.fullmatch(value):
        return float(value)
    if not DATE.match(value):
        return None
    try:
        date = parsedate_to_datetime(value).replace(tzinfo=timezone.utc)  # by definition
        return max((date - clock.now()).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None

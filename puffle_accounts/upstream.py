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

How it is sent is in `connections`.
"""

from __future__ import annotations

import json
import os
import re
import string
import time
from collections.abc import Callable, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from puffle_accounts import clock, config, context
from puffle_accounts.connections import Connections, give_up_at
from puffle_accounts.errors import UpstreamFailed

__all__ = ["Upstream", "UpstreamFailed"]

DEFAULT_SECONDS = 10.0  # where no deadline has been set
OF_DEADLINE = 0.95  # give up before the core does, to say what it was that took so long
CONNECT_SECONDS = 3.05
UNREAD_SECONDS = 1.0  # to drain an answer whose status has decided already
MOST_BODY = 8192  # bytes; an error message needs no more

TEMPORARY = frozenset({408, 409, 425, 429})
BODY_DECIDES = frozenset({403, 404})  # what these mean stands in their body alone
CODE = re.compile(r"[\w./-]{1,64}", re.ASCII)


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
        is_gone: whether the body of a 404 is the provider's own "there is no such
            resource", which makes it a success. Any other 404 is a wrong URL.
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
        self._headers: dict[str, str] = {}
        self._connections: Connections
        self._configured = False

    def configure(self, environ: Mapping[str, str]) -> None:
        """Read the provider's variables; afterwards `missing` names one that is not set.

        Called by the service at its start; otherwise by the first request, with
        the process's environment.

        Raises:
            ConfigError: a value cannot be used.
        """
        key = config.secret(environ, self._key_variable)
        wanted = [v for _, v, *_ in string.Formatter().parse(self._default_base_url) if v]
        needed = {name: config.host(environ, name) for name in wanted}
        base_url = config.url(environ, self._base_url_variable)
        if base_url is None and all(needed.values()):
            base_url = self._default_base_url.format(**needed)
        without = [self._key_variable] if not key else []
        without += [n for n, value in needed.items() if not value] if not base_url else []
        self.missing = ", ".join(without) or None
        if key and base_url:
            self._headers = {
                "Accept": "application/json",
                "User-Agent": "puffle-accounts",
                **self._authenticate(key),
            }
            self._connections = Connections(base_url)
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
        """Ask for what has to be there, with a query; arguments and errors as for `delete`."""
        if not self._request("GET", segments, tried, 1.0, params=params):
            why = f"404 (check {self._base_url_variable})"
            raise self._failed(tried, why, permanent=True, status=404)

    def _request(
        self,
        method: str,
        segments: tuple[str, ...],
        tried: str,
        share: float,
        payload: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> bool:
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
        token = give_up_at.set(time.monotonic() + seconds)
        try:
            return self._judge(self._send(method, path, payload, seconds, tried), tried)
        finally:
            give_up_at.reset(token)

    def _send(
        self, method: str, path: str, payload: Any, seconds: float, tried: str
    ) -> BaseHTTPResponse:
        headers = dict(self._headers)
        request_id = context.request_id.get()
        if request_id:
            headers["X-Request-ID"] = request_id
        timeout = Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds)
        try:
            return self._connections.send(method, path, headers, payload, timeout)
        except NewConnectionError as error:  # refused, or an unknown host
            raise self._failed(tried, f"no connection ({type(error).__name__})") from None
        except ConnectTimeoutError:
            why = f"no connection within {timeout.connect_timeout:.1f} s"
            raise self._failed(tried, why) from None
        except Urllib3TimeoutError:
            raise self._failed(tried, f"no answer within {seconds:.1f} s") from None
        except Exception as error:  # its own words may hold the URL or a header
            raise self._failed(tried, f"no connection ({type(error).__name__})") from None

    def _judge(self, response: BaseHTTPResponse, tried: str) -> bool:
        status = response.status
        if 200 <= status < 300:
            give_up_at.set(min(give_up_at.get(), time.monotonic() + UNREAD_SECONDS))
            _read(response)
            return True
        body = _read(response)
        if status == 404 and body and self._is_gone(body):
            return False
        undecided = body is None and status in BODY_DECIDES
        code = str((body or {}).get(self._code) or "")
        passing = status in TEMPORARY or status >= 500 or code in self._temporary_codes
        words = [
            str(status),
            code if CODE.fullmatch(code) else "",
            "(its body was cut short)" if undecided else self._hint(status),
        ]
        raise self._failed(
            tried,
            " ".join(filter(None, words)),
            retry_after=_retry_after(response.headers.get("Retry-After")),
            permanent=not (passing or undecided),
            status=status,
        )

    def _hint(self, status: int) -> str:
        if 300 <= status < 400:
            return f"(redirects are not followed; check {self._base_url_variable})"
        return {
            401: f"(check {self._key_variable})",
            404: f"(not the provider's own 404; check {self._base_url_variable})",
        }.get(status, "")

    def _failed(
        self, tried: str, why: str, *, status: int | None = None, **details: Any
    ) -> UpstreamFailed:
        error = UpstreamFailed(f"{self.name}: {tried}: {why}", **details)
        error.status = status
        return error


def _quoted(segment: str) -> str:
    if segment in ("", ".", ".."):  # quoting keeps these
        raise ValueError(segment)
    return quote(segment, safe="")


def _read(response: BaseHTTPResponse) -> Mapping[str, Any] | None:
    """Return the JSON object in the first bytes of the body, empty if that is no object.

    `None` is for a body that did not come, or not in time.
    """
    try:
        data = response.read(MOST_BODY, decode_content=True)
    except Exception:  # cut short, too slow, or in an encoding that it is not in
        return None
    finally:
        response.close()  # read to its end, it has given its connection back before
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which may hold a date (RFC 9110 §10.2.3)."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            return float(value)
        date = parsedate_to_datetime(value).replace(tzinfo=timezone.utc)  # by definition
        return max((date - clock.now()).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None

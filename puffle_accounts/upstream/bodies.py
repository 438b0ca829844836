"""What stands in an answer's body, as far as it came."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from puffle_accounts.transport import Answer

JUDGE_SECONDS = 1.0  # to read what a 2xx says; its status has decided nearly everything
MOST_BODY = 8192  # bytes; neither a message nor a judgement needs more
MOST_ENVELOPE = 1 << 20  # bytes, where the body decides between a success and a wrong URL
MOST_PAGE = 16 << 20  # bytes of one page of a list

GONE = frozenset({404, 410})
BODY_DECIDES = GONE | {403}  # what these mean stands in their body alone
JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.IGNORECASE)
HTML_TYPE = re.compile(r"text/html|application/xhtml", re.IGNORECASE)
HTML = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<(\?xml|!--)[^>]*>\s*)*"
    rb"<(!doctype\s+html|html|head|body|title|meta|script|style|div|h1|p|br|center)\b",
    re.IGNORECASE,
)
JSON_BEGINS = re.compile(rb"(\xef\xbb\xbf)?\s*([\[{\"]|-?[0-9]|true|false|null)")


def wanted(status: int) -> tuple[int, float]:
    """Return how many bytes of an answer's body are of interest, and for how many seconds."""
    if 200 <= status < 300:
        return MOST_BODY, JUDGE_SECONDS
    return MOST_ENVELOPE if status in BODY_DECIDES else MOST_BODY, math.inf


def telling(status: int) -> tuple[int, float]:
    """Return what is wanted where the body of a success says whether it is one."""
    return (MOST_ENVELOPE, math.inf) if 200 <= status < 300 else wanted(status)


def whole_page(status: int) -> tuple[int, float]:
    """Return what is wanted of a page of a list: all of it, as far as pages go."""
    return (MOST_PAGE, math.inf) if 200 <= status < 300 else wanted(status)


def not_the_api(answer: Answer, json_expected: bool) -> str | None:
    """Return what a success holds that no API sends: a login page, say. `None`: nothing.

    An empty body is as good as any, and so is the beginning of one that is right so far.
    """
    if answer.whole and not answer.body:
        return None
    kind, body = answer.header("content-type"), _decoded(answer, MOST_BODY)
    if HTML_TYPE.match(kind) or HTML.match(body or answer.body):
        return "a web page"
    if body and (json_expected or JSON_TYPE.match(kind)) and not _is_json(body, answer.whole):
        return "a body that is no JSON"
    return None


def json_object(answer: Answer, most: int) -> Mapping[str, Any] | None:
    """Return the JSON object in an answer's body, empty if that is no object.

    `None` is for a body that did not come, or not in time, or is packed in an unknown way.

    Args:
        most: bytes that were wanted of it.
    """
    data = _decoded(answer, most) if answer.whole or len(answer.body) >= most else None
    if data is None:
        return None
    body = _parsed(data)
    return body if isinstance(body, dict) else {}


def json_page(answer: Answer) -> Any:
    """Return the JSON in the body of a page of a list, `None` if it is none or was cut short."""
    return _parsed(_decoded(answer, MOST_PAGE) or b"") if answer.whole else None


def field(body: Any, path: str) -> Any:
    """Return what stands at a dotted path ("error.code") of a JSON object, `None` if nothing.

    A field that is called so, dots and all, comes first.
    """
    if not isinstance(body, Mapping):
        return None
    name, _, rest = path.partition(".")
    if path in body or not rest:
        return body.get(path)
    return field(body.get(name), rest)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _is_json(body: bytes, whole: bool) -> bool:
    if not whole or len(body) >= MOST_BODY:
        return JSON_BEGINS.match(body) is not None
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(answer: Answer, most: int) -> bytes | None:
    """Return the body as it was before it was packed, `None` if that cannot be told."""
    packed = answer.header("content-encoding").lower()
    if not packed or packed == "identity":
        return bytes(answer.body)
    if any(each.strip() not in HTTPResponse.CONTENT_DECODERS for each in packed.split(",")):
        return None
    raw, headers = io.BytesIO(answer.body), {"Content-Encoding": packed}
    try:
        return HTTPResponse(raw, headers, preload_content=False).read(most, decode_content=True)
    except (HTTPError, OSError):
        return None

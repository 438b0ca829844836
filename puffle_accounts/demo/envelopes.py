"""How each provider words its answers: envelopes, refusals, pages of a list."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

PROVIDERS = ("unipile", "instantly", "agentmail")
KEYS = {provider: f"not-a-real-{provider}-key" for provider in PROVIDERS}

# fault -> status, and how Unipile's type, Instantly's message and AgentMail's code put it.
_FAULTS = {
    "gone": (404, "resource_not_found", "Resource not found", "not_found"),
    "fail": (500, "unexpected_error", "Something went wrong", "internal_error"),
    "rate-limit": (429, "too_many_requests", "Rate limit exceeded", "rate_limit_exceeded"),
    "refuse": (401, "missing_credentials", "Invalid API key", "unknown_api_key"),
    "unpaid": (402, "payment_required", "No active paid plan", "payment_required"),
    "no_client_session": (503, "no_client_session", "", ""),
    "request_timeout": (504, "request_timeout", "", ""),
    "active_campaigns": (400, "", "Account may be assigned to active campaigns", ""),
    "resource_deleting": (403, "", "", "resource_deleting"),
    "cannot_delete": (403, "", "", "cannot_delete"),
    "missing_permission": (403, "", "", "missing_permission"),
    "forbidden": (403, "", "", "forbidden"),
    "race_condition": (409, "", "", "race_condition"),
}
# provider -> the parameter that a cursor is given in, and the field that has the next one.
CURSORS = {
    "unipile": ("cursor", "cursor"),
    "instantly": ("starting_after", "next_starting_after"),
    "agentmail": ("page_token", "next_page_token"),
}
_BORN = "2026-01-02T03:04:05.678Z"  # when everything here was made


def provider_asked() -> str:
    """Whose path is asked for, or an empty string."""
    name = request.path.split("/")[1]
    return name if name in PROVIDERS else ""


def path_at_provider() -> str:
    """Return the path below the provider's own host, still quoted."""
    provider = provider_asked()
    return request.path.removeprefix(f"/{provider}") if provider else request.path


def refusal(provider: str) -> Response | None:
    """What is wrong with the key or, at Instantly, with the body."""
    name, scheme = ("X-API-KEY", "") if provider == "unipile" else ("Authorization", "Bearer ")
    if request.headers.get(name) != scheme + KEYS[provider]:
        return fault(provider, "refuse")
    if provider == "instantly" and request.is_json and not request.get_data():
        message = "Body cannot be empty when content-type is set to 'application/json'"
        return _problem(provider, 400, message, code="FST_ERR_CTP_EMPTY_JSON_BODY")
    return None


def listing(ids: list[str], cursor: str | None) -> Response:
    """Return a page of a list and where the next one begins, `None` after the last."""
    following = {CURSORS[provider_asked()][1]: cursor}
    if provider_asked() == "agentmail":
        inboxes = [{"inbox_id": i, "email": i, "created_at": _BORN} for i in ids]
        return jsonify(count=len(ids), limit=len(ids), inboxes=inboxes, **following)
    if provider_asked() == "instantly":
        accounts = [{"email": i, "timestamp_created": _BORN, "status": 1} for i in ids]
        return jsonify(items=accounts, **following)
    sessions = [
        {"object": "Account", "id": i, "type": "LINKEDIN", "created_at": _BORN} for i in ids
    ]
    return jsonify(object="AccountList", items=sessions, **following)


def deleted(resource_id: str) -> Response:
    """Return what a delete that worked answers."""
    if provider_asked() == "agentmail":
        return Response()  # empty: no client may count on JSON here
    if provider_asked() == "instantly":
        return jsonify(email=resource_id, status=1, warmup_status=0)
    return jsonify(object="AccountDeleted")


def disable_warmup() -> Response:
    """Answer as Instantly does to the order to end some accounts' warm-up."""
    # The real one also takes include_all_emails, which no caller may ever send.
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not body.get("emails") or len(body) > 1:
        return _problem("instantly", 400, "body must have emails and nothing else")
    return jsonify(type="update-warmup-accounts", status="pending", progress=0)


def unrouted(error: HTTPException) -> Response:
    """A wrong URL or method: an HTML page, but for Instantly."""
    if provider_asked() != "instantly":
        return Response(f"<h1>{error.name}</h1>", error.code)
    url = path_at_provider() + "?" * bool(request.query_string) + request.query_string.decode()
    return _problem("instantly", 404, f"Route {request.method}:{url} not found")


def fault(provider: str, kind: str) -> Response:
    """Return what a provider answers to a fault of this kind."""
    status, *reasons = _FAULTS[kind]
    return _problem(provider, status, reasons[PROVIDERS.index(provider)])


def _problem(provider: str, status: int, reason: str, **more: str) -> Response:
    """An error in the provider's own envelope."""
    title = HTTPStatus(status).phrase
    unipile: dict[str, Any] = {"title": title, "type": f"errors/{reason}", "status": status}
    if request.path.startswith("/unipile/v2/"):
        unipile |= {"object": "Error", "type": f"api/{reason}"}
    name = title.replace(" ", "").removesuffix("Error") + "Error"
    envelopes: dict[str, dict[str, Any]] = {
        "unipile": unipile,
        "instantly": {"statusCode": status, "error": title, "message": reason},
        "agentmail": {"name": name, "code": reason, "message": title},
    }
    response = jsonify(envelopes[provider] | more)
    response.status_code = status
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        response.headers["Retry-After"] = "30"
    return response

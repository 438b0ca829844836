"""One shape for every error (RFC 9457)."""

from __future__ import annotations

import json
import logging

from flask import Flask, Response
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.http import HTTP_STATUS_CODES

from puffle_accounts.errors import Problem

log = logging.getLogger(__name__)

DETAILS = {
    "invalid_account_id": (400, "The account id is not a UUID."),
    "invalid_idempotency_key": (
        400,
        "The Idempotency-Key must be 1 to 255 characters of printable ASCII.",
    ),
    "unauthorized": (401, "A valid API key is needed: Authorization: Bearer <API key>."),
    "account_not_found": (404, "You have no account with this id."),
    "not_found": (404, "There is nothing here but DELETE /api/accounts/{id}."),
    "method_not_allowed": (405, "An account can only be deleted here."),
    "idempotency_key_in_use": (409, "A request with this Idempotency-Key is being worked on."),
    "idempotency_key_reused": (422, "This Idempotency-Key belongs to another account."),
    "delete_failed": (500, "The account could not be deleted and is still there; try again."),
    "internal_error": (
        500,
        "The service failed. What became of the account is not known; asking again is safe.",
    ),
    "database_unavailable": (
        503,
        "The database did not answer or takes no writes; nothing was done. Try again.",
    ),
}


def response(problem: Problem) -> Response:
    """Return the problem as `application/problem+json`."""
    status, detail = DETAILS[problem.error]
    body = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES[status],
        "status": status,
        "detail": detail,
        "error": problem.error,
    }
    return Response(json.dumps(body), status, problem.headers, mimetype="application/problem+json")


def init_app(app: Flask) -> None:
    """Answer every error of the application with a problem."""
    app.register_error_handler(Problem, response)
    app.register_error_handler(NotFound, lambda _: response(Problem("not_found")))
    app.register_error_handler(
        MethodNotAllowed, lambda _: response(Problem("method_not_allowed", Allow="DELETE"))
    )
    app.register_error_handler(Exception, _from_bug)


def _from_bug(error: Exception) -> Response:
    log.error("request.failed", exc_info=error)
    return response(Problem("internal_error"))

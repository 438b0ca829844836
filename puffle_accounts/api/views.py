"""DELETE /api/accounts/{id}, and nothing else."""

from __future__ import annotations

import logging
import uuid

from flask import Flask, Response, request

from puffle_accounts import context, idempotency
from puffle_accounts.account import parse_id
from puffle_accounts.api.auth import token_auth
from puffle_accounts.api.problems import response
from puffle_accounts.errors import (
    DatabaseUnavailable,
    DeleteFailed,
    InvalidKey,
    KeyInUse,
    KeyReused,
    Problem,
)
from puffle_accounts.idempotency import Replay, Sweeper
from puffle_accounts.keys import Caller
from puffle_accounts.live import Found
from puffle_accounts.service import Service
from puffle_accounts.telemetry import telemetry

RETRY_AFTER = "5"  # seconds until the database may be back

log = logging.getLogger(__name__)

PROBLEMS = {
    InvalidKey: "invalid_idempotency_key",
    KeyInUse: "idempotency_key_in_use",
    KeyReused: "idempotency_key_reused",
    DeleteFailed: "delete_failed",
}


def init_app(app: Flask, service: Service) -> None:
    """Add the one route, and what every answer carries."""
    auth = token_auth(service)
    sweep = Sweeper(service.idempotency_keys)

    def delete_account(account_id: str) -> Response:
        caller: Caller = auth.current_user()
        asked_for = parse_id(account_id)
        if asked_for is None:
            raise Problem("invalid_account_id")
        header = request.headers.get("Idempotency-Key")
        if header is None:
            return _success(service.end(_owned(caller)))
        key = idempotency.parse(header)
        sweep()
        claim = service.idempotency_keys.claim(caller.user_id, key, asked_for)
        if isinstance(claim, Replay):
            return _success(claim.teardown_status, replayed=True)
        try:
            return _success(service.end(_owned(caller), claim))
        except BaseException:
            service.idempotency_keys.free(claim)
            raise

    app.url_map.merge_slashes = False  # `/api//accounts/…` is a 404, not a redirect
    app.add_url_rule(
        "/api/accounts/<account_id>",
        view_func=auth.login_required(delete_account),
        methods=["DELETE"],
        provide_automatic_options=False,
    )
    app.before_request(_begin)
    app.after_request(_end)
    for error, code in PROBLEMS.items():
        app.register_error_handler(error, lambda _, code=code: response(Problem(code)))
    # Once a provider has been called, it is a DeleteFailed.
    app.register_error_handler(DatabaseUnavailable, _unavailable)


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    context.request_id.set(given if context.is_request_id(given) else uuid.uuid4().hex)


def _end(answer: Response) -> Response:
    if request.url_rule:  # else it was not for the one route
        telemetry.count("puffle.deletes", {"http.response.status_code": answer.status_code})
    answer.headers["X-Request-ID"] = context.request_id.get() or ""
    answer.call_on_close(lambda: context.request_id.set(None))  # after the access log's line
    return answer


def _owned(caller: Caller) -> Found:
    if caller.found is None:
        raise Problem("account_not_found")
    return caller.found


def _success(teardown_status: str, replayed: bool = False) -> Response:
    answer = Response('{"success": true}', mimetype="application/json")
    answer.headers["Teardown-Status"] = teardown_status
    if replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return answer


def _unavailable(error: Exception) -> Response:
    log.error("database.unavailable", extra={"reason": str(error)})
    return response(Problem("database_unavailable", Retry_After=RETRY_AFTER))

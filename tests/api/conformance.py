"""What schemathesis draws from openapi.yaml, sent to the live service; and the rarer answers.

test_openapi.py runs this file. It is not collected with the rest, for to draw the requests takes a
second of every process that collects them.
"""

import re

import pytest
import schemathesis
from documents import shipped_openapi
from hypothesis import HealthCheck, settings
from schemathesis.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support import only

PATH = "/api/accounts/{id}"
# All checks are on. Random data is accepted or refused by the rules of the API: 422 is the
# key of another account, as 409 and 404 by default.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", "422"]}
    }
}
CONFORMANCE = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
OURS = schemathesis.Config.from_dict(CONFIG)
api = schemathesis.openapi.from_dict(shipped_openapi(), config=OURS)


@pytest.fixture
def answered():
    """The statuses that were seen, so that the test cannot pass by being refused."""
    statuses = set()
    yield statuses
    assert statuses >= {200, 400, 401, 404, 405}


@only("sqlite")
@api.parametrize()
@settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one service for all is meant
)
def test_the_live_service_conforms(case, live, answered):
    account = str(case.path_parameters["id"])
    if re.fullmatch(r"[0-9a-fA-F-]{35}[02468aceACE]", account) and not live.row(account.lower()):
        live.add_linkedin(id=account.lower())  # so that every other account exists
    authorization = {"Authorization": f"Bearer {live.key}"}
    answered.add(case.call_and_validate(base_url=live.url, headers=authorization).status_code)


@only("sqlite")
def test_the_rarer_answers_conform_too(live):
    one, other = live.add_linkedin(), live.add_linkedin()
    live.sandbox.behave("unipile", "fail")
    answers = [live.delete(one, Idempotency_Key="k") for _ in range(2)]
    answers.append(live.delete(other, Idempotency_Key="k"))
    live.sql("UPDATE idempotency_keys SET finished_at = NULL, teardown_status = NULL")
    answers.append(live.delete(one, Idempotency_Key="k"))
    live.sql("CREATE TABLE sends (account_id TEXT REFERENCES accounts (id))")
    live.sql("INSERT INTO sends VALUES (?)", one)
    answers.append(live.delete(one))
    live.sql("DROP TABLE api_keys")
    answers.append(live.delete(one))
    assert [answer.status_code for answer in answers] == [200, 200, 422, 409, 500, 503]
    case = api[PATH]["DELETE"].Case(path_parameters={"id": one})
    for answer in answers:
        case.validate_response(answer, checks=CONFORMANCE)

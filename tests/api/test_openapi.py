"""The shipped openapi.yaml is what the live service does."""

import json
import re
from importlib.resources import files

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support import only

from puffle_accounts.api.problems import DETAILS, response
from puffle_accounts.errors import Problem

DOCUMENT = yaml.safe_load((files("puffle_accounts.api") / "openapi.yaml").read_text("utf-8"))
PATH = "/api/accounts/{id}"
RESPONSES = DOCUMENT["paths"][PATH]["delete"]["responses"]
NOT_OF_THE_OPERATION = {"method_not_allowed"}  # of other methods, told in the description

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
api = schemathesis.openapi.from_dict(DOCUMENT, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture
def answered():
    """The statuses that were seen, so that the test cannot pass by being refused."""
    statuses = set()
    yield statuses
    assert statuses >= {200, 400, 401, 404, 405}


@pytest.mark.slow
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


@only("sqlite")
def test_the_document_and_the_url_map_agree(live):
    routed = {
        (re.sub("<.+?>", "{}", rule.rule), method)
        for rule in live.app.url_map.iter_rules()
        for method in rule.methods
    }
    documented = {
        (re.sub("{.+?}", "{}", path), method.upper())
        for path, item in DOCUMENT["paths"].items()
        for method in item
    }
    assert routed == documented


def test_the_document_names_every_status_and_error():
    expected = {200: set()}
    for error, (status, _) in DETAILS.items():
        if error not in NOT_OF_THE_OPERATION:
            expected.setdefault(status, set()).add(error)
    documented = {
        int(status): {
            example["value"].get("error")
            for content in answer["content"].values()
            for example in content["examples"].values()
        }
        - {None}
        for status, answer in RESPONSES.items()
    }
    assert documented == expected


@pytest.mark.parametrize("error", sorted(DETAILS.keys() - NOT_OF_THE_OPERATION))
def test_the_examples_are_what_is_answered(error):
    answer = response(Problem(error))
    content = RESPONSES[str(answer.status_code)]["content"][answer.mimetype]
    assert json.loads(answer.data) == content["examples"][error]["value"]


def test_the_id_is_the_published_pattern():
    (id,) = [p for p in DOCUMENT["paths"][PATH]["delete"]["parameters"] if p["name"] == "id"]
    assert id["schema"]["pattern"] == (
        "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
        "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
    )

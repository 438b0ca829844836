"""The shipped openapi.yaml is what the live service does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import shipped_openapi
from support import ROOT, only

from puffle_accounts.api.problems import DETAILS, response
from puffle_accounts.errors import Problem

DOCUMENT = shipped_openapi()
PATH = "/api/accounts/{id}"
RESPONSES = DOCUMENT["paths"][PATH]["delete"]["responses"]
NOT_OF_THE_OPERATION = {"method_not_allowed"}  # of other methods, told in the description


@pytest.mark.slow
def test_the_live_service_conforms():
    drawn = Path(__file__).with_name("conformance.py")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "schemathesis", "-p", "no:cacheprovider", drawn],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


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

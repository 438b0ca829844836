"""What schemathesis and hypothesis draw from openapi.yaml, against the live service.

Every answer conforms to the document, carries its request's `X-Request-ID`, and is no 500.
"""

import uuid
from importlib.resources import files

import schemathesis
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from soak.live import Trial

PATH = "/api/accounts/{id}"
CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


class Conforming(Trial):
    """All cases against one worker class and one database."""

    INPUT = "drawn from openapi.yaml"

    def __init__(self, worker_class, database_url, seed, count, folder):
        super().__init__(worker_class, database_url, folder)
        self._seed, self._count = seed, count

    def work(self):
        """Send all; return what came of it."""
        with self.service() as (stack, _):
            self._send_all(stack)
        return self.result()

    def _send_all(self, stack):
        document = yaml.safe_load(
            (files("puffle_accounts.api") / "openapi.yaml").read_text("utf-8")
        )
        operation = schemathesis.openapi.from_dict(document)[PATH]["DELETE"]
        drawn = one_of(
            operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode
        )

        @seed(self._seed)
        @settings(
            max_examples=self._count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=drawn)
        def send(case):
            self._send(stack, case)

        send()

    def _send(self, stack, case):
        id = uuid.uuid4().hex
        headers = {"Authorization": f"Bearer {stack.key}", "X-Request-ID": id}
        answer = case.call(base_url=stack.url, headers=headers, timeout=10)
        self.answers[str(answer.status_code)] += 1
        if answer.status_code >= 500:
            self.found.append(f"{case.path_parameters}: {answer.status_code}")
        if answer.headers.get("x-request-id") not in ([id], id):
            self.found.append(f"{case.path_parameters}: another's answer")
        try:
            case.validate_response(answer, checks=CHECKS)
        except Exception as error:
            self.found.append(f"{case.path_parameters}: {error}"[:300])

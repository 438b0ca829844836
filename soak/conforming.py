"""What schemathesis and hypothesis draw from openapi.yaml, against the live service.

Every answer conforms to the document, carries its request's `X-Request-ID`, and is no 500.
"""

import uuid
from collections import Counter
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
from support import Gunicorn, Stack

from puffle_accounts.demo.sandbox import Sandbox

PATH = "/api/accounts/{id}"
CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


class Conforming:
    """All cases against one worker class and one database."""

    def __init__(self, worker_class, database_url, seed, count, folder):
        self._worker_class, self._url, self._seed = worker_class, database_url, seed
        self._count, self._folder = count, folder
        self.found, self.answers = [], Counter()

    def work(self):
        """Send all; return what came of it."""
        with Sandbox() as sandbox:
            stack = Stack(self._url, sandbox)
            words = ("--worker-class", self._worker_class)
            server = Gunicorn(stack, self._folder / "log", *words).wait_until_ready()
            try:
                self._send_all(stack)
                if "Traceback" in server.log.read_text():
                    self.found.append("the log has a traceback")
            finally:
                server.kill()
                stack.database.close_all()
        return {
            "worker class": self._worker_class,
            "database": self._url.partition(":")[0],
            "input": "drawn from openapi.yaml",
            "cases": sum(self.answers.values()),
            "answers": dict(sorted(self.answers.items())),
            "wrong": len(self.found),
            "found": self.found[:20],
        }

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

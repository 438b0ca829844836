"""Break each plugin in many ways, and see the kit and the plugin's own tests catch every one.

    python tests/plugins/mutants.py [PLUGIN…]

A mutant is the module with a few words replaced. Its tests run in a fork of this process, so that
pytest and all it needs are imported once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "puffle-smartlead"
AT_A_TIME = min(os.cpu_count() or 1, 4)
SECONDS = 30  # that the tests of one mutant may take before it counts as caught
QUIET = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "pytest_puffle_accounts",
    "-p",
    "pytest_timeout",
)
SETTINGS = ("-c", str(ROOT / "setup.cfg"), f"--timeout={SECONDS}")

Words = tuple[tuple[str, str], ...]


class Subject(NamedTuple):
    """A plugin, its tests, and what is done to it."""

    module: Path
    tests: Path
    mutants: dict[str, Words]


def one(old: str, new: str) -> Words:
    return ((old, new),)


def around(call: str, *handler: str) -> Words:
    """Return how a statement is put into a `try` with a handler of UpstreamFailed."""
    lines = ["try:", f"    {call}", "except UpstreamFailed as error:", *handler]
    imported = "from puffle_accounts.upstream import "
    return (
        (f"    {call}\n", "".join(f"    {line}\n" for line in lines)),
        (imported, f"{imported}UpstreamFailed, "),
    )


SWALLOWED = ("    removed = True",)
NOTHING = ("    raise", "else:", "    return None")
REFUSED_IS_DONE = ("    if error.status != 401:", "        raise", "    removed = True")
MISSING_IS_GONE = ("    if error.status != 404:", "        raise", "    removed = False")
BUSY_IS_GOOD = ("    error.permanent = True", "    raise")
NO_PERMANENCE = ("    error.permanent = False", "    raise")
NO_PAUSE = ("    error.retry_after = None", "    raise")


def of_any(delete: str, client: str) -> dict[str, Words]:
    """Return what can be done to every plugin.

    Args:
        delete: the statement that deletes.
        client: the name of its `Upstream`.
    """
    return {
        "nothing is deleted": one(delete, "removed = True"),
        "a failure is swallowed": around(delete, *SWALLOWED),
        "a refused key is a success": around(delete, *REFUSED_IS_DONE),
        "any 404 is a success": around(delete, *MISSING_IS_GONE),
        "every failure is permanent": around(delete, *BUSY_IS_GOOD),
        "no failure is permanent": around(delete, *NO_PERMANENCE),
        "nobody is told how long to wait": around(delete, *NO_PAUSE),
        "it posts instead": one(
            delete, delete.replace(".delete(", ".post(").replace("tried=", "payload={}, tried=")
        ),
        "it deletes twice": one(delete, f"{delete}\n    {delete}"),
        "what is gone is told as done": one(" if removed else ", " if True else "),
        "what is done is told as gone": one(" if removed else ", " if not removed else "),
        "nothing is told": around(delete, *NOTHING),
        "the check asks nobody": one(f"    {client}.get(", "    return\n    _ = dict("),
        "the list swallows a failure": (
            (
                "    for item in listed:",
                "    from itertools import islice\n    listed = islice(listed, 1)\n"
                "    for item in listed:",
            ),
        ),
        "it takes every type": one("ACCOUNT_TYPES = {", "_TYPES = {"),
        "it declares no ids": one("RESOURCE_IDS = (", "_IDS = ("),
        "the key is not sent": one("    authenticate=", "    authenticate=lambda key: {},  #"),
        "every 404 is the provider's own": one("    is_gone=", "    is_gone=lambda body: True,  #"),
        "no 404 is the provider's own": one("    is_gone=", "    is_gone=lambda body: False,  #"),
        "the code is another field": one("    code=", '    code="message",  #'),
    }


AGENTMAIL = (
    'removed = agentmail.delete("v0", "inboxes", account.agentmail_inbox_id, tried="inbox delete")'
)
UNIPILE = (
    'removed = unipile.delete("accounts", account.provider_account_id, tried="session revoke")'
)
INSTANTLY = 'removed = instantly.delete("api", "v2", "accounts", address, tried="account delete")'
SMARTLEAD = 'removed = smartlead.delete("email-accounts", account_id, tried="account delete")'

SUBJECTS = {
    "agentmail": Subject(
        ROOT / "plugins" / "puffle_agentmail.py",
        ROOT / "tests" / "plugins" / "test_agentmail.py",
        of_any(AGENTMAIL, "agentmail")
        | {
            "another id is deleted": one("account.agentmail_inbox_id, tried", "account.id, tried"),
            "an inbox that was never linked is deleted": (
                ('("agentmail_inbox_id",)', '("agentmail_inbox_id", "email_address")'),
                ("if not account.agentmail_inbox_id:", "if False:"),
                (
                    '"inboxes", account.agentmail_inbox_id',
                    '"inboxes", account.agentmail_inbox_id or account.email_address',
                ),
            ),
            "the id is not quoted": one(
                '"inboxes", account.agentmail_inbox_id,',
                '"inboxes", *account.agentmail_inbox_id.split("/"),',
            ),
            "another path": one('"inboxes", account', '"threads", account'),
            "another version": one('"v0", "inboxes", account', '"v1", "inboxes", account'),
            "a delete under way is permanent": one('"resource_deleting", ', ""),
            "what depends on it is permanent": one(', "cannot_delete"', ""),
            "a missing permission passes": one(
                '"cannot_delete"', '"cannot_delete", "missing_permission"'
            ),
            "gone is told by another field": one(
                'body.get("code") == "not_found"', 'body.get("name") == "NotFoundError"'
            ),
            "the key travels otherwise": one("Bearer {key}", "{key}"),
            "the list stops at the first page": one('"next_page_token"', '"next"'),
            "the list asks for the first page again": one('"page_token"', '"token"'),
            "the list gives another id": one('item, "inbox_id"', 'item, "email"'),
            "the list gives no times": one(', created_at="created_at"', ""),
            "the check asks another path": one('get("v0", "inboxes"', 'get("v0", "threads"'),
        },
    ),
    "unipile": Subject(
        ROOT / "plugins" / "puffle_unipile.py",
        ROOT / "tests" / "plugins" / "test_unipile.py",
        of_any(UNIPILE, "unipile")
        | {
            "another id is deleted": one("account.provider_account_id, tried", "account.id, tried"),
            "an address will do": (
                ('("provider_account_id",)', '("provider_account_id", "email_address")'),
                ("if not account.provider_account_id:", "if False:"),
                (
                    '"accounts", account.provider_account_id',
                    '"accounts", account.provider_account_id or account.email_address',
                ),
            ),
            "the id is not quoted": one(
                '"accounts", account.provider_account_id,',
                '"accounts", *account.provider_account_id.split("/"),',
            ),
            "another path": one('"accounts", account', '"users", account'),
            "v1 alone": one("return v1 or v2", "return v1"),
            "v2 alone": one("return v1 or v2", "return v2"),
            "v1 by its beginning": one(
                'kind == "errors/resource_not_found"',
                'kind.startswith("errors/resource_not_found")',
            ),
            "v2 without its object": one('body.get("object") == "Error" and ', ""),
            "v2 without its kind": one(' and kind.startswith("api/")', ""),
            "the key travels otherwise": one('"X-API-KEY": key', '"Authorization": key'),
            "the list gives what is another product's": one(
                'if item.get("type") == "LINKEDIN":', "if True:"
            ),
            "the list stops at a cursor of v2": one('("cursor", "next_cursor")', '"cursor"'),
            "the list asks for the first page again": one(
                'cursor_param="cursor"', 'cursor_param="next_cursor"'
            ),
            "the list gives no names": one(', name="name"', ""),
            "the check asks another path": one('get("accounts"', 'get("users"'),
        },
    ),
    "instantly": Subject(
        ROOT / "plugins" / "puffle_instantly.py",
        ROOT / "tests" / "plugins" / "test_instantly.py",
        of_any(INSTANTLY, "instantly")
        | {
            "the warm-up is not disabled": one(
                "disabled = _disable_warmup(address)", 'disabled = "disabled"'
            ),
            "another order": (
                (
                    f"    disabled = _disable_warmup(address)\n    {INSTANTLY}\n",
                    f"    {INSTANTLY}\n    disabled = _disable_warmup(address)\n",
                ),
            ),
            "the warm-up of all is disabled": one(
                '{"emails": [address]}', '{"emails": [address], "include_all_emails": True}'
            ),
            "the warm-up of another is disabled": one(
                "_disable_warmup(address)", '_disable_warmup("x")'
            ),
            "the address comes first": one(
                "account.instantly_account_id or account.email_address",
                "account.email_address or account.instantly_account_id",
            ),
            "the address alone": one(
                "account.instantly_account_id or account.email_address", "account.email_address"
            ),
            "an inbox's address will do": (
                (
                    '("instantly_account_id", "email_address")',
                    '("instantly_account_id", "email_address", "agentmail_inbox_id")',
                ),
                (
                    "account.instantly_account_id or account.email_address",
                    "account.instantly_account_id or account.email_address"
                    " or account.agentmail_inbox_id",
                ),
            ),
            "the id is not quoted": one(
                '"accounts", address, tried', '"accounts", *address.split("/"), tried'
            ),
            "another path": one('"accounts", address', '"leads", address'),
            "a disable that fails ends it": one('return f"not disabled ({error})"', "raise"),
            "a disable that hangs takes it all": one("DISABLE_SHARE = 0.4", "DISABLE_SHARE = 1.0"),
            "gone without its status": (
                ('("statusCode", "error", "message")', '("error", "message")'),
                ("[404, ", "["),
            ),
            "gone without its error": (
                ('("statusCode", "error", "message")', '("statusCode", "message")'),
                (', "Not Found", ', ", "),
            ),
            "gone without its message": (
                ('("statusCode", "error", "message")', '("statusCode", "error")'),
                (', "Resource not found"]', "]"),
            ),
            "the key travels otherwise": one("Bearer {key}", "{key}"),
            "the list stops at the first page": one('"next_starting_after"', '"next"'),
            "the list asks for the first page again": one('"starting_after"', '"after"'),
            "the list gives no times": one(', created_at="timestamp_created"', ""),
        },
    ),
    "smartlead": Subject(
        EXAMPLE / "puffle_smartlead.py",
        EXAMPLE / "test_puffle_smartlead.py",
        of_any(SMARTLEAD, "smartlead")
        | {
            "another id is deleted": one(
                'str(account.metadata["smartlead_email_account_id"])', "account.id"
            ),
            "an address will do": (
                (
                    '("metadata.smartlead_email_account_id",)',
                    '("metadata.smartlead_email_account_id", "email_address")',
                ),
                (
                    'account.metadata["smartlead_email_account_id"]',
                    'account.metadata.get("smartlead_email_account_id") or account.email_address',
                ),
            ),
            "the id is not quoted": one(
                '"email-accounts", account_id,', '"email-accounts", *account_id.split("/"),'
            ),
            "another path": one('"email-accounts", account_id', '"campaigns", account_id'),
            "the id in the query": one(
                '"email-accounts", account_id,', '"email-accounts", params={"id": account_id},'
            ),
            "the key in another parameter": one('in_query("api_key")', 'in_query("key")'),
            "gone is told by another field": one(
                'body["error"]["code"] == "NOT_FOUND"', '"code" in body["error"]'
            ),
            "the code is not nested": one('"error.code"', '"code"'),
            "the body's wait is not read": one('    retry_after="error.retry_after",\n', ""),
            "the list is asked for by page": one('offset_param="offset"', 'offset_param="page"'),
            "the list stops at the first page": one(
                'offset_param="offset"', 'cursor="next", cursor_param="after"'
            ),
            "the list gives no names": one(', name="from_email"', ""),
            "the check asks another path": one('get("email-accounts"', 'get("campaigns"'),
        },
    ),
}


def mutate(source: str, words: Words) -> str:
    """Return the source with each of the old words, which are there once, replaced."""
    for old, new in words:
        assert source.count(old) == 1, f"{source.count(old)} times in the plugin: {old}"
        source = source.replace(old, new)
    return source


class SilenceLast:
    """Runs the plugin's own tests first, and last those that wait for a provider in vain."""

    @staticmethod
    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        silent = ("no_answer", "silent", "hangs", "without_an_answer")
        items.sort(
            key=lambda item: (any(word in item.name for word in silent), "::Test" in item.nodeid)
        )


def start(subject: Subject, source: str) -> int:
    """Run the subject's tests on a source in a fork; return the process's id."""
    pid = os.fork()
    if pid:
        return pid
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(tested(subject, source))


def tested(subject: Subject, source: str) -> int:
    module = ModuleType(subject.module.stem)
    module.__file__ = str(subject.module)
    try:
        exec(compile(source, subject.module, "exec"), vars(module))
    except BaseException:
        return pytest.ExitCode.INTERNAL_ERROR
    sys.modules[module.__name__] = module
    sys.modules.pop(subject.tests.stem, None)  # of `warm_up`, with the plugin as it is
    return pytest.main([*QUIET, *SETTINGS, str(subject.tests)], plugins=[SilenceLast()])


def warm_up(subject: Subject) -> None:
    """Import what the tests need, so that no fork has to."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*QUIET, "--collect-only", *SETTINGS, str(subject.tests)])
    gc.freeze()  # pytest collects garbage at its end, five times


def main(names: list[str]) -> int:
    """Try every mutant; return how many are not caught."""
    began, survived, count = time.monotonic(), 0, 0
    for name in names or SUBJECTS:
        subject = SUBJECTS[name]
        source = subject.module.read_text()
        mutants = {what: mutate(source, words) for what, words in subject.mutants.items()}
        assert len(mutants) >= 15, name
        warm_up(subject)
        _, status = os.waitpid(start(subject, source), 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"{name}: its tests fail as it is"
        count += len(mutants)
        under_way: dict[int, str] = {}
        waiting = list(mutants)
        while waiting or under_way:
            while waiting and len(under_way) < AT_A_TIME:
                what = waiting.pop(0)
                under_way[start(subject, mutants[what])] = what
            pid, status = os.wait()
            what, code = under_way.pop(pid), os.waitstatus_to_exitcode(status)
            if code != pytest.ExitCode.TESTS_FAILED:
                survived += 1
                print(f"{name}: {what}: " + ("not caught" if code == 0 else f"ended with {code}"))
    took = time.monotonic() - began
    print(f"{count} mutants, {survived} of them not caught, in {took:.0f} s")
    return survived


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    for needed in ("application", "conformance"):  # and what the tests need, before the first fork
        importlib.import_module(f"puffle_accounts.testing.{needed}")
    importlib.import_module("support")
    importlib.import_module("postgresql")

    sys.exit(min(main(sys.argv[1:]), 1))

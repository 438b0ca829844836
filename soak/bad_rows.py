"""Rows of `accounts` with every odd value that the types allow.

A DELETE ends such an account, or refuses it before a provider is called, with the column named;
it never calls the providers anew for each 500.
"""

import json

from puffle_accounts.account import ID_COLUMNS
from soak.live import Trial

OURS = ("type", "status", "display_name", *ID_COLUMNS)
OTHERS = ("profile_url", "warmup_status", "first_name", "signature", "instantly_tag_id")
TEXTS = (
    *(
        "",
        " ",
        "\t\n",
        "x" * 1_000_000,
        "\U0001f600" * 9,
        "\u202eabc\u202c",
        "a/b",
        "..",
        ".",
        "a/../b",
    ),
    *(
        "?",
        "#",
        "a?b=c#d",
        "a\r\nX-Evil: 1",
        "%00",
        "%2e%2e",
        "%",
        "\x7f\x1b[31m",
        "\ufeff",
        "\uffff",
    ),
    *(
        "null",
        "a@b@c",
        "'; DROP TABLE accounts; --",
        "{}",
        "\\",
        '"',
        "A" * 3000,
        "é",
        "e\u0301",
        "ß",
        "İ",
    ),
    *("LinkedIn", " EMAIL ", "DISCONNECTED", "disconnected ", "linkedin\u00a0", "l\u0131nkedin"),
)
BYTES = (b"\xff", b"abc", b"", b"a\0b", b"\xed\xa0\x80")  # SQLite takes them anywhere
DEEP = 90_000
METADATA = (
    *(
        "null",
        "true",
        "0",
        '"text"',
        "[]",
        "{}",
        '{"a": 1, "a": 2}',
        '{"": {"": []}}',
        '{"a": 1e400}',
    ),
    *(
        '{"a": ' + "9" * 400 + "}",
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
        '{"a": "\\u0001"}',
    ),
    *('{"a": -0.0}', '{"a": "' + "x" * 1_000_000 + '"}', '{"a": ' * 99 + "1" + "}" * 99),
    '{"a": ' * 500 + "1" + "}" * 500,
)
NO_JSON = ("", "NaN", '{"a": NaN}', "{", "[" * DEEP, '{"a": "\\u0000"}')  # as text, or in SQLite
TIMES = ("infinity", "-infinity", "0044-03-15 12:00:00 BC", "10000-01-01", "294276-12-31")
NO_TIMES = ("", "yesterday", "2026-02-30", "99999999999", "2026-01-01 25:00")  # in SQLite


def values(sqlite):
    """Return what to write into which column: the expression for it, and its value."""
    for column in (*OURS, *OTHERS):
        yield from ((column, "?", text) for text in TEXTS)
        if sqlite:
            yield from ((column, "?", each) for each in BYTES)
            yield from ((column, "CAST(? AS TEXT)", each) for each in BYTES)
            yield from ((column, "?", number) for number in (0, -1, 2**62, 1.5, float("inf")))
    mark = "?" if sqlite else "CAST(? AS jsonb)"
    for text in (*METADATA, *(NO_JSON if sqlite else ())):
        yield "metadata", mark, text
    mark = "?" if sqlite else "CAST(? AS timestamptz)"
    for column in ("created_at", "updated_at"):
        for text in (*TIMES, *(NO_TIMES if sqlite else ())):
            yield column, mark, text


class Rows(Trial):
    """All rows of one database, under one worker class, of either type, with providers that
    answer well and that fail."""

    INPUT = "odd rows"
    UNWANTED = ("request.failed",)  # what is refused is told with its traceback

    def work(self):
        """Write and delete all; return what came of it."""
        with self.service() as (stack, _):
            self._try_all(stack)
        return self.result()

    def _try_all(self, stack):
        sandbox, sqlite = stack.sandbox, self.database_url.startswith("sqlite")
        for mode in ("ok", "fail"):
            for provider in ("unipile", "agentmail", "instantly"):
                sandbox.behave(provider, mode)
            for column, mark, value in values(sqlite):
                for make in (stack.add_linkedin, stack.add_email):
                    self.try_one(stack, sandbox, make(), column, mark, value)

    def try_one(self, stack, sandbox, account, column, mark, value):
        """Write a value into the row of an account, delete it, and judge the answer."""
        name = f"{column} = {json.dumps(value, default=repr)[:60]}"
        try:
            stack.sql(f"UPDATE accounts SET {column} = {mark} WHERE id = ?", value, account)
        except Exception:  # the database refuses it: nothing to try
            self.answers["not to be stored"] += 1
            stack.sql("DELETE FROM accounts")
            return
        before = len(sandbox.calls)
        answer = stack.delete(account)
        self.answers[str(answer.status_code)] += 1
        left = stack.sql("SELECT status FROM accounts WHERE id = ?", account)
        if answer.status_code == 200:
            if (answer.headers["Teardown-Status"] == "partial") != bool(stack.orphans()):
                self.found.append(f"{name}: an orphan is missing, or one too many")
            if left and left[0][0] not in ("disconnected", b"disconnected"):
                self.found.append(f"{name}: 200, but its status is {left}")
        elif answer.status_code != 500 or answer.json()["error"] != "delete_failed":
            self.found.append(f"{name}: {answer.status_code} {answer.text[:90]}")
        elif len(sandbox.calls) != before:
            self.found.append(f"{name}: refused after providers were called")
        stack.sql("DELETE FROM accounts")
        stack.sql("DELETE FROM orphans")

"""Contract §2: under kill -9, whatever may be left upstream is said by a row or by an orphan."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import requests
from support import COLUMN_OF

ACCOUNTS = 200
KILLS = 4
AT_ONCE = 24
BROKEN = ("refused", "interrupted")
MOODS = ("ok", "fail", "hang")


def test_kill_9_at_random_instants_of_200_deletes_loses_nothing(stack, gunicorn, capsys):
    made = [stack.add_linkedin() for _ in range(ACCOUNTS // 2)]
    made += [stack.add_email() for _ in range(ACCOUNTS // 2)]
    named = {account_id: _resources(stack.row(account_id)) for account_id in made}
    random.shuffle(made)
    lost: set[tuple[str, str]] = set()
    interrupted, unanswered = 0, made
    worker = "gevent" if stack.database_url.startswith("postgresql") else "gthread"
    with (
        _again_and_again(lambda: _change_the_mood(stack.sandbox)),
        _again_and_again(lambda: lost.update(_lost(stack, named))),
    ):
        for kills in [*[True] * KILLS, False]:
            server = gunicorn(
                "--workers", "2", "--worker-class", worker, PUFFLE_TEARDOWN_TIMEOUT="0.4"
            )
            heard_of = _kill_at_random(server, len(unanswered)) if kills else _ignore
            with ThreadPoolExecutor(AT_ONCE) as clients:
                answers = list(clients.map(partial(_delete, stack, heard_of), unanswered))
            interrupted += answers.count("interrupted")
            assert set(answers) <= {200, 404, *BROKEN}  # 404: done, but unheard
            heard = dict(zip(unanswered, answers, strict=True))
            unanswered = [account_id for account_id, said in heard.items() if said in BROKEN]

    lost |= _lost(stack, named)
    with capsys.disabled():
        print(f" {interrupted} of {ACCOUNTS} interrupted, lost = {len(lost)} ", end="")
    assert lost == set()
    assert unanswered == []
    assert interrupted >= KILLS, "kill -9 met no DELETE under way"
    assert stack.orphans(), "no provider failed"

    for provider in stack.sandbox.resources:
        stack.sandbox.behave(provider, "ok")
    assert {status for (status,) in stack.sql("SELECT status FROM accounts")} <= {"disconnected"}
    stack.make_due()
    owed, answered = len(stack.orphans()), len(stack.sandbox.calls)
    retried = stack.command("orphans", "retry")
    assert retried.stdout == f"{owed} done, 0 superseded, 0 failed, 0 parked\n"
    assert stack.orphans() == []
    heard = [(call.path, call.status) for call in stack.sandbox.calls[answered:]]
    assert not any(stack.sandbox.resources.values()), (heard, retried.stderr)


@contextmanager
def _again_and_again(act) -> Iterator[None]:
    """Act every 50 ms, in the background."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(0.05):
            act()

    with ThreadPoolExecutor(1) as background:
        repeating = background.submit(repeat)
        try:
            yield
        finally:
            over.set()
        repeating.result()


def _resources(row: dict) -> set[tuple[str, str]]:
    """Return what a row names upstream, as (provider, id)."""
    return {(provider, row[column]) for provider, column in COLUMN_OF.items() if row[column]}


def _kill_at_random(server, expected: int) -> Callable[[object], None]:
    """Return what to call with each answer; it ends the server within the first third of them.

    By answers and not by the clock, so that however fast they come DELETEs are under way.
    """
    answers, last = itertools.count(1), random.randint(1, expected // 3)

    def heard_of(answer: object) -> None:
        if next(answers) == last:
            threading.Timer(random.uniform(0, 0.01), server.kill).start()

    return heard_of


def _ignore(answer: object) -> None:
    pass


def _delete(stack, heard_of: Callable[[object], None], account_id: str) -> int | str:
    try:
        answer = stack.delete(account_id)
        heard_of(answer)
        return answer.status_code
    except requests.RequestException as error:
        return "refused" if "refused" in str(error) else "interrupted"


def _change_the_mood(sandbox) -> None:
    """Let a provider work, fail or be slow: what hung is dealt with a moment later."""
    sandbox.behave(random.choice(list(sandbox.resources)), random.choice(MOODS))


def _lost(stack, named: dict[str, set[tuple[str, str]]]) -> set[tuple[str, str]]:
    """Return what exists upstream while neither a row nor an orphan says so.

    Rows are read before orphans, and those before the providers: what moves on
    meanwhile is found in the later place.
    """
    rows = stack.sql("SELECT id FROM accounts WHERE status <> 'disconnected'")
    said = {resource for (account_id,) in rows for resource in named[str(account_id)]}
    said |= {(o["plugin"], o["account"][COLUMN_OF[o["plugin"]]]) for o in stack.orphans()}
    upstream = {(name, each) for name, held in stack.sandbox.resources.items() for each in [*held]}
    return upstream - said

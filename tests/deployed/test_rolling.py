"""A restart under load: nobody is refused, nothing is lost. `pytest -s` shows the figures."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack

import pytest
import requests
from gateways import Nginx, needed
from support import Gunicorn, Stack, only, wait_until
from unit import Unit

SETTINGS = ("--config", "python:puffle_accounts.serving")
APP = "puffle_accounts.wsgi:app"
UNKNOWN = "0d9a8a52-7f0c-4f38-9d0a-5f1d7a1c9b3e"


class Load:
    """Four clients that end accounts, then unknown ones, until the block ends; none asks twice."""

    def __init__(self, url: str, key: str, accounts: Iterable[str]) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._url, self._headers = f"{url}/api/accounts/", {"Authorization": f"Bearer {key}"}
        self._accounts = itertools.chain(accounts, itertools.repeat(UNKNOWN))
        self._next, self._ended = threading.Lock(), threading.Event()
        self._moments: list[float] = []
        self._clients = [threading.Thread(target=self._ask_on_and_on) for _ in range(4)]

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for client in self._clients:
            client.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more have been answered."""
        goal = len(self._moments) + more
        wait_until(lambda: len(self._moments) >= goal, 60)

    def _ask_on_and_on(self) -> None:
        while not self._ended.wait(0.05):
            with self._next:
                account = next(self._accounts)
            self.statuses[self._ask(account)] += 1
            self._moments.append(time.monotonic())

    def _ask(self, account: str) -> int | str:
        try:
            return requests.delete(
                self._url + account, headers=self._headers, timeout=30
            ).status_code
        except requests.RequestException as error:
            return repr(error)

    def tell(self, what: str) -> None:
        pause = max(after - before for before, after in itertools.pairwise(self._moments))
        seconds = self._moments[-1] - self._moments[0]
        print(f"\n{what}: {dict(self.statuses)} in {seconds:.0f} s, {pause:.1f} s at most without")


@pytest.fixture
def accounts(stack) -> list[str]:
    """As many with providers to call as without."""
    made = [stack.add_email() for _ in range(100)]
    made += [stack.add_linkedin(status="disconnected") for _ in range(100)]
    stack.database.close_all()
    return made


@pytest.fixture
def start(stack, tmp_path, certificate, monkeypatch):
    """Start an instance, on a port of its own or on one that an instance before it had."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with ExitStack() as started:

        def start(port: int = 0) -> Gunicorn:
            log = tmp_path / f"{time.monotonic_ns()}.log"
            server = Gunicorn(stack, log, *SETTINGS, app=APP, port=port).wait_until_ready()
            started.callback(lambda: server.process.poll() is None and server.kill())
            return server

        yield start


def assert_nobody_was_refused(load: Load, stack: Stack, accounts: list[str]) -> None:
    assert {200} <= set(load.statuses) <= {200, 404}, load.statuses
    left = len(accounts) - load.statuses[200]
    assert stack.sql("SELECT count(*) FROM accounts") == [(left,)]


@needed(Nginx)
@only("postgresql")
def test_while_one_of_two_instances_is_restarted_and_then_the_other_away_nobody_is_refused(
    stack, accounts, start, certificate
):
    one, other = start(), start()
    first, second = ("{}:{}".format(*server.address) for server in (one, other))
    with (
        Nginx([first, second], certificate) as gateway,
        Load(gateway.url, stack.key, accounts) as load,
    ):
        gateway.take_out(first)
        assert one.stop() == 0
        load.wait_for(20)
        start(one.address[1])
        gateway.put_back(first)
        gateway.take_out(second)
        assert other.stop() == 0
        load.wait_for(20)
    load.tell("two instances behind nginx")
    assert_nobody_was_refused(load, stack, accounts)


@only("postgresql")
def test_one_instance_whose_port_systemd_holds_restarts_and_refuses_nobody(
    stack, accounts, tmp_path
):
    """No gateway: a request that comes meanwhile waits at the port."""
    unit = Unit(tmp_path / "unit", stack.environ)
    process = unit.start()
    try:
        with Load(unit.url, stack.key, accounts) as load:
            load.wait_for(20)
            process.terminate()
            assert process.wait(timeout=30) == 0
            process = unit.start()
            load.wait_for(20)
    finally:
        process.terminate()
        process.wait()
        unit.stop()
    load.tell("one instance whose port systemd holds")
    assert_nobody_was_refused(load, stack, accounts)

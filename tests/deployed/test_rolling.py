"""A restart under load: nobody is refused, nothing is lost. `pytest -s` shows the figures."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from cluster import Load
from gateways import Nginx, needed
from support import Gunicorn, only
from unit import Unit

ACCOUNTS = int(os.environ.get("ACCOUNTS", "200"))
SETTINGS = ("--config", "python:puffle_accounts.serving")
APP = "puffle_accounts.wsgi:app"


@pytest.fixture
def start(stack, tmp_path, certificate, monkeypatch):
    """Start an instance, on a port of its own or on one that an instance before it had."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with ExitStack() as started:

        def start(address: str | None = None) -> Gunicorn:
            bind = ("--bind", address) if address else ()
            log = tmp_path / f"{time.monotonic_ns()}.log"
            server = Gunicorn(stack, log, *SETTINGS, *bind, app=APP).wait_until_ready()
            started.callback(lambda: server.process.poll() is None and server.kill())
            return server

        yield start


def address_of(server: Gunicorn) -> str:
    return "{}:{}".format(*server.address)


def add_accounts(stack) -> list[str]:
    half = ACCOUNTS // 2
    accounts = [stack.add_email() for _ in range(half)]
    accounts += [stack.add_linkedin(status="disconnected") for _ in range(half)]
    stack.database.close_all()
    return accounts


def tell(what: str, load: Load) -> None:
    print(f"\n{what}: {dict(load.statuses)}, {load.longest_pause():.1f} s without a 200 at most")


@needed(Nginx)
@only("postgresql")
def test_two_instances_restarted_one_after_the_other_refuse_nothing(stack, start, certificate):
    accounts = add_accounts(stack)
    servers = [start(), start()]
    ports = [address_of(server) for server in servers]
    with Nginx(ports, certificate) as gateway:
        client = SimpleNamespace(url=gateway.url, key=stack.key)
        with Load(client, accounts, clients=4) as load:
            load.wait_for(20)
            for server, port in zip(servers, ports, strict=True):
                assert server.stop() == 0
                load.wait_for(10)
                start(port)
                load.wait_for(10)
    tell("two instances behind nginx", load)
    assert load.statuses == {200: ACCOUNTS}


@only("postgresql")
def test_one_instance_whose_port_systemd_holds_restarts_and_refuses_nothing(stack, tmp_path):
    """No gateway: a request that comes meanwhile waits at the port."""
    accounts = add_accounts(stack)
    unit = Unit(tmp_path / "unit", stack.environ)
    client = SimpleNamespace(url=unit.url, key=stack.key)
    process = unit.start()
    try:
        with Load(client, accounts, clients=4) as load:
            load.wait_for(20)
            process.terminate()
            assert process.wait(timeout=30) == 0
            process = unit.start()
            load.wait_for(20)
    finally:
        process.kill()
        unit.stop()
    tell("one instance behind a socket unit", load)
    assert load.statuses == {200: ACCOUNTS}

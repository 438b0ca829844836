"""A worker without file descriptors or threads waits for room, and does not die."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from gevent import get_hub
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn, ThreadWorker

from puffle_accounts.processes import scarcity

WAIT = TConn.wait_for_data


@contextmanager
def no_descriptor_left():
    """This process can open nothing more, not even in place of what others close meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # with none, poll(2) takes none either
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_cannot_be_accepted_is_accepted_once_there_is_room(events):
    accepted = []
    accept = scarcity.patient(
        lambda listener: accepted.append(listener.accept()[0]), scarcity.Complaint()
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        with no_descriptor_left():
            for _ in range(3):
                accept(listener)
        assert accepted == []
        accept(listener)
        assert len(accepted) == 1
        accepted[0].close()
    said = [fields["reason"] for event, fields in events() if event == "service.scarce"]
    assert said == ["nobody new is served: [Errno 24] Too many open files"], "once, not each time"


def test_any_other_error_of_a_listener_is_not_hidden():
    def accept(_):
        raise OSError(errno.EBADF, "closed")

    with pytest.raises(OSError, match="closed"):
        scarcity.patient(accept, scarcity.Complaint())(None)


def test_without_a_new_thread_those_that_are_there_do_the_work(monkeypatch, events):
    with scarcity.Threads(max_workers=4) as threads:
        held, begun = threading.Event(), threading.Event()
        first = threads.submit(lambda: begun.set() or held.wait(20))
        assert begun.wait(20)

        def start(_):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            second = threads.submit(lambda: "done")
        held.set()
        assert (first.result(20), second.result(20)) == (True, "done")
    assert "service.scarce" in [event for event, _ in events()]


def test_a_request_is_waited_for_without_a_descriptor():
    """gunicorn takes one for each connection, and closes the connection where there is none."""
    wait = scarcity.frugal(TConn.wait_for_data, scarcity.Complaint())
    ours, theirs = socket.socketpair()
    with ours, theirs, no_descriptor_left():
        connection = TConn(Config(), ours, None, None)
        assert not wait(connection, 0.01)
        theirs.send(b"x")
        assert wait(connection, 20)
    with pytest.raises(OSError, match="closed"), no_descriptor_left():
        scarcity.frugal(_closed, scarcity.Complaint())(None, 1)


def _closed(*_):
    raise OSError(errno.EBADF, "closed")


def test_gunicorns_threads_endure_it(monkeypatch):
    """What is replaced is what its worker has, and has not used yet."""
    monkeypatch.setattr(TConn, "wait_for_data", WAIT)
    assert issubclass(scarcity.Threads, type(_pool()))
    worker = SimpleNamespace(tpool=None, accept=ThreadWorker.accept, cfg=SimpleNamespace(threads=2))
    scarcity.endure(worker)
    assert isinstance(worker.tpool, scarcity.Threads)
    assert worker.accept is not ThreadWorker.accept
    assert TConn.wait_for_data is not WAIT
    worker.tpool.shutdown()


def _pool():
    return ThreadWorker.get_thread_pool(SimpleNamespace(cfg=SimpleNamespace(threads=1)))


def test_under_gevent_it_is_one_line_of_ours(capsys, caplog):
    caplog.set_level(logging.ERROR)
    scarcity.endure(SimpleNamespace(cfg=SimpleNamespace(worker_class_str="gevent")))
    hub, server = get_hub(), SimpleNamespace(do_read=None)
    try:
        for number in (errno.EMFILE, errno.EMFILE, errno.EBADF):
            error = OSError(number, os.strerror(number))
            hub.handle_error(server, OSError, error, None)
    finally:
        with suppress(AttributeError):
            del hub.handle_error
    assert [record.getMessage() for record in caplog.records] == ["service.scarce"]
    said = capsys.readouterr().err
    assert "Bad file descriptor" in said
    assert "Too many open files" not in said

"""Whoever reads the log may stall or leave, and nobody waits for them."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import requests
from gunicorn.config import Config
from support import ROOT, Gunicorn, only

from puffle_accounts import keys, streams
from puffle_accounts.processes.logger import Logger

SMALLEST_PIPE = 4096  # bytes


def pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    return reader, writer


def pair() -> tuple[int, int]:
    """A socket, as journald's is."""
    reader, writer = socket.socketpair()
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALLEST_PIPE)
    return reader.detach(), writer.detach()


@pytest.fixture(params=[pipe, pair])
def ends(request):
    """Return the two ends of a stream that takes little, the second as text."""
    reader, writer = request.param()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
    with suppress(OSError):
        os.close(reader)


@pytest.fixture
def logger(ends):
    handler = streams.handler(ends[1])
    handler.setFormatter(logging.Formatter("%(message)s %(lines)s", defaults={"lines": ""}))
    for name in (__name__, "puffle_accounts.streams"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    yield logging.getLogger(__name__)
    for name in (__name__, "puffle_accounts.streams"):
        logging.getLogger(name).removeHandler(handler)


def read(reader: int, until: bytes) -> list[str]:
    read = b""
    while until not in read:
        read += os.read(reader, 1 << 16)
    return read.decode().splitlines()


def test_what_a_stalled_reader_does_not_take_is_written_once_it_goes_on(ends, logger):
    for number in range(200):
        logger.info("line %d %s", number, "x" * 100)
    lines = read(ends[0], b"line 199")
    assert [line.split()[1] for line in lines] == [str(number) for number in range(200)]
    assert os.get_blocking(ends[1].fileno()), "others share the descriptor"


def test_what_is_dropped_beyond_the_bound_is_counted(ends, logger, monkeypatch):
    monkeypatch.setattr(streams, "MOST_WAITING", 20_000)
    for number in range(500):
        logger.info("line %d %s", number, "x" * 100)
    lines = read(ends[0], b"log.dropped")
    kept = [line for line in lines if line.startswith("line")]
    assert 20_000 < len("\n".join(kept)) < 500 * 100
    assert lines[len(kept)].split() == ["log.dropped", str(500 - len(kept))]


def test_without_a_thread_to_wait_in_the_next_line_takes_along_what_waits(
    ends, logger, monkeypatch, capfd
):
    def start(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(streams._thread, "start_new_thread", start)
        for number in range(100):
            logger.info("line %d %s", number, "x" * 100)
    logger.info("line 100 ")
    lines = read(ends[0], b"line 100 ")
    assert [line.split()[1] for line in lines] == [str(number) for number in range(101)]
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_is_gone_is_no_error(ends, logger, capfd):
    logger.info("line %s", "x" * 100_000)
    os.close(ends[0])
    for _ in range(10):
        logger.info("line")
    assert capfd.readouterr() == ("", "")


def test_what_waits_for_a_reader_is_not_written_by_a_child_too(ends, logger):
    for number in range(100):
        logger.info("line %d %s", number, "x" * 100)
    child = os.fork()
    if child == 0:
        logger.info("line of the child")
        time.sleep(0.5)  # as the parent, it tries again
        os._exit(0)
    os.waitpid(child, 0)
    logger.info("line 100 ")
    lines = read(ends[0], b"line 100 ")
    assert [sum(f"line {n} " in line for line in lines) for n in range(101)] == [1] * 101


def test_a_line_that_cannot_be_written_is_told_of_once_without_what_it_held(
    tmp_path, monkeypatch, capfd, events
):
    """As gunicorn's access log: its arguments are every header of the request."""
    monkeypatch.setenv("PUFFLE_LOG_FORMAT", "json")
    monkeypatch.setattr(streams, "_next_said", 0.0)
    full = tmp_path / "access"
    full.symlink_to("/dev/full")
    config = Config()
    config.set("accesslog", str(full))
    logger = Logger(config)
    try:
        for _ in range(3):
            logger.access_log.info("%(a)s", {"a": "a request", "b": "Bearer pk_live_secret"})
        logger.error_log.error("goes on")
    finally:
        for each in (*logger.access_log.handlers, *logger.error_log.handlers):
            with suppress(OSError):
                each.close()
    said = capfd.readouterr().err
    assert "goes on" in said
    assert "pk_live_secret" not in said
    reasons = [fields["reason"] for event, fields in events() if event == "log.lost"]
    assert reasons == ["No space left on device"]


def test_how_many_lines_were_lost_is_told_once_one_can_be_written_again(tmp_path, capfd):
    logger, dropped = logging.getLogger("test_lost"), []
    unbuffered = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    with unbuffered as full, (tmp_path / "log").open("w") as room:
        handler = logging.StreamHandler(full)
        handler.addFilter(lambda record: dropped.append(vars(record).get("lines")) or True)
        streams.lose_quietly(handler)
        for each in (logger, streams.log):
            each.addHandler(handler)
        try:
            for number in range(3):
                logger.error("lost %d", number)
            handler.setStream(room)
            logger.error("written")
            logger.error("written")
        finally:
            for each in (logger, streams.log):
                each.removeHandler(handler)
    assert (tmp_path / "log").read_text() == "written\nlog.dropped\nwritten\n"
    assert dropped[-2] >= 3
    assert "lost 0" not in capfd.readouterr().err


@only("sqlite")
def test_a_worker_answers_whatever_becomes_of_its_logs_reader(stack, tmp_path):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    server = Gunicorn(stack, fifo, "--access-logfile", "-", "--worker-class", "gevent")
    server.wait_until_ready()
    with requests.Session() as session:
        session.headers["Connection"] = "close"
        for _ in range(25):
            assert session.delete(f"{server.url}/api/accounts/x", timeout=10).status_code == 401
        os.close(reader)
        assert session.delete(f"{server.url}/api/accounts/x", timeout=10).status_code == 401
    assert server.stop() == 0


@only("sqlite")
def test_a_process_whose_streams_are_closed_does_its_work(stack):
    """As a daemon's may be. What it opens next would have their numbers."""
    ended = subprocess.run(
        ("sh", "-c", 'exec "$@" 1>&- 2>&-', "sh", sys.executable, "-c", CLOSED),
        env=stack.process_environ(),
        cwd=ROOT,
        timeout=60,
    )
    assert ended.returncode == 0


CLOSED = """
import os, sys
import puffle_accounts.serving  # as gunicorn's master does
from puffle_accounts.__main__ import main
assert os.open("/dev/null", os.O_RDONLY) > 2
sys.argv = ["puffle-accounts", "orphans", "retry"]
main()
"""


# Standard output that is not UTF-8

NAME = "Zoë 日本"


@only("sqlite")
@pytest.mark.parametrize(
    ("module", "encoding", "shown"),
    [
        (("puffle_accounts",), "ascii", r"Zo\xeb \u65e5\u672c"),
        (("flask", "--app", "wsgi"), "latin-1", r"Zoë \u65e5\u672c"),
    ],
)
def test_output_that_is_not_utf_8_has_escapes_and_no_traceback(stack, module, encoding, shown):
    with stack.database.writing():
        keys.create(stack.user_id, NAME)
    listed = subprocess.run(
        [sys.executable, "-m", *module, "keys", "list"],
        env=stack.process_environ(PYTHONIOENCODING=encoding),
        capture_output=True,
        cwd=ROOT,
        timeout=60,
    )
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert shown in listed.stdout.decode(encoding)

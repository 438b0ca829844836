"""`puffle-accounts demo`, at a terminal of its own as a newcomer has it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from contextlib import closing, suppress

import psutil
import pytest
import requests
from click.testing import CliRunner
from support import free_port, run, wait_until, write_distribution

from puffle_accounts.cli.demo import demo as demo_command
from puffle_accounts.demo import runner

CTRL_C = b"\x03"


class Demo:
    """The command in a session of its own, with a terminal, and folders of its own to write to."""

    def __init__(self, folder, *arguments: str, **environ: str) -> None:
        self.port = free_port()
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._shown = b""
        self._terminal, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "puffle_accounts", "demo", "--port", str(self.port), *arguments],
            env={**os.environ, "TMPDIR": str(self.temporary), **environ},
            cwd=folder,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inside)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):  # how a terminal says that nobody writes to it any more
            while more := os.read(self._terminal, 65536):
                self._shown += more

    @property
    def shown(self) -> str:
        return self._shown.decode().replace("\r\n", "\n")

    @property
    def calls(self) -> list[str]:
        """The providers' calls that it has shown."""
        return re.findall(r"^  (\w+: \w+ /.*)$", self.shown, re.MULTILINE)

    def ready(self) -> Demo:
        def says_so() -> bool:
            assert self.process.poll() is None, self.shown
            return "Ctrl-C ends it." in self.shown

        wait_until(says_so, 60)
        return self

    def curl(self, number: int) -> requests.Response:
        """Send what the printed curl line with this number, the first one's being 0, would send."""
        line = re.findall(r"^curl .*", self.shown, re.MULTILINE)[number]
        curl, include, request, method, url, header, authorization = shlex.split(line)
        assert (curl, include, request, method, header) == ("curl", "-i", "-X", "DELETE", "-H")
        return requests.delete(url, headers=dict([authorization.split(": ")]), timeout=30)

    def press(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def processes(self) -> list[psutil.Process]:
        """Every process of it, gunicorn's included, whatever its session: by the environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.temporary):
                    found.append(process)
        return found

    def is_gone(self) -> bool:
        """Whether no process of it is left."""
        self.process.poll()
        return not self.processes()

    def kill(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def press_twice(demo: Demo) -> None:
    demo.press(CTRL_C)
    time.sleep(random.random() / 5)
    demo.press(CTRL_C)


@pytest.fixture
def demo(tmp_path):
    started = []

    def start(*arguments: str, ready: bool = True, **environ: str) -> Demo:
        started.append(Demo(tmp_path, *arguments, **environ))
        return started[-1].ready() if ready else started[-1]

    yield start
    for each in started:
        each.kill()


def test_the_printed_line_finds_what_the_providers_hold_for_nobody(demo):
    [line] = re.findall(r"^(DATABASE_URL=.* orphans find)\r?$", demo().shown, re.MULTILINE)
    ended = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (
        1,
        "2 resources that nobody names: 1 agentmail, 1 unipile",
    )


def test_the_printed_lines_take_three_accounts_apart_and_each_call_is_shown(demo):
    demo = demo()
    [key] = re.findall(r"^API key: (pk_live_\S+)$", demo.shown, re.MULTILINE)
    lines = re.findall(r"^# (.*)\n(curl .*)", demo.shown, re.MULTILINE)
    assert ["LinkedIn" in what for what, _ in lines] == [True, True, False]
    assert all(f"http://127.0.0.1:{demo.port}/api/accounts/" in curl for _, curl in lines)
    assert all(f"'Authorization: Bearer {key}'" in curl for _, curl in lines)
    for number, calls_so_far in enumerate([1, 1, 4]):
        answer = demo.curl(number)
        assert (answer.status_code, answer.content) == (200, b'{"success": true}')
        assert answer.headers["Teardown-Status"] == "complete"
        wait_until(lambda expected=calls_so_far: len(demo.calls) == expected)
    assert sorted(demo.calls) == [
        "agentmail: DELETE /v0/inboxes/ada%40outreach.example -> 200",
        "instantly: DELETE /api/v2/accounts/ada%40outreach.example -> 200",
        "instantly: POST /api/v2/accounts/warmup/disable -> 200",
        "unipile: DELETE /api/v1/accounts/unipile-acc-1 -> 200",
    ]
    assert [demo.curl(number).status_code for number in range(3)] == [200, 404, 404]
    wait_until(lambda: re.search(r"\[info +\] account\.deleted ", demo.shown))  # for people


@pytest.mark.parametrize(("mode", "shown"), [("fail", "-> 500"), ("hang", "-> no answer")])
def test_a_provider_can_be_told_to_misbehave(demo, mode, shown):
    demo = demo("--provider", "unipile", mode, PUFFLE_TEARDOWN_TIMEOUT="1")
    assert demo.curl(0).headers["Teardown-Status"] == "partial"
    wait_until(lambda: f"unipile: DELETE /api/v1/accounts/unipile-acc-1 {shown}" in demo.shown)
    assert demo.curl(2).headers["Teardown-Status"] == "complete"


def test_nothing_of_the_environment_or_the_folder_gets_in_the_way(demo, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("raise SystemExit('the conf of something else')")
    (tmp_path / "wsgi.py").write_text("raise SystemExit('the app of something else')")
    demo = demo(
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/production",
        UNIPILE_DSN="api8.unipile.com:13851",
        UNIPILE_API_KEY="production",
        PUFFLE_TEARDOWN_TIMEOUT="60",
        PUFFLE_LOG_FORMAT="json",
        GUNICORN_CMD_ARGS="--bind 127.0.0.1:1",
        WEB_CONCURRENCY="2",
        HTTP_PROXY="http://127.0.0.1:1",
        http_proxy="http://127.0.0.1:1",
        HOME="/nowhere",
    )
    for number in range(3):
        assert demo.curl(number).headers["Teardown-Status"] == "complete"
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {
        "gunicorn.conf.py",
        "wsgi.py",
        "temporary",
    }


@pytest.mark.parametrize(
    "end",
    [
        lambda demo: demo.press(CTRL_C),
        lambda demo: demo.press(CTRL_C + CTRL_C),
        lambda demo: press_twice(demo),
        lambda demo: demo.process.send_signal(signal.SIGTERM),
        lambda demo: os.killpg(demo.process.pid, signal.SIGHUP),
    ],
    ids=["ctrl-c", "ctrl-c twice", "ctrl-c and again", "sigterm", "window closed"],
)
def test_it_ends_with_nothing_left_running_and_no_file(demo, end):
    demo = demo("--provider", "unipile", "hang", PUFFLE_TEARDOWN_TIMEOUT="60")

    def ask() -> None:
        with suppress(requests.ConnectionError):  # whoever asks is cut off in the end
            demo.curl(0)

    threading.Thread(target=ask, daemon=True).start()
    wait_until(lambda: "-> no answer" in demo.shown)
    end(demo)
    wait_until(demo.is_gone, 20)
    assert demo.process.wait() == 0, demo.shown
    assert list(demo.temporary.iterdir()) == []
    assert "Traceback" not in demo.shown


def test_it_ends_although_gunicorn_does_not(demo):
    demo = demo()
    for process in demo.processes():
        if process.pid != demo.process.pid:
            process.suspend()
    demo.press(CTRL_C)
    wait_until(demo.is_gone, 40)
    assert demo.process.wait() == 0, demo.shown
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.parametrize("further", [0.0, 0.15, 0.3, 0.6])
def test_it_may_be_ended_while_it_comes_up(demo, further):
    demo = demo(ready=False)
    wait_until(lambda: list(demo.temporary.iterdir()), 60)
    time.sleep(further)
    press_twice(demo)
    wait_until(demo.is_gone, 40)
    assert demo.process.wait() == 0, demo.shown
    assert list(demo.temporary.iterdir()) == []
    assert "Traceback" not in demo.shown


def test_a_gunicorn_that_ctrl_c_ended_first_is_no_failure():
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
        assert not runner._comes_up(free_port(), ended, [signal.SIGINT])


def test_a_taken_port_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = run("puffle_accounts", "demo", "--port", port, TMPDIR=str(tmp_path))
    assert (refused.returncode, refused.stdout) == (1, "")
    line = refused.stderr.splitlines()[-1]
    assert line.startswith(f"Error: port {port} ")
    assert "--port" in line
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--provider", "unipile", "sulk"),
        ("--provider", "nobody", "fail"),
        ("--provider", "unipile"),
        ("--port", "0"),
        ("--port", "65536"),
        ("--env", "NAME"),
        ("--env", "=value"),
        ("--env", "MY NAME=value"),
        ("--env", "DATABASE_URL=postgresql://db.example/puffle"),
        ("--database", "/"),
        ("--account", "{"),
        ("--account", "[]"),
        ("--account", "{}"),
        ("--account", '{"type": 1}'),
        ("--account", '{"type": " "}'),
        ("--account", '{"type": "email", "emailaddress": "a@b.co"}'),
        ("--account", '{"type": "email", "email_address": ["a@b.co"]}'),
        ("--account", '{"type": "email", "display_name": "\\ud800"}'),
        ("--account", '{"type": "email", "metadata": []}'),
        ("--account", '{"type": "email", "metadata": {"a": NaN}}'),
        ("--account", '{"type": "email", "metadata": ' + '{"a": ' * 101 + "1" + "}" * 102),
        ("--account", '{"type": "email", "id": "1"}'),
    ],
)
def test_a_bad_argument_is_refused_at_once(arguments):
    refused = CliRunner().invoke(demo_command, arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1].startswith("Error: ")


PLUGIN = """
import os, urllib.request
from puffle_accounts import hookimpl

RESOURCE_IDS = ("metadata.crm",)

@hookimpl
def teardown_account(account):
    url = f"{os.environ['CRM_BASE_URL']}/{account.metadata['crm']}?{os.environ['CRM_API_KEY']}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"))
    return "contact deleted"
"""


def test_it_shows_a_plugin_at_work_on_an_account_of_ones_own_and_keeps_the_database(
    demo, tmp_path, fake_provider
):
    write_distribution(tmp_path / "site", "my-crm", PLUGIN)
    account_id = "a1b2c3d4-0000-4000-8000-000000000001"
    with_crm = json.dumps({"type": "email", "id": account_id, "metadata": {"crm": 7}})
    inbox = json.dumps({"type": "email", "agentmail_inbox_id": "me@outreach.example"})
    demo = demo(
        *("--account", with_crm, "--account", inbox, "--database", "kept.db"),
        *("--env", f"CRM_BASE_URL={fake_provider.url}", "--env", "CRM_API_KEY=a-key-of-mine"),
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert account_id in re.findall(r"^curl .*", demo.shown, re.MULTILINE)[3]
    for number in (3, 4):
        assert demo.curl(number).headers["Teardown-Status"] == "complete"
    assert [sent.path for sent in fake_provider.requests] == ["/7?a-key-of-mine"]
    wait_until(lambda: demo.calls)
    assert demo.calls == ["agentmail: DELETE /v0/inboxes/me%40outreach.example -> 200"]
    assert 'CRM_API_KEY="$CRM_API_KEY"' in demo.shown
    assert "a-key-of-mine" not in demo.shown
    demo.press(CTRL_C)
    assert demo.process.wait(30) == 0
    with closing(sqlite3.connect(tmp_path / "kept.db")) as kept:
        assert kept.execute("SELECT count(*) FROM accounts").fetchone() == (3,)

"""Contract §6: `orphans list`, `retry` and `drop`, run as an operator runs them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import timedelta

import psutil
import psycopg
import pytest
from click.testing import Result
from commands import ForkedProgram
from orphanage import called_for, failed, leave, let_pass, record
from support import only, wait_until, write_distribution

from puffle_accounts import Account, clock
from puffle_accounts.orphans import standing
from puffle_accounts.testing import account

WIDTH = 100


@pytest.fixture
def command(live):
    """Run a command within this process, which spares its start."""
    return lambda *arguments: live.app.test_cli_runner().invoke(args=arguments)


def lines_of(log: str) -> list[dict]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def assert_refused(run: Result, word: str) -> None:
    """One line on standard error says what is wrong, with this word in it."""
    assert (run.exit_code, run.stdout) == (1, "")
    [line] = run.stderr.splitlines()
    assert word in line


# list


def test_list_is_a_table_with_a_summary(live, command):
    [parked] = leave(live, permanent=True)
    [waiting] = leave(live, retry_after=90 * 60)
    [due] = leave(live, 1, "agentmail")
    title, *rows, summary = command("orphans", "list").stdout.splitlines()
    assert title.split() == ["ID", "PLUGIN", "ACCOUNT", "TRIES", "NEXT", "REASON"]
    ids = [orphan["id"][:8] for orphan in live.orphans()]
    cells = [row.split(maxsplit=5) for row in rows]
    assert [row[0] for row in cells] == ids
    assert [row[1:5] for row in cells] == [
        ["unipile", parked.id, "1", "parked"],
        ["unipile", waiting.id, "1", "90m"],
        ["agentmail", due.id, "1", "now"],
    ]
    assert {row[5] for row in cells} == {"left by a test"}
    assert summary == "3 orphans, 1 of them parked"


def test_a_time_that_only_a_wrong_clock_can_have_written_is_shown_as_over(live, command):
    leave(live, 2)
    [first, _] = live.orphans()
    year = timedelta(days=365)
    live.sql("UPDATE orphans SET next_attempt_at = clock(?), leased_until = clock(?)", year, year)
    live.sql("UPDATE orphans SET leased_until = clock(?) WHERE id = ?", year / 1000, first["id"])
    _, *rows, _ = command("orphans", "list").stdout.splitlines()
    assert [row.split()[4] for row in rows] == ["now", "now"]
    live.sql("UPDATE orphans SET leased_until = clock(?) WHERE id = ?", year / 9000, first["id"])
    _, *rows, _ = command("orphans", "list").stdout.splitlines()
    assert [row.split(maxsplit=5)[4] for row in rows] == ["at", "now"], (
        "at work for an hour: that is possible"
    )


@only("sqlite")
def test_the_table_fits_100_columns_whatever_the_names_and_reasons(live, command):
    long = failed("p" * 60, account(), failure="r" * 500, retry_after=6 * 86400)
    record(live, long, failed("unipile", account(), failure="short"))
    listed = command("orphans", "list").stdout
    assert max(map(len, listed.splitlines())) == WIDTH
    assert "rrr…" in listed
    assert "ppp…" in listed


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_json_is_valid_and_complete(live, command, count):
    made = [account(metadata={"n": n}) for n in range(count)]
    record(live, *(failed("unipile", each) for each in made))
    run = command("orphans", "list", "--json")
    assert (run.exit_code, run.stderr) == (0, "")
    rows = json.loads(run.stdout)
    assert {row["account"]["id"] for row in rows} == {each.id for each in made}
    assert len(rows) == count
    for row in rows[:1]:
        assert Account.from_json(json.dumps(row["account"])) in made
        assert list(row) == [
            *("id", "plugin", "account_id", "user_id", "account", "reason", "attempts"),
            *("created_at", "next_attempt_at", "leased_until", "parked_at", "request_id"),
        ]


@only("sqlite")
def test_a_time_in_another_form_does_not_list_an_orphan_for_ever(live, command):
    record(live, failed("unipile", account()))
    live.sql("UPDATE orphans SET created_at = replace(created_at, ' ', 'T')")
    assert len(json.loads(command("orphans", "list", "--json").stdout)) == 1


@only("sqlite")
def test_the_table_has_room_for_what_the_provider_answered(live, command):
    for provider in live.sandbox.resources:
        live.sandbox.behave(provider, "fail")
    live.delete(live.add_linkedin())
    live.delete(live.add_email())
    listed = command("orphans", "list").stdout
    for said in ("account delete: 500", "inbox delete: 500", "session revoke: 500"):
        assert said in listed


@only("sqlite")
def test_a_long_table_is_cut_and_says_so(live, command):
    record(live, *(failed("unipile", account()) for _ in range(1001)))
    lines = command("orphans", "list").stdout.splitlines()
    assert len(lines) == 1 + 1000 + 1
    assert lines[-1] == "1001 orphans, 0 of them parked (1000 shown; --json shows all)"


@pytest.mark.parametrize("arguments", [["orphans", "list"], ["check"]])
def test_what_is_parked_for_more_than_90_days_is_pointed_out(live, command, arguments):
    record(live, failed("unipile", account(), permanent=True))
    let_pass(live, timedelta(days=91))
    run = command(*arguments)
    assert run.exit_code == 0
    assert "1 parked and older than 90 days" in run.stdout


# retry


@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("ok", 0, "1 done, 0 superseded, 0 failed, 0 parked"),
        ("fail", 1, "0 done, 0 superseded, 1 failed, 0 parked"),
        ("refuse", 1, "0 done, 0 superseded, 0 failed, 1 parked"),
    ],
)
@only("sqlite")
def test_retry_prints_what_it_did_and_exits_1_if_something_failed(stack, mode, status, said):
    leave(stack)
    stack.sandbox.behave("unipile", mode)
    run = stack.command("orphans", "retry")
    assert (run.returncode, run.stdout) == (status, said + "\n")


@only("sqlite")
def test_superseded_orphans_and_none_at_all_are_no_failure(stack):
    [made] = leave(stack)
    stack.add_linkedin(provider_account_id=made.provider_account_id)
    run = stack.command("orphans", "retry")
    assert (run.returncode, run.stdout) == (0, "0 done, 1 superseded, 0 failed, 0 parked\n")
    run = stack.command("orphans", "retry")
    assert (run.returncode, run.stdout) == (0, "0 done, 0 superseded, 0 failed, 0 parked\n")


@only("sqlite")
def test_the_options_choose_what_is_tried(stack):
    for plugin in ("unipile", "agentmail"):
        leave(stack, 2, plugin, failure=f"{plugin} due")
        leave(stack, 2, plugin, failure=f"{plugin} parked", permanent=True)
    run = stack.command("orphans", "retry", "--plugin", "unipile", "--parked", "--limit", "3")
    assert (run.returncode, run.stdout) == (0, "3 done, 0 superseded, 0 failed, 0 parked\n")
    assert sorted(o["reason"] for o in stack.orphans()) == [
        *["agentmail due"] * 2,
        *["agentmail parked"] * 2,
        "unipile parked",
    ]


@pytest.mark.parametrize(
    "options", ["--limit 0", "--limit x", "--every 0", "--every -1", "--every x", "--plugin"]
)
@only("sqlite")
def test_an_option_that_makes_no_sense_is_refused_and_nothing_is_tried(live, command, options):
    leave(live)
    assert command("orphans", "retry", *options.split()).exit_code == 2
    assert called_for(live) == []


@only("sqlite")
def test_an_unknown_plugin_is_refused_in_one_line(live, command):
    leave(live)
    assert_refused(command("orphans", "retry", "--plugin", "unipiel"), "unipiel")
    assert called_for(live) == []


@only("sqlite")
def test_a_provider_that_refuses_is_said_to_be_left_alone(stack):
    leave(stack, 20)
    stack.sandbox.behave("unipile", "rate-limit")
    run = stack.command("orphans", "retry")
    assert (run.returncode, run.stdout) == (1, "0 done, 0 superseded, 8 failed, 0 parked\n")
    [line] = [line for line in lines_of(run.stderr) if line["event"] == "retry.stopped"]
    assert (line["plugin"], "429" in line["reason"]) == ("unipile", True)
    assert "request_id" not in line, "it is about no single request"


@only("sqlite")
def test_the_orphans_of_disabled_and_missing_plugins_are_kept_shown_and_skipped(stack):
    leave(stack)
    record(stack, failed("nobody", account()))
    before = stack.orphans()
    run = stack.command("orphans", "retry", "--parked", PUFFLE_DISABLED_PLUGINS="unipile")
    assert run.returncode == 0
    assert run.stdout.endswith("; kept and skipped what is not in use: nobody, unipile\n")
    assert stack.orphans() == before
    listed = stack.command("orphans", "list", PUFFLE_DISABLED_PLUGINS="unipile").stdout
    assert ("nobody" in listed, "unipile" in listed) == (True, True)


@only("sqlite")
def test_the_orphans_of_a_broken_plugin_fail(stack, tmp_path):
    write_distribution(tmp_path, "broken-by-a-test", "raise SystemExit(3)")
    record(stack, failed("broken-by-a-test", account()))
    run = stack.command("orphans", "retry", PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout) == (1, "0 done, 0 superseded, 1 failed, 0 parked\n")
    assert "cannot be used" in stack.orphans()[0]["reason"]


def test_three_retries_at_once_call_each_of_200_orphans_exactly_once(stack):
    accounts = leave(stack, 200)
    processes = [stack.fork_command("orphans", "retry") for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    expected = [f"/api/v1/accounts/{each.provider_account_id}" for each in accounts]
    assert sorted(called_for(stack)) == sorted(expected)
    assert sum(int(line.split()[0]) for line in said) == 200
    assert stack.orphans() == []


def test_what_a_killed_retrier_had_under_way_is_done_after_its_lease_by_another(stack):
    leave(stack, 20)
    stack.sandbox.behave("unipile", "hang")
    killed = stack.fork_command("orphans", "retry", PUFFLE_TEARDOWN_TIMEOUT="30")
    wait_until(lambda: len(stack.sandbox.calls) == 8)
    under_way = called_for(stack)
    killed.kill()
    killed.communicate()
    stack.sandbox.behave("unipile", "ok")
    assert stack.command("orphans", "retry").stdout.startswith("12 done")
    assert not set(called_for(stack)[8:]) & set(under_way), "worked on by two"
    assert {o["attempts"] for o in stack.orphans()} == {1}
    [until] = {o["leased_until"] for o in stack.orphans()}
    assert timedelta(seconds=20) < until - clock.now() < timedelta(seconds=40)
    let_pass(stack, timedelta(seconds=40))
    assert stack.command("orphans", "retry").stdout.startswith("8 done")
    assert sorted(called_for(stack)[20:]) == sorted(under_way)
    assert stack.orphans() == []
    assert stack.sandbox.resources["unipile"] == set()


@only("sqlite")
def test_on_a_terminal_a_bar_shows_the_progress(stack):
    leave(stack, 20)
    leave(stack, 5, permanent=True)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "puffle_accounts", "orphans", "retry"],
        env=stack.process_environ(TERM="xterm", COLUMNS="100"),
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    assert process.wait(timeout=30) == 0
    assert b"Retrying" in shown
    assert b"100%" in shown
    assert shown.endswith(b"20 done, 0 superseded, 0 failed, 0 parked\r\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side has closed it
        return b""


# retry --every

SLOW = """
import os, time
from puffle_accounts import TeardownFailed, hookimpl

@hookimpl
def teardown_account(account):
    if account.metadata["number"] < 7:
        time.sleep(600)
    if os.environ["SLOW_FAILS"]:
        raise TeardownFailed("left")
    return "done"
"""


def _end(
    process: subprocess.Popen | ForkedProgram, number: signal.Signals = signal.SIGTERM
) -> tuple[float, str]:
    """Send the signal, expect exit 0; return the seconds it took and standard error."""
    started = time.monotonic()
    process.send_signal(number)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    return time.monotonic() - started, log


def test_every_repeats_until_sigterm_and_exits_0(stack):
    process = stack.start_command("orphans", "retry", "--every", "0.1")
    for _ in range(3):
        leave(stack)
        wait_until(lambda: stack.orphans() == [])
    assert len(called_for(stack)) == 3
    _end(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@only("sqlite")
def test_a_signal_ends_a_long_wait_at_once(stack, number):
    leave(stack)
    process = stack.fork_command("orphans", "retry", "--every", "3600")
    wait_until(lambda: stack.orphans() == [])
    seconds, _ = _end(process, number)
    assert seconds < 20


@only("sqlite")
def test_a_signal_to_a_process_that_stands_still_ends_it_once_it_goes_on(stack):
    """Any of its threads may be given it then: six of eight went on for ever."""
    for _ in range(3):
        leave(stack)
        process = stack.fork_command("orphans", "retry", "--every", "0.1")
        wait_until(lambda: stack.orphans() == [])
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda pid=process.pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        process.send_signal(signal.SIGTERM)
        _end(process, signal.SIGCONT)


def test_sigterm_while_a_provider_hangs_finishes_what_is_under_way_within_the_deadline(stack):
    leave(stack, 20)
    stack.sandbox.behave("unipile", "hang")
    process = stack.fork_command("orphans", "retry", "--every", "60", PUFFLE_TEARDOWN_TIMEOUT="1.5")
    wait_until(lambda: len(stack.sandbox.calls) == 8)
    seconds, _ = _end(process)
    assert seconds < 20, "a second batch was begun"
    assert len(stack.sandbox.calls) == 8
    assert sorted(o["attempts"] for o in stack.orphans()) == [1] * 12 + [2] * 8
    assert {o["leased_until"] for o in stack.orphans()} == {None}


def test_a_provider_that_hangs_holds_up_no_other_providers_next_pass(stack):
    stack.sandbox.behave("unipile", "hang")
    leave(stack, 9, "unipile")
    process = stack.fork_command(
        "orphans", "retry", "--every", "0.1", PUFFLE_TEARDOWN_TIMEOUT="600"
    )
    wait_until(lambda: len(called_for(stack)) == 8)
    for _ in range(3):
        leave(stack, 1, "agentmail")
        wait_until(lambda: {orphan["plugin"] for orphan in stack.orphans()} == {"unipile"})
    assert len(called_for(stack)) == 8 + 3
    process.kill()
    process.communicate()


@pytest.mark.parametrize("fails", ["", "yes"], ids=["done", "failed"])
def test_the_next_call_begins_as_soon_as_one_has_ended(stack, tmp_path, fails):
    """Seven of forty hang for ever: all the others take turns in the eighth place."""
    write_distribution(tmp_path, "puffle-slow", SLOW)
    accounts = [account(type="crm", metadata={"number": number}) for number in range(40)]
    record(stack, *(failed("puffle-slow", each) for each in accounts))
    process = stack.fork_command(
        *("orphans", "retry"),
        PYTHONPATH=str(tmp_path),
        PUFFLE_TEARDOWN_TIMEOUT="600",
        SLOW_FAILS=fails,
    )
    wait_until(lambda: sum(orphan["attempts"] == 1 for orphan in stack.orphans()) == 7)
    process.kill()
    process.communicate()
    assert len(stack.orphans()) == (40 if fails else 7)


@only("postgresql")
def test_a_database_that_is_away_for_a_while_is_waited_for_with_one_log_line(stack, postgres):
    [(name,)] = stack.sql("SELECT current_database()")
    process = stack.fork_command("orphans", "retry", "--every", "0.1")
    leave(stack)
    wait_until(lambda: stack.orphans() == [])
    stack.database.close_all()
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        time.sleep(1.5)  # several passes
        assert process.poll() is None
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    leave(stack)
    wait_until(lambda: stack.orphans() == [])
    _, log = _end(process)
    events = [line["event"] for line in lines_of(log) if line["event"].startswith("database.")]
    assert events == ["database.unavailable", "database.back"]


# drop


def test_drop_takes_an_id_or_its_beginning_and_logs_the_reason(live, command, events):
    made = leave(live, 3)
    ids = [orphan["id"] for orphan in live.orphans()]
    run = command("orphans", "drop", ids[0], ids[1][:13].upper(), "--reason", "paid\noff")
    assert run.exit_code == 0
    assert run.stdout.splitlines() == [f"dropped {ids[0]}", f"dropped {ids[1]}"]
    assert [orphan["id"] for orphan in live.orphans()] == ids[2:]
    dropped = [fields for event, fields in events() if event == "orphan.dropped"]
    assert [(d["orphan"], d["plugin"], d["reason"]) for d in dropped] == [
        (orphan_id, "unipile", "paid off") for orphan_id in ids[:2]
    ]
    assert {d["account"] for d in dropped} < {each.id for each in made}
    assert called_for(live) == []


@pytest.mark.parametrize(
    "unknown", ["6c7e1c8e-8c6b-4f0e-9a53-3b1f5d0c6d0a", "zzz", "%", "_", "", "' OR 1=1 --", "ä"]
)
def test_an_unknown_id_is_refused_and_nothing_is_dropped(live, command, unknown):
    leave(live)
    [known] = live.orphans()
    run = command("orphans", "drop", "--reason", "x", "--", known["id"], unknown)
    assert_refused(run, unknown)
    assert live.orphans() == [known]


@only("postgresql")
def test_the_beginning_of_an_id_is_looked_up_by_an_index(live, monkeypatch):
    leave(live, 500)  # of fewer any index will do
    orphan = live.orphans()[0]
    asked, sql = [], live.database.sql
    monkeypatch.setattr(live.database, "sql", lambda *words: (asked.append(words), sql(*words))[1])
    assert [str(key) for key in standing.find(live.database, orphan["id"][:9])] == [orphan["id"]]
    monkeypatch.undo()
    live.sql("ANALYZE orphans")
    statement, *params = asked[0]
    plan = live.sql(f"EXPLAIN {statement}", *params)
    assert "orphans_pkey" in str(plan)


@only("sqlite")
def test_an_ambiguous_beginning_is_refused(live, command):
    leave(live, 17)  # two of them begin with the same digit
    first = [orphan["id"][0] for orphan in live.orphans()]
    shared = max(first, key=first.count)
    assert_refused(command("orphans", "drop", shared, "--reason", "x"), "several")
    assert len(live.orphans()) == 17


@pytest.mark.parametrize("reason", [[], ["--reason", ""], ["--reason", " \t"]])
@only("sqlite")
def test_drop_needs_a_reason(live, command, reason):
    leave(live)
    [orphan] = live.orphans()
    assert command("orphans", "drop", orphan["id"], *reason).exit_code == 2
    assert live.orphans() == [orphan]


@only("sqlite")
def test_the_same_orphan_given_twice_is_dropped_once(live, command):
    leave(live)
    [orphan] = live.orphans()
    run = command("orphans", "drop", orphan["id"], orphan["id"][:8], "--reason", "x")
    assert (run.exit_code, run.stdout) == (0, f"dropped {orphan['id']}\n")


def test_an_id_in_bytes_that_are_no_text_is_one_line(live, command):
    assert_refused(command("orphans", "drop", "\udcff", "--reason", "x"), "no orphan has the id")


@only("sqlite")
def test_an_empty_plugin_name_and_no_number_are_refused(live, command):
    leave(live)
    assert_refused(command("orphans", "retry", "--plugin", ""), "''")
    refused = command("orphans", "retry", "--every", "nan")
    assert (refused.exit_code, "--every" in refused.stderr) == (2, True)
    assert called_for(live) == []


def test_a_snapshot_that_cannot_be_read_is_parked_and_stops_nobody(stack):
    leave(stack, 10)
    ids = [orphan["id"] for orphan in stack.orphans()]
    for broken in ids[:9]:
        stack.sql("UPDATE orphans SET account = ? WHERE id = ?", '{"x": 1}', broken)
    run = stack.command("orphans", "retry")
    assert (run.returncode, run.stdout) == (1, "1 done, 0 superseded, 0 failed, 9 parked\n")
    assert len(called_for(stack)) == 1
    assert {orphan["reason"] for orphan in stack.orphans()} == {"its snapshot cannot be read"}
    assert all(orphan["parked_at"] for orphan in stack.orphans())
    parked = [line for line in lines_of(run.stderr) if line["event"] == "orphan.parked"]
    assert {line["orphan"] for line in parked} == set(ids[:9])
    again = stack.command("orphans", "retry", "--parked")
    assert (again.returncode, again.stdout) == (1, "0 done, 0 superseded, 0 failed, 9 parked\n")

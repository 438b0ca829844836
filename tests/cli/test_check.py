"""`check`: a line for each thing that a DELETE needs, and the exit status of a readiness probe."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest
from support import invoke, only, run_forked, write_distribution

ALL_WELL = """\
ok    database: answers
ok    schema: up to date
ok    orphans: 0 orphans, 0 of them parked
ok    plugin agentmail: ok
ok    plugin instantly: ok
ok    plugin unipile: ok
ok    provider agentmail: credentials accepted
ok    provider instantly: credentials accepted
ok    provider unipile: credentials accepted
"""
PROVIDERS = ("agentmail", "instantly", "unipile")

PLUGIN = """
import time
from puffle_accounts import hookimpl

@hookimpl
def teardown_account(account):
    return None

@hookimpl
def check_provider():
    {does}
"""


@pytest.fixture
def check(stack):
    """Run `check` in this process."""

    return lambda *options, **environ: invoke({**stack.environ, **environ}, "check", *options)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin called crm."""

    def install(source: str) -> None:
        write_distribution(tmp_path, "puffle-crm", source, "crm = puffle_crm")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "puffle_crm", raising=False)

    return install


def bad(ended) -> list[str]:
    """Return what is not well; every line has the form of one."""
    lines = ended.stdout.splitlines()
    assert all(re.fullmatch(r"(ok  |warn|FAIL)  [^:]+: \S.*", line) for line in lines), ended.stdout
    return [line.removeprefix("FAIL  ") for line in lines if line.startswith("FAIL")]


@pytest.mark.parametrize("module", [("puffle_accounts",), ("flask", "--app", "wsgi")])
def test_when_all_is_well_there_is_a_line_each_and_the_status_is_0(stack, module):
    checked = run_forked(*module, "check", **stack.environ)
    assert checked.returncode == 0
    assert sorted(checked.stdout.splitlines()) == sorted(ALL_WELL.splitlines())


@only("sqlite")
def test_it_asks_providers_nothing_that_changes_anything(stack, check):
    stack.add_linkedin()
    stack.add_email()
    before = {provider: set(held) for provider, held in stack.sandbox.resources.items()}
    assert check().exit_code == 0
    assert [call.method for call in stack.sandbox.calls] == ["GET"] * 3
    assert stack.sandbox.resources == before


@only("sqlite")
def test_a_database_that_is_away_is_one_bad_line_and_the_rest_is_still_looked_at(check):
    checked = check(DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/db")
    [line] = bad(checked)
    assert checked.exit_code == 1
    assert line.startswith("database: ")
    assert "hunter2" not in checked.stdout
    assert checked.stdout.count("credentials accepted") == 3


def test_tables_that_are_not_there_are_a_bad_line_that_says_what_to_run(stack, check):
    stack.sql("DROP TABLE puffle_accounts_migrations")
    checked = check()
    [line] = bad(checked)
    assert checked.exit_code == 1
    assert line.startswith("schema: ")
    assert "puffle-accounts db upgrade" in line


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("mode", "said"),
    [("refuse", "401"), ("unpaid", "402"), ("fail", "500"), ("rate-limit", "429")],
)
@only("sqlite")
def test_a_provider_that_refuses_is_a_bad_line_with_its_status(stack, check, provider, mode, said):
    stack.sandbox.behave(provider, mode)
    checked = check()
    [line] = bad(checked)
    assert checked.exit_code == 1
    assert line.startswith(f"provider {provider}: ")
    assert said in line
    assert mode != "refuse" or f"{provider.upper()}_API_KEY" in line
    assert "not-a-real" not in checked.stdout + checked.stderr, "the key"


@pytest.mark.parametrize("provider", PROVIDERS)
@only("sqlite")
def test_a_missing_key_is_a_bad_line_that_names_it(check, provider):
    checked = check(**{f"{provider.upper()}_API_KEY": ""})
    [line] = bad(checked)
    assert checked.exit_code == 1
    assert line.startswith(f"provider {provider}: ")
    assert f"{provider.upper()}_API_KEY is not set" in line


@only("sqlite")
def test_a_provider_that_hangs_is_given_up_and_the_others_are_not_kept_waiting(stack, check):
    stack.sandbox.behave("instantly", "hang")
    began = time.monotonic()
    checked = check(PUFFLE_TEARDOWN_TIMEOUT="1")
    assert time.monotonic() - began < 8
    [line] = bad(checked)
    assert checked.exit_code == 1
    assert line.startswith("provider instantly: ")
    assert "no answer within" in line


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("time.sleep(600)", "no answer within 1 s"),
        ("raise SystemExit(3)", "3"),
        ("raise ValueError", "ValueError"),
        ("raise ValueError('one\\ntwo\\x00')", "one two"),
    ],
)
@only("sqlite")
def test_whatever_a_plugins_own_check_does_is_a_bad_line(check, install, does, said):
    install(PLUGIN.format(does=does))
    began = time.monotonic()
    checked = check(PUFFLE_TEARDOWN_TIMEOUT="1")
    assert time.monotonic() - began < 30
    assert (checked.exit_code, bad(checked)) == (1, [f"provider crm: {said}"])
    assert "ok    plugin crm: ok\n" in checked.stdout


@only("sqlite")
def test_a_broken_plugin_is_a_bad_line_and_a_disabled_one_is_not(check, install):
    install("import no_such_module")
    broken = check()
    [line] = bad(broken)
    assert broken.exit_code == 1
    assert line.startswith("plugin crm: broken: ")
    assert "no_such_module" in line
    disabled = check(PUFFLE_DISABLED_PLUGINS="crm")
    assert (disabled.exit_code, bad(disabled)) == (0, [])
    assert "ok    plugin crm: disabled\n" in disabled.stdout


@only("sqlite")
def test_the_provider_of_a_disabled_plugin_is_not_asked(stack, check):
    stack.sandbox.behave("unipile", "refuse")
    checked = check(PUFFLE_DISABLED_PLUGINS="unipile")
    assert (checked.exit_code, bad(checked)) == (0, [])
    assert "provider unipile" not in checked.stdout
    assert {call.provider for call in stack.sandbox.calls} == {"instantly", "agentmail"}


def test_orphans_that_were_parked_for_90_days_are_pointed_out(live, check):
    live.sandbox.behave("unipile", "refuse")
    live.delete(live.add_linkedin())
    live.sandbox.behave("unipile", "ok")
    assert "orphans: 1 orphan, 1 of them parked\n" in check().stdout
    live.sql("UPDATE orphans SET parked_at = '2026-01-01 00:00:00.000000+00:00'")
    checked = check()
    assert checked.exit_code == 0, "a reminder, not a reason to take the service out"
    assert "warn  orphans: 1 orphan, 1 of them parked; 1 parked and older than 90 days" in (
        checked.stdout
    )
    told = json.loads(check("--json", "--local").stdout)
    assert [line["what"] for line in told if line["state"] == "warn"] == ["orphans"]


@only("sqlite")
def test_locally_no_provider_is_asked_and_nothing_else_is_left_out(stack, check):
    for provider in PROVIDERS:
        stack.sandbox.behave(provider, "hang")
    checked = check("--local")
    local = [line for line in ALL_WELL.splitlines() if "provider" not in line]
    assert (checked.exit_code, checked.stdout.splitlines()) == (0, local)
    assert stack.sandbox.calls == []
    stack.sql("DROP TABLE puffle_accounts_migrations")
    assert check("--local").exit_code == 1


@only("sqlite")
@pytest.mark.parametrize("options", [("--json",), ("--json", "--local")])
def test_the_same_in_json_with_the_same_exit_status(stack, check, options):
    stack.sandbox.behave("unipile", "refuse")
    stack.sql("DROP TABLE puffle_accounts_migrations")
    as_text, as_json = check(*options[1:]), check(*options)
    told = json.loads(as_json.stdout)
    assert (as_text.exit_code, as_json.exit_code) == (1, 1)
    assert {frozenset(line) for line in told} == {frozenset(("what", "state", "said"))}
    states = {"ok": "ok  ", "fail": "FAIL"}
    lines = [f"{states[line['state']]}  {line['what']}: {line['said']}" for line in told]
    assert sorted(lines) == sorted(as_text.stdout.splitlines())


@only("sqlite")
@pytest.mark.parametrize(
    ("does", "is_fault"),
    [("1 / 0", True), ("raise puffle_accounts.TeardownFailed('refused')", False)],
)
def test_what_a_plugins_check_did_not_announce_is_logged_as_its_fault(
    check, install, events, does, is_fault
):
    install("import puffle_accounts\n" + PLUGIN.format(does=does))
    assert check().exit_code == 1
    faults = [f for event, f in events() if event == "plugin.failed"]
    assert [(f["levelname"], f["plugin"], f["hook"]) for f in faults] == (
        [("ERROR", "crm", "check_provider")] if is_fault else []
    )
    assert all(f["exc_info"] for f in faults)

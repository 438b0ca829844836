"""Plugins are found by entry point and verified; one that cannot be used loses nothing."""

from __future__ import annotations

import logging
import sys
import time

import pytest
from support import only, plugin_of, write_distribution

from puffle_accounts import TeardownFailed, hookimpl, teardown
from puffle_accounts.errors import BrokenPlugin
from puffle_accounts.hooks import loading
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.testing import account

IMPORT = "from puffle_accounts import TeardownFailed, hookimpl\n"
GOOD = IMPORT + "@hookimpl\ndef teardown_account(account):\n    return 'done'\n"
BROKEN = {
    "import-fails": ("import no_such_module_anywhere", "ModuleNotFoundError"),
    "syntax-error": ("def teardown_account(account:", "SyntaxError"),
    "exits-at-import": ("raise SystemExit(3)", "SystemExit: 3"),
    "stops-at-import": ("raise GeneratorExit", "GeneratorExit"),
    "interrupts-at-import": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "error-without-text": (
        "class Mute(Exception):\n    def __str__(self): raise SystemExit\nraise Mute",
        "Mute: unprintable Mute",
    ),
    "no-hook": ("x = 1", "implements no teardown_account"),
    "unmarked-hook": ("def teardown_account(account): pass", "implements no teardown_account"),
    "only-a-check": (
        IMPORT + "@hookimpl\ndef check_provider(): pass",
        "implements no teardown_account",
    ),
    "unknown-hook": (GOOD + "@hookimpl\ndef remove_account(account): pass", "remove_account"),
    "unknown-argument": (IMPORT + "@hookimpl\ndef teardown_account(acount): pass", "acount"),
    "self-in-a-module": (IMPORT + "@hookimpl\ndef teardown_account(self, account): pass", "self"),
    "no-argument": (IMPORT + "@hookimpl\ndef teardown_account(): pass", "wrong signature"),
    "account-by-default": (
        IMPORT + "@hookimpl\ndef teardown_account(account=None): pass",
        "wrong signature",
    ),
    "keyword-only": (
        IMPORT + "@hookimpl\ndef teardown_account(*, account): pass",
        "wrong signature",
    ),
    "needs-more": (
        IMPORT + "@hookimpl\ndef teardown_account(account, *, client): pass",
        "wrong signature",
    ),
    "generator": (IMPORT + "@hookimpl\ndef teardown_account(account): yield", "generator"),
    "coroutine": (IMPORT + "@hookimpl\nasync def teardown_account(account): pass", "coroutine"),
    "async-generator": (
        IMPORT + "@hookimpl\nasync def teardown_account(account): yield",
        "coroutine",
    ),
    "wrapper-that-never-yields": (
        IMPORT + "@hookimpl(wrapper=True)\ndef teardown_account(account): pass",
        "not a generator",
    ),
    "coroutine-as-check": (
        GOOD + "@hookimpl\nasync def check_provider(): pass",
        "check_provider is a coroutine",
    ),
    "check-with-argument": (GOOD + "@hookimpl\ndef check_provider(account): pass", "account"),
    "types-as-text": (GOOD + "ACCOUNT_TYPES = 'email'", "ACCOUNT_TYPES"),
    "types-as-number": (GOOD + "ACCOUNT_TYPES = 1", "ACCOUNT_TYPES"),
    "types-that-are-none": (GOOD + "ACCOUNT_TYPES = None", "ACCOUNT_TYPES"),
    "types-of-numbers": (GOOD + "ACCOUNT_TYPES = {1}", "ACCOUNT_TYPES"),
    "types-that-run-out": (GOOD + "ACCOUNT_TYPES = iter(['email'])", "ACCOUNT_TYPES"),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution for this process: `install(name, source, entry=…)`."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, source: str, entry: str | None = None) -> None:
        write_distribution(tmp_path, name, source, entry)

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(name: str, **arguments):
    """Load what is installed; return the plugin of this name and all of them."""
    loaded = loading.load(8, **arguments)
    return next(plugin for plugin in loaded.all if plugin.name == name), loaded


def run(plugins: list, type: str = "email"):
    """Return what became of each plugin's calls for an account of this type."""
    hooks = Plugins(plugins).concerned(account(type=type))
    return teardown.call_all(hooks, account(type=type), time.monotonic() + 10)


def test_the_three_providers_come_by_entry_point_like_any_other(install):
    install("third-party", GOOD)
    found = {plugin.name: plugin.state for plugin in loading.load(8).all}
    assert found == dict.fromkeys(["unipile", "instantly", "agentmail", "third-party"], "ok")


def test_an_installed_plugin_is_shown_with_its_distribution_and_called(install):
    install("third-party", GOOD)
    plugin, loaded = load("third-party")
    assert (plugin.distribution, plugin.state) == ("third-party 1.0", "ok")
    hooks = [hook for hook in loaded.concerned(account()) if hook.plugin == "third-party"]
    (outcome,) = teardown.call_all(hooks, account(), time.monotonic() + 10)
    assert (outcome.said, outcome.failure) == ("done", None)


def assert_broken(plugin, loaded, said: str, caplog) -> None:
    """It says so in the log and in its state, and it fails for accounts of every type."""
    assert plugin.state.startswith("broken: ")
    assert said in plugin.problem
    (line,) = [record for record in caplog.records if record.getMessage() == "plugin.broken"]
    assert (line.levelno, line.plugin, line.reason) == (logging.ERROR, plugin.name, plugin.problem)
    for type in ("linkedin", "email", "whatsapp"):
        hooks = [
            hook for hook in loaded.concerned(account(type=type)) if hook.plugin == plugin.name
        ]
        (outcome,) = teardown.call_all(hooks, account(type=type), time.monotonic() + 10)
        assert said in outcome.failure
        assert not outcome.permanent


@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_that_cannot_be_used_fails_for_every_account(install, caplog, source, said):
    install("bad-one", source)
    assert_broken(*load("bad-one"), said, caplog)


def test_an_entry_point_that_names_nothing_is_a_broken_plugin(install, caplog):
    install("bad-one", GOOD, entry="bad-one = bad_one:nothing")
    assert_broken(*load("bad-one"), "nothing", caplog)


UPSTREAM = """
from puffle_accounts.upstream import Upstream
crm = Upstream(
    "CRM", key_variable="CRM_API_KEY", base_url_variable="CRM_BASE_URL",
    base_url="https://api.crm.example", code="code", is_gone=lambda body: False,
    authenticate=lambda key: {"X-User": key.split(":")[0], "X-API-KEY": key.split(":")[1]},
)
"""


def test_a_client_that_chokes_on_its_settings_makes_a_broken_plugin(install, caplog):
    install("bad-one", GOOD + UPSTREAM)
    plugin, loaded = load("bad-one")
    loading.configure(loaded, {"CRM_API_KEY": "without-a-colon"})
    assert_broken(plugin, loaded, "IndexError", caplog)


@pytest.mark.parametrize(
    ("file", "content"), [("entry_points.txt", b"[x]\ny"), ("METADATA", b"\xff")]
)
def test_a_distribution_that_cannot_be_read_hides_no_other(
    install, tmp_path, caplog, file, content
):
    install("third-party", GOOD)
    (tmp_path / "odd-1.0.dist-info").mkdir()
    (tmp_path / "odd-1.0.dist-info" / "METADATA").write_text("Name: odd")
    (tmp_path / "odd-1.0.dist-info" / "entry_points.txt").write_text("[puffle_accounts]\nodd = odd")
    (tmp_path / "odd-1.0.dist-info" / file).write_bytes(content)
    assert len(loading.load(8).all) == 4
    [record] = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "distribution.unreadable")


def test_two_distributions_with_one_name_are_both_left_alone(install, caplog):
    install("first-one", "raise AssertionError('imported')", entry="crm = first_one")
    install("second-one", "raise AssertionError('imported')", entry="crm = second_one")
    plugin, loaded = load("crm")
    assert_broken(plugin, loaded, "two distributions", caplog)
    assert plugin.distribution in (
        "first-one 1.0, second-one 1.0",
        "second-one 1.0, first-one 1.0",
    )
    assert not {"first_one", "second_one"} & set(sys.modules)


@pytest.mark.parametrize("source", [GOOD, "raise AssertionError('imported')"])
def test_a_disabled_plugin_is_not_even_imported(install, caplog, source):
    install("third-party", source)
    plugin, loaded = load("third-party", disabled={"third-party"})
    assert plugin.state == "disabled"
    assert "third_party" not in sys.modules
    assert "third-party" not in {hook.plugin for hook in loaded.concerned(account())}
    assert not caplog.records


def test_a_disabled_name_that_nobody_has_is_warned_of(caplog):
    loading.load(8, disabled={"unpile"})
    [record] = caplog.records
    assert (record.levelname, record.message, record.plugin) == (
        *("WARNING", "plugin.not_installed"),
        "unpile",
    )


@pytest.fixture
def site(tmp_path) -> str:
    """A PYTHONPATH with every broken plugin, each leaving a trace when imported, and a good one."""
    for name, (source, _) in BROKEN.items():
        write_distribution(tmp_path, name, f"open('{tmp_path}/{name}.imported', 'w')\n{source}")
    write_distribution(tmp_path, "crm-a", GOOD, entry="crm = crm_a")
    write_distribution(tmp_path, "crm-b", GOOD, entry="crm = crm_b")
    write_distribution(tmp_path, "healthy", GOOD)
    return str(tmp_path)


ALL_BROKEN = {*BROKEN, "crm"}


def test_the_service_starts_with_broken_plugins_and_each_leaves_an_orphan(stack, gunicorn, site):
    server = gunicorn(PYTHONPATH=site)
    errors = [line for line in server.lines() if line["event"] == "plugin.broken"]
    assert {line["plugin"] for line in errors} == ALL_BROKEN
    assert {line["level"] for line in errors} == {"error"}
    account_id = stack.add_linkedin()
    answer = stack.delete(account_id)
    assert (answer.status_code, answer.headers["Teardown-Status"]) == (200, "partial")
    assert stack.row(account_id)["status"] == "disconnected"
    assert stack.sandbox.resources["unipile"] == set()
    assert {orphan["plugin"] for orphan in stack.orphans()} == ALL_BROKEN


@only("sqlite")
def test_the_command_shows_broken_plugins_and_exits_1_until_they_are_disabled(
    stack, site, tmp_path
):
    shown = stack.command("plugins", PYTHONPATH=site)
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()[1:]}
    assert shown.returncode == 1
    assert {name for name, line in lines.items() if " broken: " in line} == ALL_BROKEN
    assert {name for name, line in lines.items() if line.endswith(" ok")} == {
        *("unipile", "instantly", "agentmail", "healthy"),
    }
    assert "healthy 1.0" in lines["healthy"]
    assert not any(line.endswith("…") for line in lines.values()), "the reason is what it is for"
    assert "teardown_account, check_provider" in lines["unipile"]
    assert set(path.stem for path in tmp_path.glob("*.imported")) == set(BROKEN) - {"syntax-error"}

    for trace in tmp_path.glob("*.imported"):
        trace.unlink()
    disabled = " , ".join(ALL_BROKEN)
    shown = stack.command("plugins", PYTHONPATH=site, PUFFLE_DISABLED_PLUGINS=disabled)
    assert shown.returncode == 0
    assert {
        line.split()[0] for line in shown.stdout.splitlines() if line.endswith(" disabled")
    } == ALL_BROKEN
    assert not list(tmp_path.glob("*.imported"))


# What runs, and what is around it.


def called(calls: list, name: str, result: str | None = None):
    def implementation(account):
        calls.append(name)
        return result

    return implementation


def wrapper(calls: list, name: str):
    def around(account):
        calls.append(name)
        return (yield)

    return hookimpl(around, wrapper=True, specname="teardown_account")


def test_an_implementation_by_specname_runs_exactly_once():
    calls = []
    plugin = plugin_of("crm", remove=hookimpl(called(calls, "remove"), specname="teardown_account"))
    run([plugin])
    assert calls == ["remove"]


def test_a_plugin_may_have_several_implementations_and_a_failure_stops_none_of_them():
    calls = []

    def fails(account):
        raise TeardownFailed("left")

    plugin = plugin_of(
        "crm",
        one=hookimpl(called(calls, "one", "gone"), specname="teardown_account"),
        two=hookimpl(fails, specname="teardown_account", tryfirst=True),
        teardown_account=hookimpl(called(calls, "three")),
    )
    outcomes = run([plugin])
    assert sorted(calls) == ["one", "three"]
    assert [outcome.failure for outcome in outcomes if outcome.failure] == ["left"]


def test_a_wrapper_is_around_each_providers_call():
    calls = []
    outcomes = run(
        [
            plugin_of("timer", teardown_account=wrapper(calls, "around")),
            plugin_of("one", teardown_account=hookimpl(called(calls, "one"))),
            plugin_of("two", teardown_account=hookimpl(called(calls, "two"))),
        ]
    )
    assert sorted(calls) == ["around", "around", "one", "two"]
    assert {outcome.plugin for outcome in outcomes} == {"one", "two"}


def test_a_module_may_have_both_and_its_wrapper_is_around_its_own_call_too():
    calls = []
    both = plugin_of(
        "both",
        around=wrapper(calls, "around"),
        teardown_account=hookimpl(called(calls, "inner", "done")),
    )
    (outcome,) = run([both])
    assert (calls, outcome.said) == (["around", "inner"], "done")


def test_one_wrapper_may_be_shared_by_several_plugins():
    calls = []
    shared = wrapper(calls, "around")
    outcomes = run(
        [
            plugin_of("one", around=shared, teardown_account=hookimpl(called(calls, "one"))),
            plugin_of("two", around=shared, teardown_account=hookimpl(called(calls, "two"))),
        ]
    )
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert sorted(calls) == ["around"] * 4 + ["one", "two"]


@pytest.mark.parametrize(
    ("type", "expected"),
    [("email", ["around", "mine", "other"]), ("linkedin", ["other"])],
)
def test_a_plugin_with_account_types_sees_no_others_neither_by_hook_nor_by_wrapper(type, expected):
    calls = []
    mine = plugin_of(
        "mine",
        ACCOUNT_TYPES={"email"},
        around=wrapper(calls, "around"),
        teardown_account=hookimpl(called(calls, "mine")),
    )
    run([mine, plugin_of("other", teardown_account=hookimpl(called(calls, "other")))], type)
    assert sorted(set(calls)) == expected


@pytest.mark.parametrize("types", [{"email"}, frozenset({"email"}), ["email"], ("email",)])
def test_account_types_may_be_any_collection(types):
    plugin = plugin_of("crm", ACCOUNT_TYPES=types, teardown_account=hookimpl(called([], "x", "y")))
    assert [outcome.said for outcome in run([plugin])] == ["y"]
    assert run([plugin], "linkedin") == []


def raises_before(account):
    raise ValueError("before")
    yield


def raises_after(account):
    yield
    raise ValueError("after")


@pytest.mark.parametrize("function", [raises_before, raises_after])
def test_a_wrapper_that_raises_counts_as_a_failure_of_each_call_it_wraps(function):
    outcomes = run(
        [
            plugin_of("timer", teardown_account=hookimpl(function, wrapper=True)),
            plugin_of("one", teardown_account=hookimpl(called([], "one", "done"))),
            plugin_of("two", teardown_account=hookimpl(called([], "two"))),
        ]
    )
    assert {outcome.plugin for outcome in outcomes if outcome.failure} == {"one", "two"}


def test_a_wrapper_sees_a_failure_and_may_add_to_it():
    def around(account):
        try:
            return (yield)
        except TeardownFailed as error:
            raise TeardownFailed(f"seen: {error}", retry_after=7) from error

    def fails(account):
        raise TeardownFailed("left")

    (outcome,) = run(
        [
            plugin_of("timer", teardown_account=hookimpl(around, wrapper=True)),
            plugin_of("one", teardown_account=hookimpl(fails)),
        ]
    )
    assert (outcome.failure, outcome.retry_after) == ("seen: left", 7)


class Slotted:
    """A plugin that is an object without a dictionary of its own."""

    __slots__ = ()

    @hookimpl
    def teardown_account(self, account, /):
        return "done"


slotted = Slotted()


def test_a_plugin_may_be_an_object_instead_of_a_module(install):
    install("object-plugin", GOOD, entry=f"object-plugin = {__name__}:slotted")
    plugin, loaded = load("object-plugin")
    loading.configure(loaded, {})
    assert plugin.state == "ok"
    assert [outcome.said for outcome in run([plugin])] == ["done"]


def test_a_hook_that_may_be_missing_from_the_contract_is_no_mistake():
    optional = hookimpl(called([], "x"), optionalhook=True, specname="of_the_future")
    plugin = plugin_of("crm", later=optional, teardown_account=hookimpl(called([], "x", "y")))
    assert [outcome.said for outcome in run([plugin])] == ["y"]


def test_the_kit_refuses_what_the_service_would_refuse():
    with pytest.raises(BrokenPlugin, match="implements no teardown_account"):
        plugin_of("crm", teardown_account=called([], "unmarked"))


def test_what_a_plugin_prints_at_import_is_no_output_of_a_command(stack, tmp_path):
    write_distribution(tmp_path, "puffle-chatty", "print('hello')\n" + GOOD)
    key = stack.command("keys", "create", stack.user_id, PYTHONPATH=str(tmp_path))
    assert key.stdout.startswith("pk_live_")
    assert "hello" in key.stderr

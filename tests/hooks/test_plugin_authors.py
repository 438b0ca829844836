"""What plugin authors are told is true: the page, and the example to copy."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from support import ROOT

from puffle_accounts import Account, TeardownFailed, testing, upstream
from puffle_accounts.config import Config
from puffle_accounts.hooks import hookspecs
from puffle_accounts.hooks.hookspecs import GROUP
from puffle_accounts.orphans.ledger import MOST_ATTEMPTS
from puffle_accounts.testing import FakeProvider, account, call, check
from puffle_accounts.testing.case import Case
from puffle_accounts.text import MAX_LINE
from puffle_accounts.upstream import Upstream

PAGE = (ROOT / "docs" / "plugins.md").read_text()
TEMPLATE = ROOT / "examples" / "puffle-example-crm"
HOOKS = [f for f in vars(hookspecs).values() if hasattr(f, f"{GROUP}_spec")]
DESCRIBED = {
    **{hook.__name__: hook for hook in HOOKS},
    "TeardownFailed": TeardownFailed,
    "Upstream": Upstream,
    **{
        f"Upstream.{name}": getattr(Upstream, name)
        for name in ("delete", "post", "put", "patch", "get", "pages")
    },
    **{
        name: getattr(upstream, name)
        for name in (
            *("ClientCredentials", "basic", "in_query"),
            *("request_id", "resource", "seconds_left"),
        )
    },
    **{name: getattr(testing, name) for name in ("account", "call", "check", "holdings")},
    "FakeProvider": FakeProvider,
    **{f"FakeProvider.{name}": getattr(FakeProvider, name) for name in ("answer", "reply")},
    **{
        f"PluginService.{name}": getattr(testing.PluginService, name)
        for name in ("add", "delete", "orphans", "retry")
    },
}


def signature(something) -> str:
    text = re.sub(r"\(self(, )?", "(", str(inspect.signature(something)).replace("'", ""))
    return text.removesuffix(" -> None") if inspect.isclass(something) else text


# The page


def test_the_page_gives_each_hooks_signature_and_every_other_as_it_is_in_the_code():
    headings = dict(re.findall(r"^### `([\w.]+)(\(.*)`$", PAGE, re.MULTILINE))
    assert headings == {name: signature(it) for name, it in DESCRIBED.items()}
    assert {hook.__name__ for hook in HOOKS} == {
        *("teardown_account", "check_provider", "find_resources")
    }


def test_the_page_explains_every_field_argument_and_name_that_authors_use():
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    assert {field.name for field in fields(Account)} <= named
    for it in (TeardownFailed, Upstream):
        assert set(inspect.signature(it).parameters) <= named
    assert {field.name for field in fields(testing.Result)} <= named
    assert {field.name for field in fields(testing.Request)} <= named
    assert set(Case.__annotations__) - {"provider", "monkeypatch"} <= named
    assert set(testing.__all__) - {"Request", "Result"} <= set(re.findall(r"\w+", PAGE))
    assert {name for name in vars(FakeProvider) if name[0] != "_"} <= set(re.findall(r"\w+", PAGE))


def test_the_client_exports_what_the_page_describes_and_nothing_by_accident():
    described = {name for name in DESCRIBED if hasattr(upstream, name)}
    there = {name for name, it in vars(upstream).items() if not inspect.ismodule(it)}
    assert set(upstream.__all__) == described | {"UpstreamFailed"}
    assert {name for name in there if not name.startswith("_")} == set(upstream.__all__)


@pytest.mark.parametrize(
    "said",
    [
        f"`PUFFLE_TEARDOWN_TIMEOUT` seconds ({Config.teardown_timeout:g} by default)",
        f"under way in one worker process ({Config.plugin_calls} by\ndefault;",
        f"one clean line of at most {MAX_LINE} characters",
        f"After\n{MOST_ATTEMPTS} attempts the orphan is parked",
    ],
)
def test_the_pages_numbers_are_those_of_the_code(said):
    assert said in PAGE


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page's Python as files: a block belongs to the file that its first line names."""
    folder = tmp_path_factory.mktemp("page")
    for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S):
        with (folder / name).open("a") as file:
            file.write(code)
    return folder


def load(page: Path, name: str):
    """Return a module of the page."""
    module = type(sys)(name)
    exec(compile((page / f"{name}.py").read_text(), name, "exec"), vars(module))
    return module


def test_all_python_on_the_page_belongs_to_a_file_that_is_tested_here(page):
    assert {path.name for path in page.iterdir()} == {
        *("puffle_example_crm.py", "test_puffle_example_crm.py"),
        *("puffle_exports.py", "puffle_timing.py"),
    }
    assert PAGE.count("```python\n") == PAGE.count("```python\n# ")


def test_the_pages_complete_plugin_is_the_example_and_its_test_begins_like_the_examples(page):
    for name in ("puffle_example_crm.py", "test_puffle_example_crm.py"):
        assert (TEMPLATE / name).read_text().startswith((page / name).read_text())
    assert (page / "puffle_example_crm.py").read_text() == (
        TEMPLATE / "puffle_example_crm.py"
    ).read_text()
    (entry_point,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    assert entry_point in (TEMPLATE / "pyproject.toml").read_text()


def test_the_pages_example_of_each_hook_does_what_it_says(page, tmp_path):
    exports = load(page, "puffle_exports")
    exports.EXPORTS = tmp_path / "exports"
    ended = account()
    assert check(exports) == f"there is no folder {exports.EXPORTS}"
    (exports.EXPORTS / ended.id).mkdir(parents=True)
    assert check(exports) is None
    assert call(exports, ended).said == "exports deleted"
    assert call(exports, ended).said is None
    (exports.EXPORTS / ended.id).write_text("no folder")
    assert call(exports, ended).failure == "the folder of exports is left: Not a directory"


def test_the_pages_wrapper_can_be_used(page, events):
    timing = load(page, "puffle_timing")
    timing.works = hookspecs.hookimpl(lambda account: "done", specname="teardown_account")
    assert call(timing, account()).said == "done"
    assert [event for event, _ in events() if event.startswith("took ")]


# The template


def test_the_template_passes_its_tests_once_it_has_other_names(tmp_path):
    """The commands of its README, which change nothing but names."""
    readme = (TEMPLATE / "README.md").read_text()
    [commands] = re.findall(r"^```console\n\$ cp (.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "examples").mkdir()
    shutil.copytree(TEMPLATE, tmp_path / "examples" / TEMPLATE.name)
    script = "set -e\ncp " + commands.replace("\n$ ", "\n")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    made = tmp_path / "puffle-acme"
    assert sorted(path.name for path in made.iterdir()) == [
        *("README.md", "puffle_acme.py", "pyproject.toml", "test_puffle_acme.py")
    ]
    assert not re.search(r"(?i)example.?crm", "".join(path.read_text() for path in made.iterdir()))
    tests = (sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "--rootdir", made, made)
    done = subprocess.run(tests, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert 'acme = "puffle_acme"' in (made / "pyproject.toml").read_text()

"""README and docs name only what there is, and all that an operator needs."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import click
import pytest
from support import ROOT

from puffle_accounts.cli import COMMANDS

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SOURCES = [
    *ROOT.glob("puffle_accounts/**/*.py"),
    *ROOT.glob("plugins/*.py"),
    *ROOT.glob("examples/**/*.py"),
    *(ROOT / name for name in ("gunicorn.conf.py", "Makefile")),
]
KNOWN = "\n".join(path.read_text() for path in SOURCES)
OF_OTHERS = {
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT"),
    *("FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"),
}
VARIABLES = [
    "DATABASE_URL",
    "PUFFLE_TEARDOWN_TIMEOUT",
    "PUFFLE_PLUGIN_CALLS",
    "PUFFLE_DISABLED_PLUGINS",
    "PUFFLE_LOG_FORMAT",
    *(f"{provider}_API_KEY" for provider in ("UNIPILE", "INSTANTLY", "AGENTMAIL")),
    *(f"{provider}_BASE_URL" for provider in ("UNIPILE", "INSTANTLY", "AGENTMAIL")),
    "UNIPILE_DSN",
]
TREE = click.Group(commands=COMMANDS)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> list[str]:
    """Return the lines of code blocks, without comments, and what is in backticks elsewhere."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0] for line in lines] + re.findall(r"`([^`]+)`", rest)


def leaves(group: click.Group) -> list[str]:
    """Return every command with its group: `db upgrade`, `check`, …"""
    return [
        f"{name} {leaf}".strip()
        for name, command in group.commands.items()
        for leaf in (leaves(command) if isinstance(command, click.Group) else [""])
    ]


def passes_on(command: click.Command) -> bool:
    """Whether what follows are the arguments of another program."""
    return bool(command.context_settings.get("ignore_unknown_options"))


@each_page
def test_every_command_that_a_page_names_exists_with_its_options(page):
    for words in re.findall(r"puffle-accounts +([a-z].*)", "\n".join(code(page))):
        command: click.Command = TREE
        for word in words.replace("[", "").replace("]", "").split():
            if passes_on(command):
                break
            if word.startswith("--"):
                names = [name for parameter in command.params for name in parameter.opts]
                assert word.split("=")[0] in [*names, "--help"], words
            elif isinstance(command, click.Group):
                assert word in command.commands, words
                command = command.commands[word]


@each_page
def test_every_variable_that_a_page_names_is_read_somewhere(page):
    said = re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", "\n".join(code(page)))
    named = {name.removesuffix("_FILE") for name in said if not name.startswith("OTEL_")}
    assert {name for name in named - OF_OTHERS if name not in KNOWN} == set()


@each_page
def test_every_make_target_that_a_page_names_exists(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake (\w+)", "\n".join(code(page)))) <= set(targets)


@each_page
def test_every_link_into_the_project_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@each_page
def test_every_file_of_the_tests_that_a_page_names_exists(page):
    named = re.findall(r"\btests/[\w/]+\.py\b", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@each_page
def test_every_heading_that_a_page_links_to_is_there(page):
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
        target = (page.parent / link) if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


def test_the_index_has_every_page_once():
    index = ROOT / "docs" / "README.md"
    linked = re.findall(r"^\| \[.+?\]\((.+?)\) \| \S", index.read_text(), re.MULTILINE)
    assert sorted((index.parent / link).resolve() for link in linked) == sorted(
        page for page in PAGES if page != index
    )


def test_the_readme_tells_how_much_the_tests_cover():
    said = re.search(r"less than (\d+) % of all lines and branches", PAGES[0].read_text())
    assert said[1] == _setup()["coverage:report"]["fail_under"]


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def test_the_changelog_has_the_version():
    released = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", CHANGELOG, re.MULTILINE)
    assert released[0] == _setup()["metadata"]["version"]
    assert len(released) == len(re.findall(r"^## ", CHANGELOG, re.MULTILINE)) - 1


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_readme_tells_of_every_variable(variable):
    assert f"`{variable}`" in PAGES[0].read_text()


@pytest.mark.parametrize("command", leaves(TREE))
def test_the_readme_tells_of_every_command(command):
    assert re.search(rf"`(puffle-accounts )?{command}\b", PAGES[0].read_text())


def test_the_page_on_logs_tells_of_every_event_and_no_other():
    told = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", (ROOT / "docs/logs.md").read_text(), re.M))
    package = "\n".join(path.read_text() for path in ROOT.glob("puffle_accounts/**/*.py"))
    subjects = "account|database|distribution|idempotency|key|log|orphan|plugin|provider|request"
    assert told == set(
        re.findall(rf'"((?:{subjects}|retry|service|teardown|variable)\.[a-z_]+)"', package)
    )

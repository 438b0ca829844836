"""The page on the architecture says what is there, and what it says always holds."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support import ROOT

from puffle_accounts import clock
from puffle_accounts.database.postgres import Postgres

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "puffle_accounts"
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

#: What a plugin may import of ours; the page for its authors tells of nothing else.
FOR_PLUGINS = {"puffle_accounts", "puffle_accounts.upstream"}


def plan() -> list[str]:
    """Return the paths of the plan on the page, in its order; those of folders end with a slash."""
    [block] = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    paths: list[str] = []
    above: list[str] = []
    for indent, name in re.findall(r"^( *)([^#\s]\S*)", block, re.MULTILINE):
        del above[len(indent) // 2 :]
        paths.append("".join(above) + name)
        above.append(name)
    return paths


PLAN = plan()


def shown_whole(folder: str) -> bool:
    """Whether the plan names a folder and none of its files."""
    return folder.endswith("/") and not any(p.startswith(folder) and p != folder for p in PLAN)


def place(path: Path) -> int:
    """Return where in the plan a file stands, or the folder that is shown whole."""
    name = str(path.relative_to(ROOT))
    whole = next(filter(name.startswith, filter(shown_whole, PLAN)), name)
    return PLAN.index(whole)


def sources() -> list[Path]:
    """Return every file of the package and the plugins."""
    return [
        path
        for folder in (PACKAGE, ROOT / "plugins")
        for path in folder.rglob("*")
        if path.is_file() and path.parent.suffix != ".egg-info" and "__pycache__" not in path.parts
    ]


def file_of(module: str) -> Path | None:
    """Return the file of one of our modules, `None` if there is no such module."""
    stem = ROOT.joinpath(*module.split("."))
    found = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in found if path.exists()), None)


def imports(path: Path) -> Iterator[str]:
    """Return the modules of ours that a file imports, inside its functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import, which this test does not read"
            module = str(node.module)
            inner = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if file_of(name) else module for name in inner]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "puffle_accounts")


def test_the_plan_names_every_file_once_and_nothing_else():
    assert [folder for folder in PLAN if shown_whole(folder)] == [
        "puffle_accounts/database/migrations/"
    ]
    there = {str(path.relative_to(ROOT)) for path in sources()}
    whole = tuple(filter(shown_whole, PLAN))
    assert sorted(shown for shown in PLAN if not shown.endswith("/")) == sorted(
        name for name in there if not name.startswith(whole)
    )
    assert [
        folder for folder in PLAN if folder.endswith("/") and not (ROOT / folder).is_dir()
    ] == []


def test_a_package_stands_in_one_place_of_the_plan():
    folders = [shown.rpartition("/")[0] for shown in PLAN if not shown.endswith("/")]
    entered = [now for before, now in zip(["", *folders], folders, strict=False) if now != before]
    inner = [folder for folder in entered if "/" in folder]
    assert len(inner) == len(set(inner)) > 4


def test_imports_go_down_the_plan_only():
    up = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources()
        if path.suffix == ".py"
        for module in imports(path)
        if place(path) >= place(file_of(module))
    ]
    assert up == []


def test_plugins_import_what_third_parties_may():
    imported = {path.name: set(imports(path)) for path in (ROOT / "plugins").glob("puffle_*.py")}
    assert len(imported) == 3
    assert set().union(*imported.values()) <= FOR_PLUGINS


def test_the_application_imports_neither_the_demo_nor_the_kit():
    script = "import sys, puffle_accounts.app as a; a.create_app({}); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "puffle_accounts.cli.demo" in ended.stdout.split()
    others = ("puffle_accounts.demo", "puffle_accounts.testing")
    assert not [name for name in ended.stdout.split() if name.startswith(others)]


# What the page names


def names_of(path: Path) -> set[str]:
    """Return what a module defines, as `Class.method`; a function within another by its own."""

    def found(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield prefix + node.name
                yield from found(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                yield f"{prefix}{node.name}()"
                yield from found(node.body, prefix)
            elif isinstance(node, ast.Assign):
                yield from (prefix + t.id for t in node.targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id

    return set(found(ast.parse(path.read_text()).body, ""))


ROOTS = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
NAMED = [
    name
    for name in re.findall(r"`([\w.]+(?:\(\))?)`", PAGE)
    if name.endswith("()")
    or (name.split(".")[0] in ROOTS and not file_of(f"puffle_accounts.{name}"))
    if not (ROOT / name).exists()
]


def test_whatever_the_page_names_exists():
    defined = {
        f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{name}"
        for path in PACKAGE.rglob("*.py")
        for name in names_of(path)
    }
    assert len(NAMED) > 50
    assert [name for name in NAMED if name not in defined] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_every_test_that_the_page_names_exists(name):
    assert f"\ndef {name}(" in TESTS


# What always holds


TIMES = """
SELECT created_at FROM orphans UNION ALL SELECT next_attempt_at FROM orphans
UNION ALL SELECT leased_until FROM idempotency_keys
UNION ALL SELECT finished_at FROM idempotency_keys
UNION ALL SELECT max(created_at) FROM api_keys
UNION ALL SELECT updated_at FROM accounts WHERE id = ?"""


def test_every_time_is_the_databases_or_bound_as_text(live, caplog, monkeypatch):
    """Peewee tells every statement, with its values, to its logger."""
    if isinstance(live.database, Postgres):  # SQLite has no other clock than its machine's
        monkeypatch.setattr(clock, "now", lambda: datetime(2000, 1, 1, tzinfo=timezone.utc))
    live.sandbox.behave("unipile", "fail")
    caplog.set_level(logging.DEBUG, "peewee")
    account_id = live.add_linkedin()
    assert live.delete(account_id, Idempotency_Key="k").status_code == 200
    [orphan] = live.orphans()
    live.make_due()
    for command in ("orphans retry", "orphans list", f"keys create {live.user_id}"):
        live.app.test_cli_runner().invoke(args=command.split())
    bound = [record.msg for record in caplog.records if record.name == "peewee"]
    told = " ".join(statement for statement, _ in bound)
    assert all(f"{table} " in told for table in ("INTO orphans", "INTO idempotency_keys"))
    assert "UPDATE orphans SET attempts" in told
    assert "UPDATE accounts SET status" in told
    assert [
        values for _, values in bound if any(isinstance(v, datetime) for v in values or ())
    ] == []
    assert orphan["created_at"].tzinfo is not None
    written = [time for [time] in live.sql(TIMES, account_id)]
    assert len(written) == 6
    assert not [time for time in written if str(time).startswith(("1999", "2000"))]

"""What `pip install` of this project puts on a machine."""

from __future__ import annotations

import ast
import configparser
import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support import APPLIED, ROOT, Gunicorn, only

NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "bench", "*.db*")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SMARTLEAD = ROOT / "examples" / "puffle-smartlead"
MODULES = {path.name for path in (ROOT / "plugins").glob("*.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel that a clean copy of the tree makes."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "tree", ignore=NOT_SOURCE)
    made = subprocess.run(
        [*PIP, "wheel", "--no-deps", "--wheel-dir", folder / "made", folder / "tree"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    [path] = (folder / "made").iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel; its dependencies are those of this one."""
    return environment(tmp_path_factory.mktemp("venv"), wheel.filename)


@pytest.fixture(scope="module")
def with_smartlead(wheel, tmp_path_factory) -> Path:
    """Another one, with the wheel of a third party's distribution too."""
    folder = tmp_path_factory.mktemp("smartlead")
    shutil.copytree(SMARTLEAD, folder / "tree", ignore=NOT_SOURCE)
    build = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
    subprocess.run([*PIP, *build, folder / "tree"], check=True)
    [made] = folder.glob("*.whl")
    return environment(tmp_path_factory.mktemp("venv"), wheel.filename, made)


def environment(folder: Path, *wheels: Path | str) -> Path:
    """Make a virtual environment with these wheels; return where its programs are."""
    venv.create(folder, with_pip=False)
    here, there = (
        sysconfig.get_path("purelib"),
        sysconfig.get_path("purelib", vars={"base": folder}),
    )
    (Path(there) / "dependencies.pth").write_text(here)
    python = folder / "bin" / "python"
    install = ("install", "--no-deps", "--no-index", *wheels)
    subprocess.run([*PIP, "--python", python, *install], check=True)
    return folder / "bin"


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [each for each in wheel.namelist() if each.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_it_installs_the_package_and_the_plugins_modules_and_nothing_else_at_the_top(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "puffle_accounts",
        *MODULES,
    }
    assert len(MODULES) == 4, "the three plugins, and pytest's"


def test_it_holds_every_file_of_the_package(wheel):
    in_tree = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "puffle_accounts").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_tree == {name for name in wheel.namelist() if name.startswith("puffle_accounts/")}
    assert {
        "puffle_accounts/api/openapi.yaml",
        "puffle_accounts/py.typed",
        "puffle_accounts/database/migrations/0001_initial.py",
    } <= in_tree


def test_it_offers_one_command_and_the_three_plugins(wheel):
    points = configparser.ConfigParser()
    points.read_string(metadata(wheel, "entry_points.txt"))
    assert {section: dict(points[section]) for section in points.sections()} == {
        "console_scripts": {"puffle-accounts": "puffle_accounts.__main__:main"},
        "puffle_accounts": {
            name: f"puffle_{name}" for name in ("unipile", "instantly", "agentmail")
        },
        "pytest11": {"puffle_accounts": "pytest_puffle_accounts"},
    }


def test_its_metadata_tells_the_python_the_extras_and_the_licence(wheel):
    about = email.message_from_string(metadata(wheel, "METADATA"))
    assert (about["Name"], about["Requires-Python"]) == ("puffle-accounts", ">=3.10")
    assert about["License"] == "MIT"
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())
    assert set(about.get_all("Provides-Extra")) == {"postgres", "gevent", "otel", "socks", "test"}
    wanted = about.get_all("Requires-Dist")
    for extra, package in (
        ("postgres", "psycopg"),
        ("gevent", "gevent"),
        ("gevent", "packaging"),
        ("otel", "opentelemetry-api"),
        ("test", "pytest"),
    ):
        assert any(w.startswith(package) and f'extra == "{extra}"' in w for w in wanted)
    always = [w for w in wanted if "extra ==" not in w]
    assert not [w for w in always if w.startswith(("psycopg", "gevent", "pytest", "opentelemetry"))]


def test_every_import_of_the_package_is_a_dependency_of_its_own(wheel):
    """Nothing comes along only because something else happens to need it, but Flask's own."""
    about = email.message_from_string(metadata(wheel, "METADATA"))
    declared = {re.split(r"[>;\[]", w)[0].lower() for w in about.get_all("Requires-Dist")}
    declared |= {"werkzeug", "playhouse"}  # of Flask, of Peewee
    names = {
        "flask_httpauth": "flask-httpauth",
        "opentelemetry": "opentelemetry-api",
        "psycopg_pool": "psycopg-pool",
        "socks": "pysocks",
        "yaml": "pyyaml",
    }
    imported = set()
    for name in wheel.namelist():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(wheel.read(name))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module)
    roots = {module.split(".")[0] for module in imported} - set(sys.stdlib_module_names)
    assert {names.get(root, root) for root in roots} - {"puffle_accounts"} <= declared


def test_the_installed_command_works_from_another_folder(elsewhere, tmp_path):
    def run(*arguments: str) -> str:
        ended = subprocess.run(
            [elsewhere / "puffle-accounts", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    lines = run("plugins").splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["agentmail", "instantly", "unipile"]
    assert {line.split()[-1] for line in lines} == {"ok"}
    assert run("db", "upgrade") == APPLIED
    assert (tmp_path / "puffle-accounts.db").exists(), "the default of DATABASE_URL"
    assert run("keys", "create", "6c7e1c8e-8c6b-4f0e-9a53-3b1f5d0c6d0a").startswith("pk_live_")


def test_an_editable_install_is_two_folders_which_type_checkers_find(tmp_path):
    """As the one that these tests run in is; an import hook is followed by Python alone."""
    show = "import sys; print(*sys.path, *map(type, sys.meta_path), sep='\\n')"
    shown = subprocess.run(
        [sys.executable, "-c", show], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {str(ROOT), str(ROOT / "plugins")} <= set(shown)
    assert not [line for line in shown if "__editable__" in line]


def test_what_is_installed_is_the_wheel_and_not_the_tree(elsewhere, tmp_path):
    where = subprocess.run(
        [elsewhere / "python", "-c", "import puffle_accounts as p; print(p.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(elsewhere.parent))


#: No root, no capability, and a root file system that is read-only, the tests' files included; in
#: place of what a container's runtime makes of the image.
SEAL = """#!/bin/sh
exec unshare --mount --propagation private sh -c '
    mount --bind {files} {files} || exit 99
    for each in / {files}; do
        mount -o remount,bind,ro $each && ! touch $each/probe 2>/dev/null || exit 99
    done
    exec unshare --map-user=10001 --map-group=10001 {python} "$@"' sealed "$@"
"""


@pytest.fixture
def sealed(elsewhere, tmp_path, tmp_path_factory, postgres) -> Path:
    """The python of the virtual environment, in surroundings like those of the image."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("it needs root, and unshare of util-linux")
    [folder] = parse_qs(urlsplit(postgres).query)["host"]
    Path(folder).chmod(0o711)  # to whoever may know its name, as a socket's folder is
    script = tmp_path / "sealed"
    files = tmp_path_factory.getbasetemp()
    script.write_text(SEAL.format(files=files, python=elsewhere / "python"))
    script.chmod(0o755)
    return script


@only("postgresql")
def test_the_wheel_alone_is_served_as_the_image_does_it(sealed, stack, tmp_path):
    """The Dockerfile's command in an empty folder, not as root, with nothing to write to."""
    told = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    commands = [json.loads(words) for words in re.findall(r"CMD (\[.*\])", told)]
    check, (_, serve, *options) = commands
    options[options.index("--bind") + 1] = "127.0.0.1:0"
    folder = tmp_path / "empty"
    folder.mkdir()
    account = stack.add_linkedin()
    log = tmp_path / "gunicorn.log"
    program = ("puffle_accounts", serve)
    server = Gunicorn(
        *(stack, log, *options),
        python=sealed,
        folder=folder,
        app="puffle_accounts.wsgi:app",
        program=program,
    )
    try:
        answer = server.wait_until_ready() and stack.delete(account)
        healthy = subprocess.run(
            [sealed, "-m", "puffle_accounts", *check[1:]], env=stack.process_environ(), cwd=folder
        )
    finally:
        if server.process.poll() is None:
            server.kill()
    assert (answer.status_code, answer.content) == (200, b'{"success": true}')
    assert answer.headers["Teardown-Status"] == "complete"
    assert stack.row(account)["status"] == "disconnected"
    assert "Using worker: gevent" in [line["event"] for line in server.lines()], "our settings"
    assert healthy.returncode == 0
    assert list(folder.iterdir()) == []


# A third party's distribution


def test_a_third_partys_tests_and_types_pass_where_both_are_installed(with_smartlead, tmp_path):
    test = shutil.copy(SMARTLEAD / "test_puffle_smartlead.py", tmp_path)
    python, here = with_smartlead / "python", {"cwd": tmp_path, "capture_output": True}
    tested = subprocess.run([python, "-m", "pytest", "-q", test], text=True, **here)
    assert tested.returncode == 0, tested.stdout
    # `make lint` takes its test too, which costs three times as much for what pytest brings.
    strict = ("--strict", "--python-executable", python, SMARTLEAD / "puffle_smartlead.py")
    typed = subprocess.run([sys.executable, "-m", "mypy", *strict], text=True, **here)
    assert typed.returncode == 0, typed.stdout


@only("sqlite")
def test_a_third_partys_plugin_is_listed_checked_called_and_retried(
    with_smartlead, stack, tmp_path, fake_provider
):
    settings = {"SMARTLEAD_API_KEY": "any", "SMARTLEAD_BASE_URL": fake_provider.url}

    def command(*arguments: str) -> str:
        ended = subprocess.run(
            [with_smartlead / "puffle-accounts", *arguments],
            env=stack.process_environ(**settings),
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    assert re.search(
        r"^smartlead +puffle-smartlead 1\.0 +teardown_account, check_provider, find_resources"
        r" +metadata\.smartlead_email_account_id +ok$",
        command("plugins"),
        re.MULTILINE,
    )
    fake_provider.answer(200, [])
    assert "provider smartlead: credentials accepted" in command("check")
    server = Gunicorn(
        *(stack, tmp_path / "gunicorn.log", "--config", "python:puffle_accounts.serving"),
        python=with_smartlead / "python",
        folder=tmp_path,
        app="puffle_accounts.wsgi:app",
        **settings,
    )
    fake_provider.forget().answer(503).answer(200, {"ok": True})
    try:
        server.wait_until_ready()
        ended = stack.add_email(metadata={"smartlead_email_account_id": 123})
        others = stack.add_linkedin(metadata={"smartlead_email_account_id": 124})
        assert stack.delete(others).headers["Teardown-Status"] == "complete"
        assert stack.delete(ended).headers["Teardown-Status"] == "partial"
    finally:
        server.kill()
    assert [orphan["plugin"] for orphan in stack.orphans()] == ["smartlead"]
    command("orphans", "retry")
    assert stack.orphans() == []
    assert [sent.path for sent in fake_provider.requests] == ["/email-accounts/123?api_key=any"] * 2

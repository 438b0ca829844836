"""The environment: defaults, white space, and values that cannot be used."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest
from support import only, run, wait_until

from puffle_accounts import database
from puffle_accounts.app import create_app
from puffle_accounts.config import Config
from puffle_accounts.errors import ConfigError

REFUSED = {
    "DATABASE_URL": [
        "mysql://u:hunter2@h/db",
        "hunter2",
        "//hunter2",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "sqlite:///a#b.db",
        "sqlite://relative-hunter2.db",
        "postgresql+psycopg://u:hunter2@h/db",
        "postgresql://u:hunter2@[h/db",
        "postgresql://u:hunter2@h:port/db",
        "postgresql://u:hunter2@h:543200/db",
        "postgresql://u:hun@ter2@h/db",
        "postgresql://u:hun/ter2@h/db",
        "postgresql://u:hun?ter2@h/db",
        "postgresql://u:hun#ter2@h/db",
        "postgresql://u:hun%ter2@h/db",
        "postgresql://u:hunter2@h/db?no_such_option=1",
        "postgresql://u:hunter2@h:99999/db",
        "postgresql://u:hunter2@h:0/db",
        "postgresql://u:hunter2@h,i/db?port=5432,99999",
        "postgresql://u:hunter2@h/db?sslmode=bogus",
        "postgresql://u:hunter2@h/db?target_session_attrs=master",
        "postgresql://u:hunter2@h/db?connect_timeout=soon",
        "postgresql://u@h/db?password=a&hunter2=b",
        "sqlite:////no/such/folder/x.db",
    ],
    "PUFFLE_TEARDOWN_TIMEOUT": ["abc", "0", "-1", "nan", "inf", "-inf", "1e9", "10s", "1,5"],
    "PUFFLE_PLUGIN_CALLS": ["abc", "0", "-1", "1.5", "inf", "1e3", "9" * 20, "٣"],
    "PUFFLE_LOG_FORMAT": ["xml", "JSON", "json,text"],
    "UNIPILE_DSN": ["https://api8.unipile.com:13851", "api8.unipile.com/x", "h:port", "a b", "u@h"],
    **{
        f"{provider}_API_KEY": ["hun\nter2", "hun\rter2", "hun ter2", "hun\tter2", "hünter2"]
        for provider in ("UNIPILE", "INSTANTLY", "AGENTMAIL")
    },
    **{
        f"{provider}_BASE_URL": [
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https://u:hunter2@api.example.com",
            "https://api.example.com?key=hunter2",
            "https://api.example.com/#hunter2",
            "https://api.example.com:port",
            "https://api.example.com:0",
            "https://api.example\n.com",
        ]
        for provider in ("UNIPILE", "INSTANTLY", "AGENTMAIL")
    },
}
REMEDIES = {
    "DATABASE_URL": ("sqlite:///", "postgresql://", "PostgreSQL", "create it for SQLite"),
    "PUFFLE_TEARDOWN_TIMEOUT": ("number of seconds",),
    "PUFFLE_PLUGIN_CALLS": ("whole number",),
    "PUFFLE_LOG_FORMAT": ("text or json",),
    "UNIPILE_DSN": ("such as api8.unipile.com:13851",),
    "API_KEY": ("copy the key again",),
    "BASE_URL": ("https://api.example.com/v1",),
}


def test_without_any_variable_the_defaults_of_the_contract_hold():
    assert Config.from_environ({}) == Config(
        database_url="sqlite:///puffle-accounts.db",
        teardown_timeout=10,
        plugin_calls=512,
        disabled_plugins=frozenset(),
        log_format="json",
    )


@pytest.mark.parametrize("blank", ["", " ", "\n", " \t\r\n"])
def test_a_blank_value_is_no_value(blank):
    assert Config.from_environ(dict.fromkeys(REFUSED, blank)) == Config.from_environ({})


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "meant"),
    [
        ("DATABASE_URL", "sqlite:////var/lib/a.db", "database_url", "sqlite:////var/lib/a.db"),
        ("DATABASE_URL", "postgresql://h/db", "database_url", "postgresql://h/db"),
        ("DATABASE_URL", "postgres://h/db", "database_url", "postgresql://h/db"),
        ("PUFFLE_TEARDOWN_TIMEOUT", "2.5", "teardown_timeout", 2.5),
        ("PUFFLE_TEARDOWN_TIMEOUT", "3600", "teardown_timeout", 3600),
        ("PUFFLE_PLUGIN_CALLS", "1", "plugin_calls", 1),
        ("PUFFLE_DISABLED_PLUGINS", "unipile", "disabled_plugins", {"unipile"}),
        ("PUFFLE_DISABLED_PLUGINS", " a , ,b,", "disabled_plugins", {"a", "b"}),
        ("PUFFLE_LOG_FORMAT", "text", "log_format", "text"),
        ("PUFFLE_LOG_FORMAT", "json", "log_format", "json"),
    ],
)
def test_a_usable_value_is_taken_without_the_white_space_around_it(
    variable, value, attribute, meant
):
    assert getattr(Config.from_environ({variable: f" \t{value}\r\n"}), attribute) == meant


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///name",
        "postgresql://",
        "postgresql://u:p%40ss%2Fw%25rd@h:5432/name?sslmode=require&connect_timeout=2",
        "postgresql://h1:5432,h2:5433/name?target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/name",
        "postgresql://u@%2Fvar%2Frun%2Fpostgresql/name",
        "postgresql://u:@/name?host=/var/run/postgresql",
    ],
)
def test_every_form_of_url_that_libpq_knows_is_taken(url):
    assert create_app({"DATABASE_URL": url})


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_an_unusable_value_is_refused_by_the_variables_name_and_a_remedy(variable, value):
    with pytest.raises(ConfigError) as refused:
        create_app({"DATABASE_URL": "sqlite:///unused.db", variable: value})
    said = str(refused.value)
    assert variable in said
    assert any(
        remedy in said
        for name, remedies in REMEDIES.items()
        for remedy in remedies
        if variable.endswith(name)
    )
    assert said.isprintable(), "one line"
    assert "hunter2" not in said
    assert "ter2" not in said


@pytest.mark.parametrize(
    ("parameter", "part"),
    [
        ("pgbouncer=true", "parameter pgbouncer"),
        ("sslmode=bogus", 'sslmode value: "bogus"'),
        ("connect_timeout=soon", "parameter connect_timeout"),
    ],
)
def test_the_part_of_the_url_that_cannot_work_is_named(parameter, part):
    with pytest.raises(ConfigError, match=part):
        create_app({"DATABASE_URL": f"postgresql://u:hunter2@h/db?{parameter}"})


def test_of_several_hosts_the_one_that_takes_writes_is_meant_unless_the_url_says_otherwise():
    def asked(url):
        return database.connect(url)._params.get("target_session_attrs")

    assert asked("postgresql://a,b/db") == "read-write"
    assert asked("postgresql://a/db") is None
    assert asked("postgresql://a,b/db?target_session_attrs=any") is None


def test_a_folder_that_may_not_be_written_stops_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match=rf"write into the folder {tmp_path}"):
        create_app({"DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}"})


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
@only("sqlite")
def test_a_database_that_may_come_later_is_said_once_and_stops_nothing(stack, gunicorn, host):
    server = gunicorn("--workers", "2", DATABASE_URL=f"postgresql://u:hunter2@{host}/db")
    said = wait_until(
        lambda: [line for line in server.lines() if line["event"] == "database.unavailable"]
    )
    time.sleep(0.5)
    assert len(said) == 1
    assert host.partition(":")[0] in said[0]["reason"]
    assert "hunter2" not in server.log.read_text()


DOORS = {
    "command": ("puffle_accounts", "check"),
    "flask": ("flask", "--app", "wsgi", "check"),
    "gunicorn": ("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "wsgi:app"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "postgresql://u:hunter2@[h/db"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:99999/db"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/db?pgbouncer=true"),
        ("DATABASE_URL", "sqlite:////no/such/folder/x.db"),
        ("PUFFLE_TEARDOWN_TIMEOUT", "abc"),
        ("INSTANTLY_API_KEY", "hun\nter2"),
    ],
)
def test_every_start_ends_with_exactly_one_line_about_an_unusable_value(door, variable, value):
    ended = run(*DOORS[door], **{variable: value})
    assert ended.returncode == 4
    [line] = (ended.stdout + ended.stderr).splitlines()
    assert variable in line
    assert "ter2" not in line


@pytest.mark.parametrize("door", DOORS)
def test_postgresql_without_its_driver_is_one_line_that_says_what_to_install(door, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['psycopg'] = None")
    ended = run(*DOORS[door], DATABASE_URL="postgresql://h/db", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 4
    [line] = (ended.stdout + ended.stderr).splitlines()
    assert "DATABASE_URL" in line
    assert "pip install '.[postgres]'" in line


def test_the_providers_own_hosts_are_asked_where_no_base_url_is_set(tmp_path):
    """What a proxy is asked to connect to, since the hosts themselves are out of reach."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def listen():
            with suppress(OSError):  # nobody asks any more
                for _ in range(3):
                    connection, _ = proxy.accept()
                    with connection:
                        asked.append(connection.recv(1000).split()[1].decode())

        threading.Thread(target=listen, daemon=True).start()
        run(
            *("puffle_accounts", "check"),
            DATABASE_URL=f"sqlite:///{tmp_path / 'x.db'}",
            https_proxy=f"http://127.0.0.1:{proxy.getsockname()[1]}",
            UNIPILE_DSN="api8.unipile.com:13851",
            **{f"{name}_API_KEY": "k" for name in ("UNIPILE", "INSTANTLY", "AGENTMAIL")},
        )
    assert sorted(asked) == [
        "api.agentmail.to:443",
        "api.instantly.ai:443",
        "api8.unipile.com:13851",
    ]


@only("sqlite")
def test_all_values_may_have_white_space_around_them_and_the_service_works(stack):
    padded = {name: f" {value}\n" for name, value in stack.environ.items()}
    checked = stack.command("check", **padded)
    assert (checked.returncode, checked.stdout.count("credentials accepted")) == (0, 3)


@only("sqlite")
def test_a_missing_key_is_a_warning_and_its_orphans_are_made_good_once_it_is_there(stack, gunicorn):
    server = gunicorn(UNIPILE_API_KEY=" ")
    account = stack.add_linkedin()
    assert stack.delete(account).headers["Teardown-Status"] == "partial"
    assert stack.row(account)["status"] == "disconnected"
    [warning] = [line for line in server.lines() if line["event"] == "provider.unconfigured"]
    assert (warning["level"], warning["missing"]) == ("warning", "UNIPILE_API_KEY")
    [orphan] = stack.orphans()
    assert orphan["parked_at"], "permanent: it waits for a person"
    assert "UNIPILE_API_KEY is not set" in orphan["reason"]
    assert stack.command("orphans", "retry").returncode == 0
    assert stack.orphans() == [orphan], "what is parked is not tried by itself"
    assert stack.command("orphans", "retry", "--parked").returncode == 0
    assert (stack.orphans(), stack.sandbox.resources["unipile"]) == ([], set())

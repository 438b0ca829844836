"""The environment: defaults, white space, and values that cannot be used."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from types import ModuleType

import pytest
from gunicorn import config as gunicorn_config
from gunicorn.http import message
from support import ROOT, only, run, run_forked, wait_until

from puffle_accounts import database, text
from puffle_accounts.app import create_app
from puffle_accounts.config import Config
from puffle_accounts.environment import unknown
from puffle_accounts.errors import ConfigError
from puffle_accounts.processes import inherited, master
from puffle_accounts.upstream import Upstream

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
    server = gunicorn(
        *("--worker-class", "gevent", "--workers", "2"),
        DATABASE_URL=f"postgresql://u:hunter2@{host}/db",
    )
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
        ("INSTANTLY_API_KEY_FILE", "/hunter2"),
    ],
)
def test_every_start_ends_with_exactly_one_line_about_an_unusable_value(door, variable, value):
    ended = run_forked(*DOORS[door], **{variable: value})
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


# Files


UNREADABLE = {
    "is not there": lambda path: None,
    "is a folder": lambda path: path.mkdir(),
    "is empty": lambda path: path.write_text(" \n"),
    "is no text": lambda path: path.write_bytes(b"hunter2\xff"),
    "has a NUL": lambda path: path.write_bytes(b"hunter2\0"),
    "has one in its way": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "meant"),
    [
        ("DATABASE_URL", "postgresql://u:p%40@h/db", "database_url", "postgresql://u:p%40@h/db"),
        ("PUFFLE_TEARDOWN_TIMEOUT", "2.5", "teardown_timeout", 2.5),
        ("PUFFLE_PLUGIN_CALLS", "7", "plugin_calls", 7),
        ("PUFFLE_DISABLED_PLUGINS", "unipile", "disabled_plugins", {"unipile"}),
        ("PUFFLE_LOG_FORMAT", "text", "log_format", "text"),
    ],
)
@pytest.mark.parametrize("around", ["{}", " \t{}\r\n", "\ufeff{}\n"])
def test_a_file_may_hold_the_value(tmp_path, variable, value, attribute, meant, around):
    file = tmp_path / "value"
    file.write_text(around.format(value), encoding="utf-8")
    environ = {f"{variable}_FILE": f" {file} ", variable: " "}
    assert getattr(Config.from_environ(environ), attribute) == meant


def test_every_variable_of_a_plugin_may_be_in_a_file_and_the_key_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_values", set())
    monkeypatch.setattr(text, "_secrets", text._secrets)
    crm = Upstream(
        "CRM",
        key_variable="CRM_API_KEY",
        base_url_variable="CRM_URL",
        base_url="https://{CRM_HOST}/v1",
        authenticate=lambda key: keys.append(key) or {},
        code="code",
        is_gone=bool,
    )
    keys, environ = [], {}
    for name, value in {"CRM_API_KEY": "k-0123456789", "CRM_HOST": "crm.example"}.items():
        (tmp_path / name).write_text(f"{value}\n")
        environ[f"{name}_FILE"] = str(tmp_path / name)
    crm.configure(environ)
    assert (crm.missing, keys) == (None, ["k-0123456789"])
    assert text.scrub("the key k-0123456789") == "the key ***"


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "PUFFLE_LOG_FORMAT", "UNIPILE_API_KEY"])
def test_a_file_that_cannot_be_read_is_one_line_with_the_variable(tmp_path, variable, what):
    UNREADABLE[what](tmp_path / "hunter2")
    with pytest.raises(ConfigError, match=rf"^{variable}_FILE names a file that .") as refused:
        create_app({f"{variable}_FILE": str(tmp_path / "hunter2")})
    assert str(refused.value).isprintable()
    assert "hunter2" not in str(refused.value), "neither what it holds nor what may be the value"


@pytest.mark.parametrize("variable", ["DATABASE_URL", "PUFFLE_TEARDOWN_TIMEOUT", "UNIPILE_DSN"])
def test_a_value_and_a_file_at_once_are_refused(tmp_path, variable):
    (tmp_path / "value").write_text("1")
    with pytest.raises(ConfigError, match=f"^{variable} and {variable}_FILE are both set"):
        create_app({variable: "1", f"{variable}_FILE": str(tmp_path / "value")})


def test_files_that_others_read_are_none_of_ours(tmp_path):
    others = {"SSL_CERT_FILE": "/nowhere", "POSTGRES_PASSWORD_FILE": "/nowhere", "KEY_FILE": "/x"}
    assert create_app({"DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}", **others})


@only("sqlite")
def test_everything_may_be_in_files_and_a_start_is_one_line_that_says_what_it_is(
    stack, gunicorn, tmp_path
):
    files = {}
    for name, value in stack.environ.items():
        (tmp_path / name).write_text(f"{value}\n")
        files |= {name: "", f"{name}_FILE": str(tmp_path / name)}
    server = gunicorn("--workers", "2", "--worker-class", "gthread", "--threads", "8", **files)
    assert stack.delete(stack.add_email()).headers["Teardown-Status"] == "complete"
    checked = stack.command("check", **files)
    assert (checked.returncode, checked.stdout.count("credentials accepted")) == (0, 3)
    server.stop()
    [started] = [line for line in server.lines() if line["event"] == "service.started"]
    assert (started["level"], started["version"]) == ("info", version("puffle-accounts"))
    assert started["database"] == stack.database_url
    assert started["plugins"] == ["agentmail", "instantly", "unipile"]
    assert started["worker_class"] == "gthread"
    assert [line for line in server.lines() if line["level"] == "warning"] == []


# What a start says


def test_a_variable_that_looks_like_ours_and_is_read_by_nobody_is_warned_of(events, tmp_path):
    (tmp_path / "x").write_text("7")
    create_app(
        {
            "DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}",
            "PUFFLE_PLUGIN_CALLS_FILE": str(tmp_path / "x"),
            "PUFFLE_TEARDOWN_TIMOUT": "hunter2",
            "PUFFLE_COLOUR": "hunter2",
            "PUFFLE_ACCOUNTS_SERVICE_HOST": "10.0.0.1",  # as Kubernetes tells of a service
            "PUFFLE_ACCOUNTS_SERVICE_PORT": "8000",
            "PUFFLE_ACCOUNTS_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        }
    )
    warned = {f["variable"]: f["reason"] for event, f in events() if event == "variable.unknown"}
    assert warned == {
        "PUFFLE_TEARDOWN_TIMOUT": "nobody reads it; did you mean PUFFLE_TEARDOWN_TIMEOUT?",
        "PUFFLE_COLOUR": "nobody reads it",
    }


def test_a_plugins_own_variable_is_known():
    assert unknown({"PUFFLE_CRM_API_KEY": "", "PUFFLE_CRM_URL_FILE": ""}, ["PUFFLE_CRM_URL"]) == {
        "PUFFLE_CRM_API_KEY": "nobody reads it"
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////srv/a@b.db", "sqlite:////srv/a@b.db"),
        ("postgresql://u:hunter2@h:5432,i/db?password=hunter2", "postgresql://h:5432,i/db"),
        ("postgresql:///db", "postgresql:///db"),
    ],
)
def test_the_database_is_shown_without_its_password(url, shown):
    assert Config(database_url=url).database == shown


@only("sqlite")
def test_a_start_warns_of_what_is_not_fit_for_production(stack, gunicorn, tmp_path):
    server = gunicorn(
        *("--worker-class", "sync", "--threads", "1", "--chdir", str(tmp_path)),
        *("--pythonpath", str(ROOT)),
        DATABASE_URL="",
    )
    server.stop()
    warned = {line["event"] for line in server.lines() if line["level"] == "warning"}
    assert {"service.one_at_a_time", "database.embedded"} <= warned


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        ("--worker-class sync --threads 1", 1),
        ("--worker-class sync --threads 2", 2),
        ("--worker-class gthread --threads 1", 1),
        ("--worker-class gevent --threads 1", 1000),
        ("--worker-class gevent --worker-connections 1", 1),
    ],
)
def test_how_many_requests_a_worker_serves_at_a_time(arguments, most):
    assert master.at_a_time(settings_of(arguments)) == most


def settings_of(arguments: str) -> gunicorn_config.Config:
    """Return what gunicorn makes of its command line."""
    settings = gunicorn_config.Config()
    for name, value in vars(settings.parser().parse_args(arguments.split())).items():
        if value is not None and name in settings.settings:
            settings.set(name, value)
    return settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("WEB_CONCURRENCY", each) for each in ("abc", "2.5", "-1", "0", "\uff12", "1e3", "9999")),
        *(("LISTEN_FDS", "abc"), ("LISTEN_PID", "-1")),
        *(("GUNICORN_PID", "abc"), ("GUNICORN_PID", "77")),
        *(("GUNICORN_CMD_ARGS", each) for each in ("--workers x", '--bind "', "--nope")),
        ("FORWARDED_ALLOW_IPS", "abc"),
    ],
)
def test_what_gunicorn_reads_before_any_setting_is_looked_at(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as refused:
        inherited.look(os.environ)
    assert "\n" not in str(refused.value)


def test_what_gunicorn_reads_before_any_setting_may_be_blank_or_right(monkeypatch):
    blank = ("WEB_CONCURRENCY", *inherited.NUMBERS)
    for name in blank:
        monkeypatch.setenv(name, " ")
    inherited.look(os.environ)
    assert not [name for name in blank if name in os.environ]
    monkeypatch.setenv("WEB_CONCURRENCY", str(inherited.MOST_WORKERS))
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--bind 127.0.0.1:0 --help")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    for name in (*inherited.NUMBERS, "GUNICORN_FD"):
        monkeypatch.setenv(name, "5")
    inherited.look(os.environ)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        *((f"--bind 127.0.0.1:{port}", "--bind or PORT") for port in ("-1", "65536", "abc")),
        ("--bind fd://abc", "--bind or PORT"),
        *((f"--worker-class {name}", name) for name in ("nope", "no.module.Nope", "os.Nope")),
        *(("--workers 0", "--workers"), ("--workers 1001", "--workers")),
        *(("--worker-class gthread --threads 0", "--threads"), ("--threads 0", None)),
        ("--worker-class gevent --worker-connections 0", "--worker-connections"),
        *(("--worker-tmp-dir /no/such", "--worker-tmp-dir"), ("--worker-tmp-dir /tmp", None)),
    ],
)
def test_settings_that_gunicorn_would_stumble_over_are_one_line(capsys, arguments, named):
    if named is None:
        return master.look(settings_of(arguments))
    with pytest.raises(SystemExit) as ended:
        master.look(settings_of(arguments))
    [line] = capsys.readouterr().err.splitlines()
    assert named in line
    assert ended.value.code == 4


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        ("puffle_accounts serve", {"WEB_CONCURRENCY": "abc"}),
        ("puffle_accounts demo", {"WEB_CONCURRENCY": "abc"}),
        ("flask --app wsgi serve", {"WEB_CONCURRENCY": "abc"}),
        ("gunicorn wsgi:app", {"WEB_CONCURRENCY": "99999999"}),
        ("gunicorn wsgi:app", {"PORT": "-1"}),
        ("gunicorn wsgi:app", {"LISTEN_FDS": "abc"}),
        ("gunicorn --worker-class nope", {}),
    ],
)
def test_a_start_that_gunicorn_would_stumble_over_ends_with_one_line(words, environ):
    quiet = {"PUFFLE_DISABLED_PLUGINS": "agentmail,instantly,unipile"}
    ended = run_forked(*words.split(), **environ, **quiet)
    said = (ended.stdout + ended.stderr).splitlines()
    [line] = [each for each in said if "Starting gunicorn" not in each]
    assert all(name in line for name in environ)
    assert ended.returncode == 4


def test_what_gunicorn_cannot_open_is_one_line_too():
    ended = run("gunicorn", "--bind", "fd://99")
    [line] = [each for each in ended.stderr.splitlines() if "Starting gunicorn" not in each]
    assert "Bad file descriptor" in line
    assert ended.returncode == 1


@pytest.mark.parametrize("environ", [{}, {"DATABASE_URL": "nonsense"}])
def test_the_version_is_shown_whatever_the_configuration(environ):
    asked = run("puffle_accounts", "--version", **environ)
    assert (asked.returncode, asked.stdout) == (0, version("puffle-accounts") + "\n")


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
        run_forked(
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


def test_what_parses_requests_does_not_depend_on_what_is_installed(monkeypatch):
    from puffle_accounts import serving

    stray = ModuleType("gunicorn_h1c")
    vars(stray)["LimitRequestLine"] = ValueError  # by which gunicorn knows that it will do
    monkeypatch.setitem(sys.modules, "gunicorn_h1c", stray)
    monkeypatch.setattr(message, "_fast_parser_available", None)
    monkeypatch.setattr(message, "_fast_parser_module", None)
    settings = gunicorn_config.Config()
    assert message._check_fast_parser(settings)
    settings.set("http_parser", serving.http_parser)
    assert not message._check_fast_parser(settings)

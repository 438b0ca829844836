"""The files of deploy/: well-formed, and in agreement with each other and with the service."""

from __future__ import annotations

import configparser
import itertools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from documents import documents
from gunicorn.config import Config as GunicornConfig
from support import ROOT

from puffle_accounts.cli import COMMANDS
from puffle_accounts.config import GRACE, Config

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVED = {"puffle-accounts.service", "puffle-accounts-retry.service"}
MANIFESTS = [
    (path.name, document)
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in documents(path)
]
[COMPOSE] = documents(DEPLOY / "compose.yaml")
CHECK = ["puffle-accounts", "check", "--local"]
#: What a deployment has to be told.
SECRETS = {
    f"{name}_FILE"
    for name in (
        *("DATABASE_URL", "UNIPILE_DSN"),
        *(f"{provider}_API_KEY" for provider in ("UNIPILE", "INSTANTLY", "AGENTMAIL")),
    )
}
GRACEFUL = Config.teardown_timeout + GRACE  # seconds

each_manifest = pytest.mark.parametrize(
    "manifest",
    [m for _, m in MANIFESTS],
    ids=[f"{n}-{m['metadata']['name']}" for n, m in MANIFESTS],
)


def manifests(*kinds: str) -> Iterator[dict]:
    return (document for _, document in MANIFESTS if document["kind"] in kinds)


def pods() -> dict[str, dict]:
    """Return what runs, by its name."""
    return {m["metadata"]["name"]: m["spec"]["template"] for m in manifests("Deployment", "Job")}


def settings(unit: str, key: str) -> list[str]:
    text = (DEPLOY / "systemd" / unit).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def instructions() -> dict[str, list[str]]:
    """Return the Dockerfile's instructions by their names."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for name, rest in re.findall(r"^([A-Z]+) +(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(" ".join(rest.split()))
    return found


# Kubernetes


@each_manifest
def test_a_manifest_is_what_its_schema_asks_for(manifest):
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    validator.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("name", pods())
def test_a_pod_is_not_root_writes_nothing_and_may_do_nothing(name):
    spec = pods()[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_file_that_a_pod_is_told_of_is_a_key_of_its_secret():
    held = {m["metadata"]["name"]: set(m["stringData"]) for m in manifests("Secret")}
    for pod in pods().values():
        [container], [volume] = pod["spec"]["containers"], pod["spec"]["volumes"]
        [mount] = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        files = {e["name"]: e["value"] for e in container["env"] if e["name"].endswith("_FILE")}
        keys = {path.removeprefix(f"{mount['mountPath']}/") for path in files.values()}
        assert keys == held[volume["secret"]["secretName"]]
        assert files.keys() in (SECRETS, {"DATABASE_URL_FILE"})


def test_whatever_selects_pods_finds_some():
    labels = [pod["metadata"]["labels"] for pod in pods().values()]
    selectors = [m["spec"]["selector"] for m in manifests("Service")]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in manifests("NetworkPolicy")]
    selectors += [
        m["spec"]["selector"]["matchLabels"] for m in manifests("Deployment", "PodDisruptionBudget")
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert any(selector.items() <= each.items() for each in labels), selector


def test_probes_ask_no_provider_and_end_no_instance_for_a_database_that_is_away():
    [container] = pods()["puffle-accounts"]["spec"]["containers"]
    for probe in (container["startupProbe"], container["readinessProbe"]):
        assert probe["exec"]["command"] == CHECK
        assert probe["timeoutSeconds"] > 5, "the default, 1 s, is less than a start of Python takes"
    assert container["livenessProbe"]["tcpSocket"] == {"port": "http"}


def test_an_instance_is_given_the_time_to_end_what_is_under_way():
    spec = pods()["puffle-accounts"]["spec"]
    [container] = spec["containers"]
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert spec["terminationGracePeriodSeconds"] > int(pause) + GRACEFUL
    assert pods()["puffle-accounts-retry"]["spec"]["terminationGracePeriodSeconds"] > GRACEFUL
    for unit in SERVED:
        assert int(settings(unit, "TimeoutStopSec")[0]) > GRACEFUL
    for name in ("service", "retry"):
        assert int(COMPOSE["services"][name]["stop_grace_period"].rstrip("s")) > GRACEFUL


# compose


def test_every_secret_of_compose_is_defined_and_read():
    ours = [s for s in COMPOSE["services"].values() if s["image"].startswith("puffle-accounts")]
    assert len(ours) == 3
    for service in ours:
        assert service["environment"].keys() == SECRETS
        paths = {value.removeprefix("/run/secrets/") for value in service["environment"].values()}
        assert paths == set(service["secrets"]) < set(COMPOSE["secrets"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_nothing_of_compose_serves_before_the_tables_are_there():
    for name in ("service", "retry"):
        waits = COMPOSE["services"][name]["depends_on"]
        assert waits == {"migrate": {"condition": "service_completed_successfully"}}


# systemd


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: it is systemd's"
)
def test_systemd_has_nothing_to_say_against_the_units(tmp_path):
    for unit in UNITS:
        text = re.sub(r"/opt/puffle-accounts/bin/\S+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", sorted({*SERVED, "puffle-accounts-migrate.service"}))
def test_a_unit_is_told_of_the_credentials_that_it_is_given(unit):
    given = {line.split(":")[0] for line in settings(unit, "LoadCredential")}
    told = dict(line.split("=", 1) for line in settings(unit, "Environment"))
    assert {path.removeprefix("%d/") for path in told.values()} == given
    assert told.keys() == (SECRETS if unit in SERVED else {"DATABASE_URL_FILE"})
    assert settings(unit, "DynamicUser") == ["yes"]


# All of them


def commands() -> list[list[str]]:
    """Return every call of puffle-accounts in deploy/."""
    found = [
        *(c for m in pods().values() for c in [m["spec"]["containers"][0].get("args")] if c),
        *(s["command"] for s in COMPOSE["services"].values() if "command" in s),
        *(shlex.split(line) for unit in UNITS for line in settings(unit.name, "ExecStart")),
        *(yaml.safe_load(command) for command in instructions()["CMD"]),
        CHECK,
    ]
    return [words[1:] for words in found if Path(words[0]).name == "puffle-accounts"]


def test_every_command_exists_with_its_options():
    assert len(commands()) == 9
    for words in commands():
        path = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
        if path == ["serve"]:
            GunicornConfig().parser().parse_args(words[1:])  # gunicorn's
            continue
        ended = CliRunner().invoke(click.Group(commands=COMMANDS), [*path, "--help"])
        assert ended.exit_code == 0, (words, ended.output)
        assert all(word in ended.output for word in words if word.startswith("--"))


def test_the_image_serves_as_the_units_and_the_pages_do():
    told = instructions()
    assert told["USER"] == ["10001:10001"]
    assert told["HEALTHCHECK"][0].endswith('CMD ["puffle-accounts", "check", "--local"]')
    [command] = [yaml.safe_load(each) for each in told["CMD"]]
    [unit] = settings("puffle-accounts.service", "ExecStart")
    bind, options = command[2:4], command[4:]
    assert bind == ["--bind", "0.0.0.0:8000"]
    assert options == ["--worker-tmp-dir", "/dev/shm"]
    assert command[:2] == [Path(unit.split()[0]).name, *unit.split()[1:]]


def test_the_version_that_is_named_is_this_one():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = "".join(path.read_text() for path in DEPLOY.rglob("*.yaml"))
    named = set(re.findall(r"puffle-accounts:(\d[\w.]*)", text))
    assert named == {setup["metadata"]["version"]}

"""What the image is made of: deploy/requirements.lock."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT

LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
ENTRIES = re.findall(r"^(\S[^\\\n]*?) *\\\n((?:    --hash=\S+(?: \\)?\n)+)", LOCK, re.MULTILINE)
LOCKED = [Requirement(line) for line, _ in ENTRIES]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = re.search(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE)[1].split(",")
MACHINES = [
    {
        "python_full_version": f"{python}.1",
        "python_version": python,
        "platform_machine": machine,
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python in ("3.10", "3.11", "3.12", "3.13", "3.14")
    for machine in ("x86_64", "aarch64")
]


def wanted() -> list[Requirement]:
    """Return what setup.cfg asks for, with the image's extras."""
    lines = SETUP["options"]["install_requires"]
    lines += "".join(SETUP["options.extras_require"][extra] for extra in EXTRAS)
    return [Requirement(line) for line in lines.split("\n") if line]


def versions(machine: dict[str, str]) -> dict[str, str]:
    """Return the version of each distribution that the lock gives a machine."""
    applied = [each for each in LOCKED if not each.marker or each.marker.evaluate(machine)]
    pinned = {canonicalize_name(each.name): str(each.specifier)[2:] for each in applied}
    assert len(pinned) == len(applied), "one version of each"
    return pinned


def test_the_lock_has_a_hash_for_each_and_no_address():
    assert len(ENTRIES) == len(re.findall(r"^\S", LOCK, re.MULTILINE)) > 20
    assert all(re.fullmatch(r"==[^*,]+", str(each.specifier)) for each in LOCKED)
    hashes = re.findall(r"--hash=(\S+)", LOCK)
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)
    assert "://" not in LOCK
    assert "index" not in LOCK


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: " ".join(list(m.values())[1:3]))
def test_the_lock_has_what_setup_asks_for(machine):
    locked = versions(machine)
    for each in wanted():
        name = canonicalize_name(each.name)
        assert each.specifier.contains(locked.get(name, "0")), f"make lock: {each}"
        for extra in each.extras:
            assert f"{name}-{extra}" in locked


def test_the_lock_has_all_that_these_need_in_turn():
    locked, seen = versions(MACHINES[1]), set()
    todo = [(each.name, frozenset(each.extras)) for each in wanted()]
    while todo:
        name, extras = each = todo.pop()
        if each in seen:
            continue
        seen.add(each)
        assert canonicalize_name(name) in locked
        for line in map(Requirement, requires(name) or ()):
            if not line.marker or any(line.marker.evaluate({"extra": e}) for e in {"", *extras}):
                todo.append((line.name, frozenset(line.extras)))
    assert len({name for name, _ in seen}) > 20


def test_the_image_is_made_of_what_is_locked():
    [first, second] = re.findall(r"pip install (.*?) && ", DOCKERFILE.replace("\\\n", ""))
    for option in ("--require-hashes", "--only-binary :all:", "--requirement /wheels/requirements"):
        assert option in first
    assert "--no-index" in second

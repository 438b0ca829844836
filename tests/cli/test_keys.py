"""`keys create`, `keys list`, `keys revoke`."""

from __future__ import annotations

import hashlib
import re
import uuid

import pytest
from support import only

USER = "6c7e1c8e-8c6b-4f0e-9a53-3b1f5d0c6d0a"
KEY = re.compile(r"pk_live_[A-Za-z0-9_-]{43}")


@pytest.fixture
def keys(live):
    """Run a command in this process."""
    return lambda *arguments: live.app.test_cli_runner().invoke(args=["keys", *arguments])


def stored(stack) -> list[tuple]:
    return stack.sql(
        "SELECT id, CAST(user_id AS TEXT), name, prefix, sha256, revoked_at FROM api_keys"
        " ORDER BY id"
    )


def test_create_prints_the_new_key_and_only_it(live):
    made = live.command("keys", "create", live.user_id, "--name", "crm sync")
    key = made.stdout.removesuffix("\n")
    assert made.returncode == 0
    assert KEY.fullmatch(key), "the prefix and 32 random bytes, safe in a URL"
    assert "pk_live_" not in made.stderr
    account = live.add_linkedin()
    assert live.delete(account, key=key).status_code == 200


def test_only_the_sha256_of_a_key_is_stored(live, keys):
    key = keys("create", USER, "--name", "crm").stdout.strip()
    *_, (_, user, name, prefix, sha256, revoked_at) = stored(live)
    assert (user, name, revoked_at) == (USER, "crm", None)
    assert sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert key.startswith(prefix)
    assert len(prefix) <= 16, "what is shown must not help to guess the rest"
    secret = key.removeprefix(prefix)
    assert secret not in str(live.sql("SELECT * FROM api_keys"))


def test_every_key_is_another(live, keys):
    made = {keys("create", USER).stdout for _ in range(2)}
    assert len(made) == 2
    assert len({row[4] for row in stored(live)}) == 3


@pytest.mark.parametrize(
    "user_id", [USER.upper(), USER.replace("-", ""), f"{{{USER}}}", f"urn:uuid:{USER}"]
)
@only("sqlite")
def test_a_user_id_may_be_written_in_every_form_of_a_uuid(live, keys, user_id):
    assert keys("create", user_id).exit_code == 0
    assert stored(live)[-1][1] == USER


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "ada"),
        ("create", ""),
        ("create", f"{USER}0"),
        ("create",),
        ("list", "ada"),
        ("revoke",),
        ("revoke", "one"),
        ("revoke", "-1"),
        ("revoke", "9" * 30),
    ],
)
@only("sqlite")
def test_a_bad_argument_is_refused_and_nothing_is_stored(live, keys, arguments):
    before = stored(live)
    refused = keys(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in refused.stderr
    assert stored(live) == before


def test_list_shows_a_key_by_its_id_and_first_characters(live, keys):
    key = keys("create", USER, "--name", "crm sync").stdout.strip()
    everyone, own = keys("list"), keys("list", USER)
    number, _, _, prefix, _, _ = stored(live)[-1]
    assert (everyone.exit_code, own.exit_code) == (0, 0)
    assert len(everyone.stdout.splitlines()) == 3, "a title, the stack's key, and this one"
    title, line = own.stdout.splitlines()
    assert title.split() == ["ID", "KEY", "USER", "CREATED", "STATE", "NAME"]
    assert line == everyone.stdout.splitlines()[-1]
    assert line.split()[:3] == [str(number), f"{prefix}…", USER]
    assert line.split()[4:] == ["live", "crm", "sync"]
    assert all(len(line) <= 100 for line in everyone.stdout.splitlines())
    for shown in (everyone, own):
        assert key[len(prefix) :] not in shown.stdout + shown.stderr


def test_list_of_a_user_without_keys_shows_none(live, keys):
    listed = keys("list", str(uuid.uuid4()))
    assert (listed.exit_code, len(listed.stdout.splitlines())) == (0, 1)


def test_a_revoked_key_is_refused_from_then_on_and_others_are_not(live, keys):
    account = live.add_linkedin()
    other = keys("create", live.user_id).stdout.strip()
    number = str(stored(live)[0][0])
    revoked = keys("revoke", number)
    assert (revoked.exit_code, revoked.stdout) == (0, f"Key {number} is revoked.\n")
    assert live.delete(account).status_code == 401
    assert live.delete(account, key=other).status_code == 200
    states = [line.split()[4] for line in keys("list").stdout.splitlines()[1:]]
    assert states == ["revoked", "live"]


@pytest.mark.parametrize("twice", [True, False], ids=["revoked before", "never there"])
def test_a_key_that_is_not_live_cannot_be_revoked(live, keys, twice):
    number = str(stored(live)[0][0]) if twice else "4711"
    if twice:
        assert keys("revoke", number).exit_code == 0
    when = stored(live)
    refused = keys("revoke", number)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == (f"Error: there is no live key with the id {number}; see keys list\n")
    assert stored(live) == when, "the moment of the first revocation stays"

"""Text from elsewhere: one clean line of at most 500 characters, no secret in it."""

from __future__ import annotations

import base64
import json
import re
from itertools import product
from urllib.parse import quote, quote_plus

import pytest

from puffle_accounts import environment, text
from puffle_accounts.text import hide_secrets_of, one_line, scrub


@pytest.fixture
def environ(monkeypatch):
    """Hide the secrets of an environment, for the time of a test."""
    monkeypatch.setattr(text, "_secrets", text._secrets)
    monkeypatch.setattr(text, "_values", set())
    return hide_secrets_of


class Hostile:
    """An object whose `str()` does what it was told."""

    def __init__(self, does):
        self.does = does

    def __str__(self):
        if isinstance(self.does, BaseException):
            raise self.does
        return self.does


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("session revoked", "session revoked"),
        ("", ""),
        ("  two\n\r\n\tlines  ", "two lines"),
        ("a\x00b", "a b"),
        ("red \x1b[31malarm\x1b[0m", "red [31malarm [0m"),
        ("\ud800lone\udfff", "lone"),
        ("next\x85line\u2028and\u2029paragraph", "next line and paragraph"),
        ("right\u202eto\u2066left\ufeff", "right to left"),
        ("Zoë 日本 🦊", "Zoë 日本 🦊"),
        (b"\x00bytes", r"b'\x00bytes'"),
        (None, "None"),
        (ValueError("what it said"), "what it said"),
        (ValueError(), ""),
    ],
)
def test_what_comes_in_becomes_one_printable_line(given, line):
    assert one_line(given) == line


@pytest.mark.parametrize("length", [499, 500, 501, 2_000_000])
def test_a_line_has_at_most_500_characters(length):
    assert one_line("x" * length) == "x" * min(length, 500)


def test_the_first_words_of_two_megabytes_of_mixed_rubbish_remain():
    line = one_line("it failed: " + "\x00\ud800 a \n" * 300_000)
    assert line.startswith("it failed: a a a")
    assert len(line) <= 500
    assert line.isprintable()


def test_a_line_cut_between_two_words_ends_with_a_word():
    assert one_line("x" * 499 + " " + "y") == "x" * 499


@pytest.mark.parametrize("error", [RuntimeError("no"), RecursionError(), SystemExit(3)])
def test_an_object_whose_str_raises_is_named_by_its_type(error):
    assert one_line(Hostile(error)) == "unprintable Hostile"


def test_an_object_whose_str_is_no_text_is_named_by_its_type():
    assert one_line(Hostile(42)) == "unprintable Hostile"


@pytest.mark.parametrize(
    ("said", "scrubbed"),
    [
        ("key pk_live_aB3-_x9 is bad", "key *** is bad"),
        ("pk_live_aB3, pk_live_cD4", "***, ***"),
        ("postgresql://ada:hunter2@db.example/puffle", "postgresql://***@db.example/puffle"),
        ("postgresql://ada:hun@ter2@db.example/puffle", "postgresql://***@db.example/puffle"),
        ('proxy "http://ada@proxy:3128" refused', 'proxy "http://***@proxy:3128" refused'),
        ("Authorization: Bearer am_123.456, next", "Authorization: Bearer ***, next"),
        ("authorization: BEARER am_123", "authorization: BEARER ***"),
        ("https://api.example.com/v1/a@b.co", "https://api.example.com/v1/a@b.co"),
        ("ada@outreach.example stays", "ada@outreach.example stays"),
    ],
)
def test_keys_and_passwords_in_urls_are_hidden_wherever_they_stand(said, scrubbed):
    assert scrub(said) == scrubbed
    assert one_line(said) == scrubbed


@pytest.mark.parametrize(
    "name", ["EXAMPLE_API_KEY", "example_api_key", "CRM_TOKEN", "APP_SECRET", "PGPASSWORD"]
)
def test_secrets_of_the_environment_are_hidden(environ, name):
    environ({name: " s3cr3t.+(value) \n", "COLOUR": "turquoise"})
    said = "turquoise: s3cr3t.+(value) and s3cr3t.+(value)s"
    assert scrub(said) == one_line(said) == "turquoise: *** and ***s"


def test_a_secret_is_hidden_as_a_json_line_holds_it(environ):
    environ({"A_KEY": 'ab"cd\\efgh', "B_PASSWORD": "pässwörd"})
    assert scrub(json.dumps(['ab"cd\\efgh', "pässwörd"])) == '["***", "***"]'


def test_a_secret_that_holds_another_is_hidden_whole(environ):
    environ({"A_KEY": "puffle", "B_KEY": "puffle-of-the-second-key"})
    assert scrub("x puffle-of-the-second-key y puffle z") == "x *** y *** z"


def test_a_word_shorter_than_six_characters_blackens_nothing(environ):
    environ({"A_KEY": "event", "B_KEY": "", "C_KEY": "  "})
    assert scrub("an eventful day") == "an eventful day"


def test_a_secret_at_the_edge_of_500_characters_is_hidden_before_the_line_is_cut(environ):
    environ({"A_KEY": "the-secret-value"})
    assert "the-sec" not in one_line("x" * 493 + "the-secret-value")


def test_a_new_environment_replaces_the_old_one(environ):
    environ({"A_KEY": "first-secret"})
    environ({"A_KEY": "second-secret"})
    assert scrub("first-secret second-secret pk_live_x") == "first-secret *** ***"


# The forms in which a secret travels

KEYS = ["am_0aB3xY9-_plain", "Uni/pile+key.==", 'say "what\'s \\ up/"', "pä ss:wö€rd🦊"]


def forms(key: str) -> dict[str, str]:
    """Return what becomes of a key on its way into a line."""
    quoted = quote(key, safe="")
    return {
        "quoted": quoted,
        "quoted in lower case": re.sub("%..", lambda match: match[0].lower(), quoted),
        "quoted but for slashes": quote(key),
        "quoted for a form": quote_plus(key),
        "quoted twice": quote(quoted),
        "JSON": json.dumps(key),
        "JSON beyond ASCII": json.dumps(key, ensure_ascii=False),
        "JSON within JSON": json.dumps(json.dumps({"key": key})),
        "JSON with quoted slashes": json.dumps(key).replace("/", "\\/"),
        "repr": repr(key),
        "repr within JSON": json.dumps(repr([key])),
        "ascii": ascii(key),
        **{
            f"{how} of {before}KEY{after}": coded
            for before, after in product(("", ":", "user:", "ada@x:"), ("", ":", " and more"))
            for how, coded in encoded(f"{before}{key}{after}".encode()).items()
        },
    }


def encoded(raw: bytes) -> dict[str, str]:
    standard, urls = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    return {"base64": standard, "URL's base64": urls, "quoted base64": quote(standard, safe="")}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_hidden_in_every_form_in_which_it_travels(environ, key):
    environ({"A_KEY": key})
    for how, form in forms(key).items():
        hidden = scrub(f"before {form} after")
        assert re.fullmatch(r"before .*\*\*\*.* after", hidden), how
        assert len(hidden) - len("before *** after") <= len(form) - len(key), (how, hidden)


def test_our_own_keys_are_hidden_in_base64_too():
    for before in ("", "a:", "ab:"):
        coded = base64.b64encode(f"{before}pk_live_abcdefghijkl:".encode()).decode()
        assert re.fullmatch(r"Basic \w{0,6}\*\*\*", scrub(f"Basic {coded}"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hunt%2Fer2@db/puffle",
        "postgresql://db/puffle?user=ada&password=hunt%2Fer2",
        "http://ada:hunt%2Fer2@proxy:3128",
    ],
)
def test_a_password_in_a_url_is_hidden_where_it_stands_alone(environ, url):
    environ({"ANY_URL": url})
    assert scrub("hunt/er2 and hunt%2fer2, ada") == "*** and ***, ada"


def test_a_password_that_is_also_the_name_of_something_blackens_nothing(environ):
    environ({"DATABASE_URL": "postgresql://puffle:puffle@db/puffle", "A_KEY_FILE": "/run/secrets"})
    assert scrub("puffle-accounts reads /run/secrets") == "puffle-accounts reads /run/secrets"


def test_a_providers_key_is_hidden_whatever_its_variable_is_called(environ):
    environ({"EXAMPLE_CREDENTIAL": "q+K/=&12"})
    assert scrub("?k=q%2BK%2F%3D%2612") == "?k=q%2BK%2F%3D%2612"
    environment.secret({"EXAMPLE_CREDENTIAL": "q+K/=&12"}, "EXAMPLE_CREDENTIAL")
    assert scrub("?k=q%2BK%2F%3D%2612 q+K/=&12") == "?k=*** ***"

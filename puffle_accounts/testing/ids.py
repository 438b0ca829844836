"""What is called, and that it is what the account names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus

from puffle_accounts.account import ID_COLUMNS
from puffle_accounts.testing.case import Case, left_for_good
from puffle_accounts.testing.provider import Request

HOSTILE = (
    "a/b",
    "../a",
    "..",
    ".",
    "a?b=c",
    "a&b=c",
    "a#b",
    "a%2Fb",
    "a b",
    "a\\b",
    "ä@ö",
    "a\r\nB: c",
)
DECOY = "nobody's"


class Ids(Case):
    """The plugin's `RESOURCE_IDS`, and what becomes of their values."""

    def test_each_of_its_resource_ids_names_what_is_called(self) -> None:
        assert self._fields, "declare RESOURCE_IDS: the fields that name what you hold"
        for field, value in self._ids():
            result = self._try(self.done, of=self._naming(field, value))
            assert result.failure is None, field
            assert any(map(_mentions(value), self.provider.requests)), (
                f"nobody is asked for {field}"
            )

    def test_no_other_id_of_the_account_is_sent(self) -> None:
        undeclared = [column for column in ID_COLUMNS if column not in self._fields]
        others: dict[str, Any] = dict.fromkeys(undeclared, DECOY)
        for field, value in self._ids():
            account = replace(self._naming(field, value), **others)
            self._try(self.done, of=account)
            assert not any(map(_mentions(DECOY), self.provider.requests)), others

    def test_a_hostile_id_stays_in_its_segment_of_the_path(self) -> None:
        for field, usual in self._ids():
            self._try(self.done, of=self._naming(field, usual))
            wanted = [_shape(sent, str(usual)) for sent in self.provider.requests]
            for hostile in HOSTILE:
                result = self._try(self.done, of=self._naming(field, hostile))
                sent = [_shape(each, hostile) for each in self.provider.requests]
                if sent != wanted:
                    assert len(sent) < len(wanted), f"{hostile!r} was sent as {sent}"
                    left_for_good(result, hostile)


def _mentions(value: Any) -> Callable[[Request], bool]:
    """Return a function that says whether a request names a value."""
    text = str(value)

    def mentions(sent: Request) -> bool:
        said = (
            f"{unquote(sent.path)} {unquote_plus(sent.path)} {sent.body.decode(errors='replace')}"
        )
        return text in said

    return mentions


def _shape(sent: Request, value: str) -> tuple[str, list[str], list[str]]:
    """Return what a request would be with another id: method, segments, names of its query."""
    path, _, query = sent.path.partition("?")
    segments = ["{id}" if unquote(each) == value else each for each in path.split("/")]
    return sent.method, segments, [name for name, _ in parse_qsl(query, keep_blank_values=True)]

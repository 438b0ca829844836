"""Connections that fail, and answers that do not come."""

from __future__ import annotations

import pytest

from puffle_accounts.testing.case import Case, left_for_later


class Connections(Case):
    """Whatever happens on the way, what is left is tried again."""

    @pytest.mark.parametrize("what", ["refuse", "reset", "break_off", "garbage", "hang", "drip"])
    def test_no_answer_is_tried_again(self, what: str) -> None:
        getattr(self._begin(), what)()
        left_for_later(self._again(self.patience), what)

    def test_an_answer_that_is_cut_short_is_no_proof_that_it_is_gone(self) -> None:
        for gone in (each for each in self._gone if each.raw):
            self._begin().cut(gone.status, gone.body)
            left_for_later(self._again(), gone)

"""What was left before this service was there, or behind its back: nobody names it.

And the other direction: accounts that their provider no longer knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from puffle_accounts import live, resources
from puffle_accounts.account import Account
from puffle_accounts.database import Database
from puffle_accounts.errors import ResourceInUse
from puffle_accounts.hooks.registry import Plugin
from puffle_accounts.orphans import record, standing
from puffle_accounts.resources import Resource

NOBODY = "00000000-0000-0000-0000-000000000000"  # of whom a person speaks in `adopt`
BATCH = 250  # ids that are looked for at once


@dataclass(frozen=True, slots=True)
class Missing:
    """An account whose resource its provider does not know."""

    account_id: str
    resource_id: str


class Search:
    """Compares what one provider holds with what accounts and orphans name.

    What is kept grows with what is found and with the orphans; with what the provider holds only
    if accounts are to be found that it does not know.

    Args:
        before: what was made later may belong to an account that is being connected right now.
        both: keep what `missing` needs.
    """

    def __init__(
        self, database: Database, plugin: Plugin, before: datetime, both: bool = True
    ) -> None:
        self._database = database
        self.plugin = plugin
        self._before = before
        self._both = both
        # Hashes: the ids themselves would take several times as much.
        self._orphaned = set(map(hash, _named_by_orphans(database, plugin)))
        self._known: set[int] = set()
        self.forgotten: dict[str, Resource] = {}

    def compare(self, held: Iterable[Resource]) -> None:
        """Look at all that the provider holds; afterwards `forgotten` is what nobody names.

        Raises:
            UpstreamFailed: the provider could not be asked to the end.
        """
        each = iter(held)
        while batch := list(islice(each, BATCH)):
            self._look(batch)

    def _look(self, batch: list[Resource]) -> None:
        by_value = {resources.comparable(resource.id): resource for resource in batch}
        if self._both:
            self._known.update(map(hash, by_value))
        candidates = {value for value in by_value if value and hash(value) not in self._orphaned}
        with self._database.reading():
            used = live.named(self._database, self.plugin, candidates)
        for value in candidates - used:
            resource = by_value[value]
            if resource.created_at is None or resource.created_at < self._before:
                self.forgotten.setdefault(value, resource)

    def missing(self) -> Iterator[Missing]:
        """Return the live accounts of which the provider, asked to the end, knows nothing."""
        fields = self.plugin.resource_ids
        for account in live.accounts(self._database, self.plugin):
            values = resources.named(account, fields).values()
            if values and not any(hash(value) in self._known for value in values):
                yield Missing(account.id, next(iter(values)))


def oldest_first(forgotten: Iterable[Resource]) -> list[Resource]:
    """Return resources in the order of their age, those of unknown age last."""
    return sorted(
        forgotten,
        key=lambda each: (each.created_at is None, each.created_at and each.created_at.timestamp()),
    )


def _named_by_orphans(database: Database, plugin: Plugin) -> Iterator[str]:
    for text in standing.snapshots(database, plugin.name):
        with suppress(ValueError, TypeError):
            yield from resources.named(Account.from_json(text), plugin.resource_ids).values()


def adopt(database: Database, plugin: Plugin, ids: Iterable[str], reason: str) -> list[str]:
    """Make an orphan of each resource that nobody names; return the ids of the new ones.

    Raises:
        ResourceInUse: a live account uses one of them; nothing is adopted.
    """
    accounts = {each: _account_of(plugin, each) for each in ids}
    values = {each: resources.comparable(each) or "" for each in accounts}
    known = set(values.values()).intersection(_named_by_orphans(database, plugin))
    with database.writing():
        used = live.named(database, plugin, set(values.values()))
        if used:
            raise ResourceInUse(", ".join(each for each, value in values.items() if value in used))
        new = [each for each, value in values.items() if value not in known]
        for each in new:
            record.adopt(database, plugin, accounts[each], reason)
    return new


def _account_of(plugin: Plugin, resource_id: str) -> Account:
    """Return the snapshot of an account that has the resource and nothing else."""
    field, kinds = plugin.resource_ids[0], sorted(plugin.kinds or {"unknown"})
    key = resources.metadata_key(field)
    named: dict[str, Any] = {"metadata": {key: resource_id}} if key else {field: resource_id}
    return Account(id=NOBODY, user_id=NOBODY, type=kinds[0], **named)

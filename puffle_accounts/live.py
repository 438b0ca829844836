"""The look at live accounts: does another one use what is about to be torn down?

Statements find candidates through indexes, snapshots decide: so what makes two values the
same is said in one place (`resources`), whatever the columns and their collations are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from puffle_accounts import resources, snapshots
from puffle_accounts.account import ID_COLUMNS, Account
from puffle_accounts.database import Database
from puffle_accounts.hooks.registry import Declaration, Plugin

#: What an account of a kind may hold at a plugin that declares nothing.
GUESSED = {
    "linkedin": ("provider_account_id",),
    "email": ("email_address", "agentmail_inbox_id", "instantly_account_id"),
}
PAGE = 1000
PLAIN_KIND = re.compile(r"[a-z0-9_-]+")


class Found(NamedTuple):
    """An account's row, and whether another account may use the same resource.

    `unreadable` is the column that cannot be read exactly, if there is one.
    """

    account: Account
    may_share: bool
    unreadable: str | None = None


def users(database: Database, plugin: Plugin, account: Account) -> Iterator[Account]:
    """Return the live accounts that use a resource which the account names, itself included.

    Args:
        plugin: whose resource. Where it declares none, accounts are compared as well as can be.
    """
    fields = plugin.resource_ids or GUESSED.get(account.kind, ID_COLUMNS)
    values = set(resources.named(account, fields).values())
    for candidate in _candidates(database, fields, values):
        same = values & set(resources.named(candidate, fields).values())
        if same and _is_live(candidate, plugin):
            yield candidate


def _is_live(account: Account, plugin: Plugin) -> bool:
    """Whether an account may use what a plugin holds: one of its types, but no ended session."""
    return plugin.accepts(account.kind) and not account.is_disconnected


def named(database: Database, plugin: Plugin, values: set[str]) -> set[str]:
    """Return those of some ids that live accounts use.

    Args:
        plugin: one that declares what it holds.
        values: as `resources.comparable` has them.
    """
    used: set[str] = set()
    for candidate in _candidates(database, plugin.resource_ids, values):
        if _is_live(candidate, plugin):
            used.update(resources.named(candidate, plugin.resource_ids).values())
    return used & values


def accounts(database: Database, plugin: Plugin) -> Iterator[Account]:
    """Return every live account of a type that the plugin takes, a page at a time."""
    after = None
    while True:
        start = "" if after is None else "WHERE a.id > ? "
        statement = (
            f"SELECT {snapshots.selected(database)} FROM accounts a"
            f" {start}ORDER BY a.id LIMIT {PAGE}"
        )
        with database.reading():
            rows = database.sql(statement, *([] if after is None else [after])).fetchall()
        for account in map(snapshots.from_row, rows):
            after = account.id
            if _is_live(account, plugin):
                yield account
        if len(rows) < PAGE:
            return


def _candidates(database: Database, fields: tuple[str, ...], values: set[str]) -> Iterator[Account]:
    bound = sorted({spelling for value in values for spelling in _spellings(value)})
    for field in fields if bound else ():
        mark = _as_found(database, field, "CAST(? AS TEXT)")
        statement = (
            f"SELECT {snapshots.selected(database)} FROM accounts a"
            f" WHERE {_found_by(database, 'a', field)} IN ({', '.join([mark] * len(bound))})"
        )
        yield from map(snapshots.from_row, database.sql(statement, *bound))


def _spellings(value: str) -> set[str]:
    """Return what a database may make of a value in lower case: some fold ASCII letters alone."""
    if "\0" in value or re.search("[\ud800-\udfff]", value):  # that no table can hold
        return set()
    return {value.lower(), _ascii_lower(value), _ascii_lower(value.upper())}


def _ascii_lower(value: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in value)


def _key(database: Database, alias: str, field: str) -> str:
    """Return the expression for what a field of a row names, in lower case."""
    key = resources.metadata_key(field)
    if key is None:
        return database.folded(f"{alias}.{field}")
    return f"lower({database.json_text(f'{alias}.metadata', key)})"


def _found_by(database: Database, alias: str, field: str) -> str:
    """Return the expression by which rows are found, as an index has it."""
    return _as_found(database, field, _key(database, alias, field))


def _as_found(database: Database, field: str, text: str) -> str:
    return text if resources.metadata_key(field) else database.indexed(text)


def selected(database: Database, declarations: tuple[Declaration, ...]) -> str:
    """Return what to select of an account `a` for `from_row`."""
    return f"{snapshots.selected(database)}, {_may_share(database, declarations)}"


def from_row(row: Any) -> Found:
    """Return the account of a row that was selected as `selected` says."""
    *columns, may_share = row
    account = snapshots.from_row(columns)
    look = bool(may_share) or _folds_otherwise(account)
    return Found(account, look, snapshots.unreadable(columns))


def _folds_otherwise(account: Account) -> bool:
    """Whether an account has an address whose lower case a database may not know."""
    values = (*account.provider_ids, *account.metadata.values())
    return any(isinstance(v, str) and not v.isascii() and "@" in v for v in values)


def read(
    database: Database,
    declarations: tuple[Declaration, ...],
    account_id: str,
    user_id: str,
    to_change: bool = False,
) -> Found | None:
    """Return a user's account, `None` if there is none.

    Args:
        to_change: keep the row from others until the transaction ends.
    """
    statement = (
        f"SELECT {selected(database, declarations)} FROM accounts a"
        f" WHERE a.id = ? AND a.user_id = ? {database.LOCK_ROW if to_change else ''}"
    )
    row = database.sql(statement, account_id, user_id).fetchone()
    return row and from_row(row)


@functools.lru_cache(maxsize=16)
def _may_share(database: Database, declarations: tuple[Declaration, ...]) -> str:
    """Return the condition under which a look at the live accounts is worth its round trip."""
    looks = [
        f"EXISTS (SELECT 1 FROM accounts o WHERE o.id <> a.id AND {_found_by(database, 'o', field)}"
        f" IN ({', '.join(_as_found(database, field, _key(database, 'a', e)) for e in fields)})"
        f"{_of(database, kinds)})"
        for kinds, fields in declarations
        for field in fields
    ]
    return " OR ".join(looks) or "1 = 0"


def _of(database: Database, kinds: frozenset[str] | None) -> str:
    """Return the condition that another account's type is one of these, or holds one of them."""
    if kinds is None or not all(map(PLAIN_KIND.fullmatch, kinds)):
        return ""
    found = database.folded("o.type")
    held = [f"replace({found}, '{each}', '') <> {found}" for each in sorted(kinds)]
    return f" AND ({' OR '.join(held) or '1 = 0'})"

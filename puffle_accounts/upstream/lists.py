"""Lists: the way from page to page, and what an item stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

from requests.utils import requote_uri

from puffle_accounts import clock
from puffle_accounts.errors import TeardownFailed
from puffle_accounts.resources import Resource
from puffle_accounts.upstream.bodies import field

Items = Sequence[Mapping[str, Any]]


class NoEnd(Exception):
    """A list cannot be read to its end; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page is: a path below the base URL, quoted, and its query."""

    path: str
    params: Mapping[str, str]

    def there(self, **params: str) -> Place:
        """Return the place with other parameters."""
        return replace(self, params={**self.params, **params})


Follow = Callable[[Place, Any, Items], Place | None]


def following(
    cursor: str | tuple[str, ...],
    cursor_param: str | None,
    offset_param: str | None,
    next_url: str | None,
    base_url: str,
) -> Follow:
    """Return the way to the next page; arguments and errors as for `Upstream.pages`."""
    names = (cursor,) if isinstance(cursor, str) else cursor
    ways = [
        by_cursor(names, cursor_param) if names and cursor_param else None,
        by_offset(offset_param) if offset_param else None,
        by_link(next_url, base_url) if next_url else None,
    ]
    given = [way for way in ways if way]
    if len(given) != 1:
        raise TypeError("a list needs cursor and cursor_param, or offset_param, or next_url")
    return given[0]


def by_cursor(names: Sequence[str], param: str) -> Follow:
    """Return the way by a cursor that a page names in one of these fields."""

    def follow(here: Place, page: Any, items: Items) -> Place | None:
        cursor = next(filter(None, (field(page, name) for name in names)), None)
        return here.there(**{param: str(cursor)}) if cursor else None

    return follow


def by_offset(param: str) -> Follow:
    """Return the way by the number of items that came before; an empty page is the last one.

    Not a short one: a provider may give fewer than it was asked for.
    """
    latest: list[Items] = []

    def follow(here: Place, page: Any, items: Items) -> Place | None:
        if not items:
            return None
        if items in latest:
            raise NoEnd("the same page again: the list has no end")
        latest[:] = [items]
        return here.there(**{param: str(int(here.params.get(param, "0")) + len(items))})

    return follow


def by_link(name: str, base_url: str) -> Follow:
    """Return the way by the next page's URL; one that leads elsewhere would be told the key."""
    base = urlsplit(base_url)

    def follow(here: Place, page: Any, items: Items) -> Place | None:
        link = field(page, name)
        if not link:
            return None
        url = urlsplit(requote_uri(urljoin(f"{base_url}{here.path}", str(link))))
        if url[:2] != base[:2] or not url.path.startswith(f"{base.path}/"):
            raise NoEnd("a link to the next page that leads elsewhere")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        return Place(url.path.removeprefix(base.path), query)

    return follow


def items_of(page: Any, name: str | None) -> Items:
    """Return the items of a page: the list in this field, or the page itself.

    Raises:
        NoEnd: there is none.
    """
    items = field(page, name) if name else page
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise NoEnd(f"an answer without a list of {name}" if name else "an answer that is no list")
    return items


def read(
    start: Place, get: Callable[[Place], Any], name: str | None, follow: Follow
) -> Iterator[Mapping[str, Any]]:
    """Return the items of all pages, one after the other.

    Args:
        get: returns a page.
        name: of the field with a page's items.

    Raises:
        NoEnd: the list cannot be read to its end.
    """
    place: Place | None = start
    seen = set()
    while place:
        name_of_place = (place.path, *place.params.items())
        if name_of_place in seen:
            raise NoEnd("a cursor that came before: the list has no end")
        seen.add(name_of_place)
        page = get(place)
        items = items_of(page, name)
        yield from items
        place = follow(place, page, items)


def resource(
    item: Mapping[str, Any], id: str, *, name: str | None = None, created_at: str | None = None
) -> Resource:
    """Return what an item of a list stands for.

    Args:
        item: one of those that `Upstream.pages` returns.
        id, name, created_at: the fields that have them; a time is ISO 8601, and one that
            cannot be read is unknown.

    Raises:
        TeardownFailed: the item has no id, so that the list cannot be trusted.
    """
    found, called = item.get(id), item.get(name) if name else None
    if isinstance(found, bool) or not isinstance(found, (str, int)) or found == "":
        raise TeardownFailed(f"a list with an item that has no {id}")
    try:
        born = clock.moment(item.get(created_at) if created_at else None)
    except ValueError:
        born = None
    return Resource(str(found), called if isinstance(called, str) else None, born)

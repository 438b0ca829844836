"""What each start of the service in this process would look for again, and find the same.

That is half of a start, and an eighth of what the tests in this process take.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from puffle_accounts.hooks import loading
from puffle_accounts.hooks.hookimpls import verify

_look = loading._installed


@contextmanager
def remembered() -> Iterator[None]:
    """What is installed in these folders, its version, and that an unchanged plugin is sound."""
    with pytest.MonkeyPatch.context() as known:
        known.setattr(importlib.metadata, "version", _version)  # which Werkzeug's server asks for
        known.setattr(loading, "_installed", lambda: _installed(tuple(sys.path)))
        known.setattr(loading, "verify", _verify)
        yield


_version = functools.cache(importlib.metadata.version)


@functools.cache
def _installed(_: tuple[str, ...]) -> list[loading.Found]:
    return list(_look())


def _verify(module: object):
    if isinstance(module, ModuleType):
        return _verified(module, tuple(map(id, vars(module).values())))
    return verify(module)


@functools.cache
def _verified(module: ModuleType, _: tuple[int, ...]):
    return verify(module)

"""Take connected sender accounts apart, safely, whatever the providers do."""

from puffle_accounts.account import Account
from puffle_accounts.errors import TeardownFailed
from puffle_accounts.hooks.hookspecs import hookimpl
from puffle_accounts.resources import Resource

__all__ = ["Account", "Resource", "TeardownFailed", "hookimpl"]

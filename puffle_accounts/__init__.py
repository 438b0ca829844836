"""Take connected sender accounts apart, safely, whatever the providers do."""

from puffle_accounts.account import Account
from puffle_accounts.errors import TeardownFailed
from puffle_accounts.hooks.hookspecs import hookimpl

__all__ = ["Account", "TeardownFailed", "hookimpl"]

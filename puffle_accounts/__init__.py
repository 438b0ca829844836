"""Take connected sender accounts apart, safely, whatever the providers do."""

from puffle_accounts.account import Account
from puffle_accounts.hookspecs import TeardownFailed, hookimpl

__all__ = ["Account", "TeardownFailed", "hookimpl"]

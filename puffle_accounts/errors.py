"""Every error of the package, as a tree.

    Exception
     +-- ConfigError            a variable of the environment cannot be used
     +-- SchemaError            the tables cannot be created, adopted or migrated
     +-- BrokenPlugin           a plugin cannot be used
     +-- TeardownFailed         something of an account is left at its provider; for plugins
     |    +-- UpstreamFailed    the provider's answer, or its silence, says so
     |    +-- PluginFault       a plugin gave what its hook may not give
     +-- DatabaseUnavailable    the database did not answer, takes no writes, or has no tables
     +-- DeleteFailed           the account's row could not be changed, and is still there
     +-- ResourceInUse          a live account uses what somebody wants to have torn down
     +-- InvalidKey             an Idempotency-Key header does not hold a usable key
     +-- KeyInUse               a request with this Idempotency-Key is being worked on
     +-- KeyReused              this Idempotency-Key belongs to another account
     +-- Problem                answer the request with an error (`api.problems`)

Imported by gunicorn's master before a worker patches the standard library, so
it imports nothing.
"""

from __future__ import annotations


class ConfigError(Exception):
    """A variable of the environment cannot be used; the message names it and the remedy."""


class SchemaError(Exception):
    """The tables cannot be migrated; the message says why."""


class BrokenPlugin(Exception):
    """A plugin cannot be used; the message says why."""


class TeardownFailed(Exception):
    """Something of the account is left at the provider.

    Args:
        message: what is left and why, for a person; no secret, no response body.
        retry_after: seconds to wait before the next attempt, if the provider said so.
        permanent: trying again is pointless until somebody changes something.
        status: the provider's HTTP status, if it answered at all. After 401, 402 and 429 the
            rest of a retry leaves the provider alone.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        permanent: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.permanent = permanent
        self.status = status


class UpstreamFailed(TeardownFailed):
    """The provider did not do it: `Upstream` says so."""


class PluginFault(TeardownFailed):
    """A plugin gave what its hook may not give; the message says what."""


class DatabaseUnavailable(Exception):
    """The database did not answer, takes no writes, or has no tables yet; the message says how."""


class DeleteFailed(Exception):
    """The row could not be deleted or updated; nothing is stored, and the row says so."""


class ResourceInUse(Exception):
    """A live account uses what somebody wants to have torn down; the message has the ids."""


class InvalidKey(ValueError):
    """The header does not hold a usable key."""


class KeyInUse(Exception):
    """A request with this key is being worked on."""


class KeyReused(Exception):
    """This key was used, or is in use, for another account."""


class Problem(Exception):
    """Raised to answer with an error.

    Args:
        error: the short code, a key of `api.problems.DETAILS`.
        headers: of the response, with `_` for `-`.
    """

    def __init__(self, error: str, **headers: str) -> None:
        super().__init__(error)
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

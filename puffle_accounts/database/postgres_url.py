"""What a `postgresql://` URL says, and whether it can ever work; libpq reads it."""

from __future__ import annotations

import re
from typing import Any

from puffle_accounts.database.pooled import WAIT
from puffle_accounts.errors import ConfigError
from puffle_accounts.text import one_line

#: What libpq is told unless the URL or its own environment says otherwise.
DEFAULTS = {
    "connect_timeout": 3,  # seconds for each host
    "keepalives_idle": 30,  # seconds, so that no NAT forgets a connection
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": WAIT * 1000,
}
NOWHERE = "/nowhere"  # a folder of sockets that is not there
ADDRESS = {"host", "hostaddr", "port", "password", "dbname"}
HIGHEST_PORT = 65535
UNKNOWN_PARAMETER = re.compile(r'query parameter: "([A-Za-z_]\w*)"\s*$')


def parameters(url: str) -> dict[str, Any]:
    """Return what libpq is to be told beside the URL.

    Raises:
        ConfigError: libpq cannot use it, whatever becomes of the server.
    """
    from psycopg.pq import Conninfo

    said = _read(url)
    _require_usable(said)
    # libpq's own defaults, PGCONNECT_TIMEOUT and the like among them.
    given: dict[str, Any] = {
        o.keyword.decode(): o.val.decode() for o in Conninfo.get_defaults() if o.val
    } | said
    params = {name: given.get(name) or value for name, value in DEFAULTS.items()}
    several = "," in str(given.get("host") or given.get("hostaddr"))
    if several and "target_session_attrs" not in said:
        params["target_session_attrs"] = "read-write"  # the primary, whichever it is by now
    return params


def _read(url: str) -> dict[str, Any]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return dict(conninfo_to_dict(url))
    except ProgrammingError as error:  # its message may quote the password
        unknown = UNKNOWN_PARAMETER.search(str(error))
        if unknown and "password" not in url.partition("?")[2]:
            raise ConfigError(
                f"DATABASE_URL: PostgreSQL knows no parameter {unknown[1]}; take it out"
            ) from None
        raise ConfigError("DATABASE_URL is not a PostgreSQL connection URL") from None


def _require_usable(said: dict[str, Any]) -> None:
    """Let libpq look at all but the address, in front of a server that cannot be.

    Raises:
        ConfigError: one of the values can never work.
    """
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    for port in filter(None, str(said.get("port", "")).split(",")):
        if not (port.isdigit() and 0 < int(port) <= HIGHEST_PORT):
            raise ConfigError(
                f"DATABASE_URL: PostgreSQL's port must be a number from 1 to {HIGHEST_PORT}"
            )
    for name in said.keys() & {*DEFAULTS, "keepalives"}:
        if not re.fullmatch(r"-?\d+", said[name]):
            raise ConfigError(f"DATABASE_URL: PostgreSQL's parameter {name} must be a whole number")
    params = {name: value for name, value in said.items() if name not in ADDRESS}
    conn = PGconn.connect_start(make_conninfo(host=NOWHERE, **params).encode())
    reason = conn.get_error_message()
    conn.finish()
    if NOWHERE not in reason:
        raise ConfigError(
            f"DATABASE_URL: {one_line(reason)}; correct this part of the PostgreSQL URL"
        )

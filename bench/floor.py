"""The floor of an e-mail delete: its provider calls and its two statements, and no web framework.

A bare loop over raw sockets in one process, with as many deletes at a time as the others have
connections. What a service takes beyond this is its own; this much is the providers' and the
database's. Prints one JSON object, as the load does.
"""

import argparse
import asyncio
import hashlib
import json
import time

import asyncpg
import uvloop

from bench import load
from bench.accounts import account_id, email

POOL = 40  # connections to the database: as many as two workers of the service may have
LOOK = """
SELECT a.* FROM accounts a JOIN api_keys k ON k.user_id = a.user_id
WHERE a.id = $1 AND k.sha256 = $2 AND k.revoked_at IS NULL"""
DELETE = "DELETE FROM accounts WHERE id = $1"
CALL = (
    "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n\r\n{}"
)


class Provider(asyncio.Protocol):
    """A kept connection to a provider: one call at a time."""

    def connection_made(self, transport):
        self.transport, self.answered = transport, None

    def call(self, method, path, body=""):
        """Send a call; return the future that is done when it has been answered."""
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(CALL.format(method, path, len(body), body).encode())
        return self.answered

    def data_received(self, data):
        if data.startswith(b"HTTP/1.1 200"):
            self.answered.set_result(None)
        else:
            self.answered.set_exception(RuntimeError(f"the provider answered {data!r}"))


class Client:
    """Deletes one account after the other, as a connection of the load has deleted."""

    def __init__(self, run, database, options):
        self.run, self.database = run, database
        self.digest = hashlib.sha256(options.key.encode()).hexdigest()
        self.base, self.provider = f"/after/{options.delay}", options.provider

    async def work(self):
        loop = asyncio.get_running_loop()
        self.instantly, self.agentmail = [
            (await loop.create_connection(Provider, "127.0.0.1", self.provider))[1] for _ in "ab"
        ]
        while (number := self.run.next_number()) is not None:
            sent = time.perf_counter()
            await self.delete(number)
            self.run.record(sent, 200)

    async def delete(self, number):
        await self.database.fetchrow(LOOK, account_id(number), self.digest)
        address = email(number)[-1]
        inbox = self.agentmail.call("DELETE", f"{self.base}/agentmail/v0/inboxes/{address}")
        await self.leave_instantly(f"{self.base}/instantly/api/v2/accounts", address)
        await inbox
        await self.database.execute(DELETE, account_id(number))

    async def leave_instantly(self, path, address):
        await self.instantly.call("POST", f"{path}/warmup/disable", f'{{"emails": ["{address}"]}}')
        await self.instantly.call("DELETE", f"{path}/{address}")


async def main(options):
    run = load.Run(options)
    async with asyncpg.create_pool(options.database, min_size=POOL, max_size=POOL) as database:
        clients = [Client(run, database, options) for _ in range(options.connections)]
        run.start()
        await asyncio.gather(*(client.work() for client in clients))
    print(json.dumps(run.summary()))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("connections", "first", "count", "delay", "provider"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    for name in ("key", "database"):
        parser.add_argument(f"--{name}", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(arguments()))

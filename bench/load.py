"""The load: N keep-alive connections, each deletes one account after another, all of them others.

A process of its own, so that its CPU can be told from the server's. Prints one JSON object.
"""

import argparse
import asyncio
import json
import time

import uvloop

from bench.accounts import account_id

GAP = 0.001  # seconds between two connections
PATIENCE = 60  # seconds that a run may last beyond its time, then what is open counts as lost
LOST = 0  # the "status" of a request whose connection ended without an answer


class Run:
    """What all connections share: the accounts still to delete, and what came of the others."""

    def __init__(self, options):
        self.numbers = iter(range(options.first, options.first + options.count))
        self.headers = f"Host: 127.0.0.1\r\nAuthorization: Bearer {options.key}\r\n\r\n"
        self.latencies, self.statuses, self.over = [], {}, False
        self.seconds, self.started, self.ended, self.deadline = options.seconds, 0.0, 0.0, 0.0

    def start(self):
        self.started = self.ended = time.perf_counter()
        self.used_before = time.process_time()
        self.deadline = self.started + self.seconds

    def next_number(self):
        number = next(self.numbers, None) if time.perf_counter() < self.deadline else None
        self.over = number is None
        return number

    def next_request(self):
        number = self.next_number()
        if number is None:
            return None
        return f"DELETE /api/accounts/{account_id(number)} HTTP/1.1\r\n{self.headers}".encode()

    def record(self, sent, status):
        self.ended = time.perf_counter()
        self.latencies.append(self.ended - sent)
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def summary(self):
        latencies, seconds = sorted(self.latencies), self.ended - self.started
        used = time.process_time() - self.used_before
        return {
            "deletes": len(latencies),
            "seconds": seconds,
            "rate": len(latencies) / seconds if seconds else 0.0,
            "p50_ms": percentile(latencies, 0.50),
            "p99_ms": percentile(latencies, 0.99),
            "max_ms": percentile(latencies, 1.00),
            "not_200": sum(n for status, n in self.statuses.items() if status != 200),
            "statuses": self.statuses,
            "load_cpu": used / seconds if seconds else 0.0,
        }


class Connection(asyncio.Protocol):
    def __init__(self, run):
        self.run, self.sent, self.received = run, None, b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def send(self):
        request = self.run.next_request()
        if request is None:
            self.transport.close()
        else:
            self.sent = time.perf_counter()
            self.transport.write(request)

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if end and len(body) >= content_length(head):
            self.received = b""
            self.run.record(self.sent, int(head[9:12]))
            self.sent = None
            self.send()

    def connection_lost(self, _error):
        if self.sent is not None:
            self.run.record(self.sent, LOST)
        self.closed.set_result(None)


def content_length(head):
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def percentile(ordered, share):
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else 0.0


async def connect(run, port):
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(run), "127.0.0.1", port)
    return connection


async def connect_all(run, port, count):
    """One after the other: of a rush, one worker process would accept nearly all."""
    connections = []
    for _ in range(count):
        connections.append(await connect(run, port))
        await asyncio.sleep(GAP)
    return connections


async def keep_busy(run, port, connection):
    """One connection; a new one when the server has closed it and there is work left."""
    connection.send()
    await connection.closed
    while not run.over:
        connection = await connect(run, port)
        connection.send()
        await connection.closed


async def main(options):
    run = Run(options)
    connections = await connect_all(run, options.port, options.connections)
    run.start()
    tasks = []
    for connection in connections:
        tasks.append(asyncio.create_task(keep_busy(run, options.port, connection)))
        if options.ramp:
            await asyncio.sleep(options.ramp / options.connections)
    done, waiting = await asyncio.wait(tasks, timeout=options.seconds + PATIENCE)
    for task in done:
        task.result()
    for _ in waiting:
        run.record(run.started, LOST)
    print(json.dumps(run.summary()))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "connections", "first", "count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds to send the first ones")
    parser.add_argument("--key", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(arguments()))

"""What a provider call costs this process: `python -m bench.call [CALLS]`.

The same DELETE on loopback, one after the other under gevent, by `Upstream`, by `requests` and
by `http.client` alone. CPU time of this process; the provider is a process of its own.
"""

from gevent import monkey

monkey.patch_all()

import http.client
import sys
import time

import requests

from bench import processes
from puffle_accounts.upstream import Upstream

ROUNDS = 10  # in turns, and the best counts: what else the machine does is in none of them


def by_upstream(url):
    client = Upstream(
        "Bench",
        key_variable="BENCH_API_KEY",
        base_url_variable="BENCH_BASE_URL",
        base_url=url,
        authenticate=lambda key: {"Authorization": f"Bearer {key}"},
        code="code",
        is_gone=lambda body: False,
    )
    client.configure({"BENCH_API_KEY": "any", "BENCH_BASE_URL": url})
    return lambda: client.delete("things", "t-1", tried="thing delete")


def by_requests(url):
    session = requests.Session()
    headers = {"Authorization": "Bearer any"}
    return lambda: session.delete(f"{url}/things/t-1", headers=headers)


def by_http_client(url):
    origin, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(origin)
    headers = {"Authorization": "Bearer any", "Accept": "application/json"}

    def call():
        connection.request("DELETE", f"/{path}/things/t-1", headers=headers)
        connection.getresponse().read()

    return call


CLIENTS = {"Upstream": by_upstream, "requests": by_requests, "http.client": by_http_client}


def cpu_of(call, calls):
    """Return the microseconds of CPU that a call takes."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls * 1e6


def main():
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with processes.provider() as provider:
        url = f"http://127.0.0.1:{provider.port}/after/0"
        clients = {name: client(url) for name, client in CLIENTS.items()}
        rounds = [
            {name: cpu_of(call, calls) for name, call in clients.items()} for _ in range(ROUNDS)
        ]
    costs = {name: min(each[name] for each in rounds) for name in clients}
    for name, cost in costs.items():
        print(f"{name:12} {cost:6.1f} µs  {cost / costs['http.client']:5.2f} of http.client")


if __name__ == "__main__":
    main()

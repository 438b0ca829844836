"""What very many rows cost: `python -m bench.many --accounts 10000000 --orphans 1000000`.

PostgreSQL alone. The table is another's, with all its accounts in it, before `db upgrade` meets
it. Peak RSS is that of the command's process. The providers are a fake in this process.
"""

import argparse
import contextlib
import os
import subprocess
import threading
import time
from http.server import ThreadingHTTPServer

import psycopg

from bench import rows
from bench.databases import COMMAND, command
from bench.find import Inboxes
from bench.plans import plans_of_a_delete, plans_of_a_retry
from bench.retry import kilobyte
from tests.postgresql import postgres_server

SETTINGS = "-c max_connections=200"
NAMES = ("UNIPILE", "INSTANTLY", "AGENTMAIL")
EVERY = 0.02  # seconds between another's writes


def main():
    asked = arguments()
    with postgres_server(SETTINGS) as server, provider() as port:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            rows.accounts(connection, asked.accounts)
            print("| | seconds | CPU s | peak RSS, MB | |\n|---|---|---|---|---|", flush=True)
            run = Runner(url, port)
            with writes_of_another(url) as waits:
                run("db upgrade")
            print(f"\nlongest of {len(waits)} writes of another meanwhile: {max(waits):.2f} s\n")
            rows.orphans(connection, asked.accounts, asked.orphans)
            [(example,)] = connection.execute("SELECT id FROM orphans LIMIT 1").fetchall()
            sizes(connection)
        for words in (
            "db upgrade",
            "check --local",
            "orphans count --json",
            "orphans list",
            "orphans list --json",
            f"orphans drop {str(example)[:13]} --reason bench",
            "orphans adopt agentmail new@bench.example --reason bench",
        ):
            run(words)
        find(run, asked)
        run(f"orphans retry --limit {asked.limit}")
        explain(url, run.told)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("accounts", 1_000_000), ("orphans", 100_000), ("limit", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--held", type=int, default=100_000, help="what the provider holds")
    return parser.parse_args()


@contextlib.contextmanager
def provider():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inboxes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def writes_of_another(url):
    """Another service's writes: how long each of them took."""
    waits, ended = [], threading.Event()

    def write():
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.wait(EVERY):
                began = time.perf_counter()
                connection.execute(
                    "UPDATE accounts SET updated_at = now() WHERE id ="
                    " (SELECT id FROM accounts WHERE id > gen_random_uuid() ORDER BY id LIMIT 1)"
                )
                waits.append(time.perf_counter() - began)

    writer = threading.Thread(target=write)
    writer.start()
    yield waits
    ended.set()
    writer.join()


class Runner:
    """Runs commands of the product and prints what each took."""

    def __init__(self, url, port):
        clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        at = {f"{name}_BASE_URL": f"http://127.0.0.1:{port}" for name in NAMES}
        keys = {f"{name}_API_KEY": "any" for name in NAMES}
        self.told = clean | at | keys | {"DATABASE_URL": url}

    def __call__(self, words):
        began = time.perf_counter()
        process = subprocess.Popen(
            [COMMAND, *words.split()],
            env=self.told,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        lines = bool(process.stdout.readline())
        first = time.perf_counter() - began
        lines += sum(1 for _ in process.stdout)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = f"exit {process.returncode}, {lines} lines, the first after {first:.1f} s"
        print(
            f"| `{words}` | {time.perf_counter() - began:.1f}"
            f" | {used.ru_utime + used.ru_stime:.1f} | {used.ru_maxrss * kilobyte() / 1e6:.0f}"
            f" | {said} |",
            flush=True,
        )


def find(run, asked):
    """Half of what the provider holds are accounts', and of the others every second is nobody's."""
    Inboxes.numbers = range(asked.accounts - asked.held, asked.accounts + asked.held, 2)
    for words in (
        "orphans find --plugin agentmail --json",
        "orphans find --plugin agentmail --missing --json",
    ):
        run(words)


def sizes(connection):
    for name in ("accounts", "orphans", "idempotency_keys"):
        table, indexes = connection.execute(
            "SELECT pg_size_pretty(pg_table_size(%s)), pg_size_pretty(pg_indexes_size(%s))",
            [name, name],
        ).fetchone()
        print(f"{name}: {table}, indexes {indexes}", flush=True)


def explain(url, told):
    key = command(url, "keys", "create", rows.USER_ID)
    for title, found in (
        ("a DELETE", plans_of_a_delete(told, url, key)),
        ("a retry", plans_of_a_retry(told, url)),
    ):
        print(f"\nStatements of {title}:\n\n| ms | scans | |\n|---|---|---|")
        for plan in found:
            print(f"| {plan.ms:.2f} | {', '.join(plan.scans)} | `{plan.statement[:70]}` |")


if __name__ == "__main__":
    main()

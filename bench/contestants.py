"""Who is measured: how each is started, with two worker processes."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import processes

ROOT = processes.ROOT
PEERS = ROOT / "bench" / "peers"
BIN = Path(sys.executable).parent
KEY = "a-key-of-all-providers"
GUNICORN = f"{BIN}/gunicorn --workers 2 --bind 127.0.0.1:{{port}} --log-level warning"


@dataclass(frozen=True)
class Contestant:
    name: str
    title: str
    command: str
    cwd: Path = PEERS  # not the root: gunicorn would read the product's gunicorn.conf.py there
    databases: tuple = ("PostgreSQL", "SQLite")
    floor: bool = False  # not a service
    calls: bool = True  # the providers, unlike a floor that suits only scenarios without a call

    def suits(self, scenario):
        if self.floor and (scenario.hung or self.calls != bool(scenario.delay)):
            return False
        return scenario.database in self.databases

    def start(self, database, provider, *options, delay, agentmail=None, **variables):
        """This contestant's server, its providers answering after `delay` milliseconds."""
        port = processes.free_port()
        words = [*self.command.format(port=port).split(), *options]
        told = environment(provider.port, delay, delay if agentmail is None else agentmail)
        told |= {"PORT": str(port), "DATABASE_URL": database.url}
        return processes.running(words, port, self.cwd, told | variables)


def environment(provider_port, delay, agentmail):
    """Where the providers are, and how long they take; proxies of this machine have no part."""
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    after = f"http://127.0.0.1:{provider_port}/after"
    return clean | {
        "UNIPILE_BASE_URL": f"{after}/{delay}/unipile/api/v1",
        "UNIPILE_API_KEY": KEY,
        "INSTANTLY_BASE_URL": f"{after}/{delay}/instantly",
        "INSTANTLY_API_KEY": KEY,
        "AGENTMAIL_BASE_URL": f"{after}/{agentmail}/agentmail",
        "AGENTMAIL_API_KEY": KEY,
    }


GEVENT = Contestant("gevent", "puffle gevent", f"{GUNICORN} --worker-class gevent wsgi:app", ROOT)
GTHREAD = Contestant(
    "gthread", "puffle gthread", f"{GUNICORN} --worker-class gthread wsgi:app", ROOT
)
PLAIN_FLASK = Contestant(
    "flask",
    "plain Flask",
    f"{GUNICORN} --no-control-socket --worker-class gthread --threads 32 plain_flask:app",
)
FASTAPI = Contestant(
    "fastapi",
    "FastAPI",
    f"{BIN}/uvicorn --workers 2 --port {{port}} --no-access-log --log-level warning"
    " fastapi_app:app",
)
FASTIFY = Contestant(
    "fastify", "Fastify", "node server.js", PEERS / "fastify", databases=("PostgreSQL",)
)
HELLO = Contestant(
    "hello",
    "floor: gunicorn hello world",
    f"{GUNICORN} --no-control-socket --worker-class gevent hello:app",
    databases=("PostgreSQL",),
    floor=True,
    calls=False,
)
PGBENCH = Contestant(
    "pgbench",
    "floor: pgbench, same statements",
    "",
    databases=("PostgreSQL",),
    floor=True,
    calls=False,
)
FLOOR = Contestant(
    "floor", "floor: same calls and statements", "", databases=("PostgreSQL",), floor=True
)
CONTESTANTS = (GEVENT, GTHREAD, PLAIN_FLASK, FASTAPI, FASTIFY, HELLO, PGBENCH, FLOOR)


def available():
    """The contestants that this machine can run."""
    if node_is_ready():
        return CONTESTANTS
    print("Fastify is left out: it needs Node 20 or newer, and npm.")
    return tuple(contestant for contestant in CONTESTANTS if contestant is not FASTIFY)


def node_is_ready():
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    # No lock file: it would name the registry that this machine happens to use.
    words = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run(words, cwd=FASTIFY.cwd).returncode == 0

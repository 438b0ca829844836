"""Everything that runs: a primary and its standby, providers, services, retriers, nginx."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from cluster import Cluster
from support import ROOT, Gunicorn, Stack, free_port, wait_until, write_distribution

from soak.book import Book
from soak.database import Sql
from soak.providers import RETRIERS, SERVICE, Crm, Providers

WORKERS = 2
TEARDOWN = 2.0  # seconds for all hooks of a request
LEASE = TEARDOWN + 10.0
EVERY = 1.0  # seconds between two passes of a retrier
DISK = "600m"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CRM = '''
"""A provider of somebody else's, whose id stands in `metadata`."""

from puffle_accounts import hookimpl
from puffle_accounts.upstream import Upstream

RESOURCE_IDS = ("metadata.soak_contact",)

crm = Upstream(
    "Soak CRM",
    key_variable="SOAK_CRM_API_KEY",
    base_url_variable="SOAK_CRM_BASE_URL",
    base_url="https://crm.example",
    authenticate=lambda key: {"Authorization": f"Bearer {key}"},
    code="code",
    is_gone=lambda body: body.get("code") == "not_found",
)


@hookimpl
def teardown_account(account):
    contact = str(account.metadata["soak_contact"])
    removed = crm.delete("v0", "inboxes", contact, tried="contact delete")
    return "contact deleted" if removed else "contact was not there"
'''
#: libfaketime makes the system call of `time.sleep` fail where it leaves the monotonic clock alone.
CUSTOM = """
import os, select, time
if "FAKETIME" in os.environ:
    time.sleep = lambda seconds: select.select([], [], [], seconds)
"""
GATEWAY = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream accounts {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://accounts; proxy_next_upstream off; proxy_read_timeout 60s;
      proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


@contextmanager
def disk():
    """A small disk for the database, which can be filled; a folder where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="puffle-soak-"))
    words = ("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder))
    mounted = os.geteuid() == 0 and not subprocess.run(words, capture_output=True).returncode
    folder.chmod(0o755)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder if mounted else None
    finally:
        tempfile.tempdir = before
        if mounted:
            subprocess.run(("umount", "--lazy", str(folder)), check=False)
        shutil.rmtree(folder, ignore_errors=True)


class Service:
    """A gunicorn on a port that stays its own, as a service manager's socket does."""

    def __init__(self, world, number):
        self._world = world
        self._log = world.folder / f"service-{number}.log"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.process = None

    def start(self, **environ):
        gunicorn = Gunicorn(
            self._world.stack,
            self._log,
            *("--workers", str(WORKERS)),
            listener=self._listener,
            **self._world.environ_of(SERVICE),
            **environ,
        )
        self.process = gunicorn.process

    def workers(self):
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def restart(self, number=signal.SIGTERM, **environ):
        """End the master by a signal, and start another."""
        group = self.workers()
        self.end(number)
        psutil.wait_procs(group, timeout=TEARDOWN + 10)
        self.start(**environ)

    def end(self, number=signal.SIGTERM):
        _end(self._world, self.process, number)


class Retrier:
    """`orphans retry --every`."""

    def __init__(self, world, number):
        self._world, self._address = world, RETRIERS[number]
        self._log = world.folder / f"retrier-{number}.log"

    def start(self, **environ):
        words = ("-m", "puffle_accounts", "orphans", "retry", "--every", str(EVERY))
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=self._world.stack.process_environ(
                    **self._world.environ_of(self._address), **environ
                ),
                stdout=log,
                stderr=log,
            )

    def restart(self, number=signal.SIGTERM, **environ):
        self.end(number)
        self.start(**environ)

    def end(self, number=signal.SIGTERM):
        _end(self._world, self.process, number)


class World:
    """A context manager; everything is up when it has been entered."""

    def __init__(self):
        self.book = Book()

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            self.disk = stack.enter_context(disk())
            self.cluster = stack.enter_context(Cluster())
            self.primary, self.standby = self.cluster.a, self.cluster.b
            self.providers = stack.enter_context(Providers(self.book))
            self.crm = stack.enter_context(Crm(self.book))
            self._migrate()
            self.services = [Service(self, number) for number in range(2)]
            self.retriers = [Retrier(self, number) for number in range(2)]
            for each in (*self.services, *self.retriers):
                each.start()
                stack.callback(_kill, each)
            self.url = self._gateway(stack) if NGINX else f"http://{self.services[0].address}"
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._closing.close()

    def _migrate(self):
        write_distribution(self.folder / "site", "soak-crm", CRM)
        (self.folder / "site" / "sitecustomize.py").write_text(CUSTOM)
        paths = [str(self.folder / "site"), os.environ.get("PYTHONPATH", "")]
        self.stack = Stack(
            self.cluster.url(self.cluster.a.host),
            self.providers,
            PYTHONPATH=os.pathsep.join(filter(None, paths)),
            PUFFLE_TEARDOWN_TIMEOUT=str(TEARDOWN),
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            NO_PROXY="*",
        )
        self.stack.database.close_all()
        self.stack.environ["DATABASE_URL"] = self.cluster.url()
        self.sql = Sql(self.cluster.url())

    def environ_of(self, caller):
        """Where the plugins of a process find their providers."""
        crm = self.crm.environment_of(caller)
        return self.providers.environment_of(caller) | {
            "SOAK_CRM_BASE_URL": crm["AGENTMAIL_BASE_URL"],
            "SOAK_CRM_API_KEY": crm["AGENTMAIL_API_KEY"],
        }

    def _gateway(self, stack):
        folder = self.folder / "nginx"
        folder.mkdir()
        port = free_port()
        servers = "".join(f"server {each.address} max_fails=0;" for each in self.services)
        (folder / "conf").write_text(
            GATEWAY.format(
                folder=folder,
                servers=servers,
                port=port,
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        process = subprocess.Popen([NGINX, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return f"http://127.0.0.1:{port}"

    def upstream(self, provider):
        """Return the stand-in that has a provider, and its name there."""
        return (self.crm, "agentmail") if provider == "crm" else (self.providers, provider)

    def holds(self, provider, resource):
        stand_in, name = self.upstream(provider)
        return stand_in.holds(name, resource)

    def memory(self):
        """Resident megabytes of services and retriers."""
        trees = [psutil.Process(each.process.pid) for each in (*self.services, *self.retriers)]
        found = [process for tree in trees for process in (tree, *tree.children(recursive=True))]
        return round(sum(map(_resident, found)) / 2**20)

    def connections(self):
        """Connections at the database, but the soak's own."""
        clients = "backend_type = 'client backend' AND application_name <> 'soak'"
        [(count,)] = self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {clients}")
        return count

    def are_up(self):
        """Whether every service has all its workers."""
        return all(len(each.workers()) == WORKERS for each in self.services)

    def wait_until_up(self, seconds=30):
        with suppress(AssertionError):
            wait_until(self.are_up, seconds)


def _end(world, process, number):
    """Send a signal that a process must end by; one that does not is found wrong, and killed."""
    process.send_signal(number)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        world.book.found_wrong("processes", f"{process.args} did not end by signal {number}")
        process.kill()
        process.wait()


def _resident(process):
    with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
        return process.memory_info().rss
    return 0


def _kill(unit):
    process = psutil.Process(unit.process.pid) if psutil.pid_exists(unit.process.pid) else None
    for each in (*process.children(recursive=True), process) if process else ():
        with suppress(psutil.NoSuchProcess):
            each.kill()
    unit.process.wait()


def sleep_until(moment):
    time.sleep(max(moment - time.time(), 0))

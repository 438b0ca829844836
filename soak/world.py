"""Everything that runs: PostgreSQL and its standby, services, retriers, and who is around them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from cluster import Cluster
from receiver import Receiver
from support import Stack, wait_until, write_distribution
from wire import self_signed

from soak import gateway
from soak.book import Book
from soak.database import Sql
from soak.gateway import NGINX
from soak.providers import Crm, Providers
from soak.units import TEARDOWN, WORKERS, Retrier, Service

TRACED, POOLED, DIRECT = 0, 1, None  # which service and which retrier
INSTRUMENT = str(Path(sys.executable).parent / "opentelemetry-instrument")
DISK = "600m"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
CRM = '''
"""A provider of somebody else's, whose id stands in `metadata`."""

import os
import random

from puffle_accounts import hookimpl
from puffle_accounts.upstream import Upstream, resource

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


class Rude(BaseException):
    def __str__(self):
        raise self


RUDENESS = SystemExit, GeneratorExit, MemoryError, RecursionError, Rude


def rude(*besides):
    if os.path.exists(os.environ["SOAK_RUDE"]):
        raise random.choice(RUDENESS + besides)


@hookimpl
def teardown_account(account):
    rude(KeyboardInterrupt)
    contact = str(account.metadata["soak_contact"])
    removed = crm.delete("v0", "inboxes", contact, tried="contact delete")
    return "contact deleted" if removed else "contact was not there"


@hookimpl
def find_resources():
    rude()  # a command believes that its user has interrupted it
    listed = crm.pages(
        "v0",
        "inboxes",
        items="inboxes",
        cursor="next_page_token",
        cursor_param="page_token",
        limit=100,
        tried="contact list",
    )
    for item in listed:
        yield resource(item, "inbox_id", created_at="created_at")
'''
#: libfaketime makes the system call of `time.sleep` fail where it leaves the monotonic clock alone.
CUSTOM = """
import os, select, time
if "LD_PRELOAD" in os.environ:
    time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


@contextmanager
def disk():
    """A small disk for the database, which can be filled; a folder where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="puffle-soak-"))
    words = ("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder))
    mounted = os.geteuid() == 0 and not subprocess.run(words, capture_output=True).returncode
    folder.chmod(0o755)
    try:
        yield folder, mounted
    finally:
        if mounted:
            subprocess.run(("umount", "--lazy", str(folder)), check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _temporary(folder):
    """Let what is made meanwhile be made there."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


class World:
    """A context manager; everything is up when it has been entered."""

    def __init__(self):
        self.book = Book()

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            room, mounted = stack.enter_context(disk())
            self.disk = room if mounted else None
            with _temporary(room):
                self.cluster = stack.enter_context(Cluster())
            self.primary, self.standby = self.cluster.a, self.cluster.b
            self.pooler = gateway.pooler(self.primary)
            if self.pooler:
                stack.enter_context(self.pooler)
            self.receiver = stack.enter_context(Receiver(self_signed(self.folder / "tls.pem")))
            self.providers = stack.enter_context(Providers(self.book))
            self.crm = stack.enter_context(Crm(self.book))
            self._migrate()
            self.services = [Service(self, number) for number in range(2)]
            self.retriers = [Retrier(self, number) for number in range(2)]
            for each in (*self.services, *self.retriers):
                each.start()
                stack.callback(each.kill)
            self.url = f"http://{self.services[0].address}"
            self.is_behind_gateway = bool(NGINX)
            if NGINX:
                self.url = stack.enter_context(gateway.nginx(self.folder / "nginx", self.services))
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._closing.close()

    def _migrate(self):
        self.rude = self.folder / "rude"  # while it is there, the third party's plugin raises
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
            SOAK_RUDE=str(self.rude),
        )
        self.stack.database.close_all()
        self.stack.environ["DATABASE_URL"] = self.cluster.url()
        self.sql = Sql(self.cluster.url())

    def environ_of(self, caller, number):
        """Where a process finds its providers, its database, and who is told of its work.

        The first service and retrier are traced; the second ones are behind a pooler.
        """
        crm = self.crm.environment_of(caller)
        environ = self.providers.environment_of(caller) | {
            "SOAK_CRM_BASE_URL": crm["AGENTMAIL_BASE_URL"],
            "SOAK_CRM_API_KEY": crm["AGENTMAIL_API_KEY"],
        }
        if number == POOLED and self.pooler:
            environ["DATABASE_URL"] = self.pooler.url
        return environ | (self.receiver.environ if number == TRACED else {})

    def told_by(self, number, environ):
        """Return the command that starts what is traced; it would undo what a wrong clock needs."""
        is_traced = number == TRACED and "LD_PRELOAD" not in environ
        return (sys.executable, INSTRUMENT) if is_traced else ()

    def fail_over(self):
        """The standby takes over, and whoever has to be told is."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        if self.pooler:
            self.pooler.point_to(gateway.behind(self.primary))
        self.primary.set("synchronous_standby_names", "")

    def upstream(self, provider):
        """Return the stand-in that has a provider, and its name there."""
        return (self.crm, "agentmail") if provider == "crm" else (self.providers, provider)

    def holds(self, provider, resource):
        stand_in, name = self.upstream(provider)
        return stand_in.holds(name, resource)

    def alive(self):
        """Return all that there is upstream, as (provider, resource)."""
        return self.providers.alive() | self.crm.alive()

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

    def wait_until_up(self, seconds=90):
        with suppress(AssertionError):
            wait_until(self.are_up, seconds)


def _resident(process):
    with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
        return process.memory_info().rss
    return 0


def sleep_until(moment):
    time.sleep(max(moment - time.time(), 0))

"""nginx before the services, and PgBouncer before the database, where this machine has them."""

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

from pgbouncer import PROGRAM as PGBOUNCER
from pgbouncer import PgBouncer
from support import free_port

from soak.book import Trouble

LOOKED = 1.0  # seconds at most since it was looked after
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
#: As one sets it who expects failovers: by default a server that was away is asked after 15 s.
POOLER = {
    "pool_mode": "transaction",
    "default_pool_size": 20,
    "max_client_conn": 500,
    "server_login_retry": 1,
}
CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream accounts {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    add_header Soak-Service $upstream_addr always;
    location / {{
      proxy_pass http://accounts; proxy_next_upstream off; proxy_read_timeout 60s;
      proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


@contextmanager
def nginx(folder, services):
    """Yield the URL of a gateway in front of services."""
    folder.mkdir()
    port = free_port()
    servers = "".join(f"server {each.address} max_fails=0;" for each in services)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(
        CONFIGURATION.format(folder=folder, servers=servers, port=port, user=user)
    )
    process = subprocess.Popen([NGINX, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def pooler(node):
    """Return a pooler in front of a server, `None` where there is no program for it."""
    return Pooler(behind(node), **POOLER) if PGBOUNCER else None


class Pooler(PgBouncer):
    """PgBouncer, as a service manager has it."""

    def __init__(self, *args, **settings):
        self.lock = threading.Lock()  # held while it is stopped on purpose
        super().__init__(*args, **settings)

    def look_after(self, book):
        """Start it again if it has ended by itself, which is no fault of the product's."""
        if self.process.poll() is None or not self.lock.acquire(blocking=False):
            return
        try:
            said = self.log().rpartition("FATAL")[2].strip()
            trouble = Trouble("database", "pooler crashed", time.time() - LOOKED, whom=said)
            book.troubles.append(trouble)
            self.stop()
            self.start()
            trouble.ended = time.time()
        finally:
            self.lock.release()


def behind(node):
    """Return the URL by which a pooler reaches a server."""
    return f"postgresql:///postgres?host={node.folder.parent}&port={node.port}"

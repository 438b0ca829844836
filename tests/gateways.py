"""nginx and Caddy as Debian has them, with the sites of deploy/ in front of instances of a test."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from support import ROOT, free_port, wait_until

WHERE = f"{os.environ.get('PATH', '')}:/usr/sbin"
INSTANCES = re.compile(r"127\.0\.0\.1:800[01]\b")

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""
CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


class Gateway:
    """A program with its site, changed in nothing but addresses, certificate and log.

    Args:
        instances: addresses of the service, `host:port`; two, as in the site.
        certificate: key and certificate in one file.
    """

    program = "?"
    site = Path()

    def __init__(self, instances: list[str], certificate: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"puffle-{self.program}-"))
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        addresses = iter(instances)
        text = INSTANCES.sub(lambda _: next(addresses), self.site.read_text())
        assert next(addresses, None) is None, "each has its place"
        shutil.copy(certificate, self.folder / "certificate.pem")
        command = self._prepare(text)
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "HOME": str(self.folder)}
            )
        try:
            wait_until(self._listens)
        except BaseException:
            self.__exit__()
            raise

    def _prepare(self, text: str) -> list[str | Path]:
        raise NotImplementedError

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log()
        with suppress(OSError), socket.create_connection(("localhost", self.port), 1):
            return True
        return False

    def log(self) -> str:
        """Return all that it has logged."""
        return "\n".join(path.read_text() for path in self.folder.glob("*log"))

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.folder)


class Nginx(Gateway):
    program = "nginx"
    site = ROOT / "deploy" / "nginx" / "puffle-accounts.conf"

    def _prepare(self, text: str) -> list[str | Path]:
        text = re.sub("listen 443 ", f"listen 127.0.0.1:{self.port} ", text)
        text = re.sub(r"/etc/ssl/\S+(?=;)", f"{self.folder}/certificate.pem", text)
        text = text.replace("/var/log/nginx/puffle-accounts.log", f"{self.folder}/access.log")
        (self.folder / "site.conf").write_text(text)
        (self.folder / "nginx.conf").write_text(NGINX.format(folder=self.folder))
        self.folder.chmod(0o755)  # its worker is somebody else
        return [shutil.which("nginx", path=WHERE), "-p", self.folder, "-c", "nginx.conf"]

    def take_out(self, address: str) -> None:
        """Send nothing more there, as the site says how."""
        self._reload(f"server {address} ", f"server {address} down ")

    def put_back(self, address: str) -> None:
        self._reload(f"server {address} down ", f"server {address} ")

    def _reload(self, line: str, instead: str) -> None:
        site, gone = self.folder / "site.conf", "exited with code 0"
        text = site.read_text()
        assert line in text
        site.write_text(text.replace(line, instead))
        before = self.log().count(gone)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count(gone) > before)  # with what it had under way


class Caddy(Gateway):
    program = "caddy"
    site = ROOT / "deploy" / "caddy" / "Caddyfile"

    def _prepare(self, text: str) -> list[str | Path]:
        pem = self.folder / "certificate.pem"
        ours = f"https://localhost:{self.port} {{\n\ttls {pem} {pem}"
        config = self.folder / "Caddyfile"
        config.write_text(CADDY + text.replace("accounts.example.com {", ours))
        return [shutil.which("caddy"), "run", "--adapter", "caddyfile", "--config", config]


def needed(gateway: type[Gateway]) -> pytest.MarkDecorator:
    """Skip where the program is missing."""
    return pytest.mark.skipif(
        shutil.which(gateway.program, path=WHERE) is None,
        reason=f"{gateway.program} is not installed: apt-get install {gateway.program}",
    )

"""What gunicorn's master has imported before its workers are patched by gevent."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from forked import UNPATCHED
from support import only
from wire import Wire, answer, hear, server_side

from puffle_accounts import processes
from puffle_accounts.hooks.hookspecs import GROUP

#: What the master does before it forks, by gunicorn's own code, and then what its worker does.
MASTER = """
import importlib, json, sys, warnings

for name in sys.argv[1:]:
    importlib.import_module(name)
sys.argv = ["gunicorn", "--config", "python:puffle_accounts.serving", "puffle_accounts.wsgi:app"]
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter

arbiter = Arbiter(WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]"))
arbiter.cfg.on_starting(arbiter)
assert arbiter.worker_class.__name__ == "GeventWorker"
modules = sorted(sys.modules)

import _ssl, ssl
users = {
    name.partition(".")[0]
    for name, module in list(sys.modules.items())
    if any(value is ssl or value is ssl.SSLContext for value in list(vars(module).values()))
}

from gevent import monkey
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    monkey.patch_all()

contexts = {  # whoever took the class before the patch has the unpatched one for good
    value
    for name, module in list(sys.modules.items())
    if name.partition(".")[0] != "gevent"
    for value in list(vars(module).values())
    if isinstance(value, type) and issubclass(value, _ssl._SSLContext)
} - {_ssl._SSLContext}
assert ssl.SSLContext in contexts
tls = "works"
for context in contexts:
    try:
        context(ssl.PROTOCOL_TLS_CLIENT).minimum_version = ssl.TLSVersion.TLSv1_2
    except RecursionError as error:
        tls = repr(error)
print(json.dumps({
    "modules": modules,
    "users": sorted(users - sys.stdlib_module_names - {"__main__", "gunicorn", "gevent"}),
    "warned": [str(w.message) for w in warned if w.category is monkey.MonkeyPatchWarning],
    "tls": tls,
}))
"""

#: Of ours; every import of `puffle_accounts.x` also runs what the package itself imports.
HARMLESS = {
    "puffle_accounts",
    *(
        f"puffle_accounts.{name}"
        for name in (
            *("serving", "config", "environment", "logs", "context"),
            *("text", "disguises", "streams", "errors", "clock", "processes"),
            *(f"processes.{path.stem}" for path in Path(processes.__file__).parent.glob("*.py")),
            *("account", "resources", "hooks", "hooks.hookspecs"),
        )
    ),
}


@pytest.mark.parametrize("further", [(), UNPATCHED], ids=["alone", "as the tests fork it"])
def test_the_master_imports_nothing_that_has_to_be_patched_first(further, tmp_path):
    command = [sys.executable, "-c", MASTER, *further]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    modules = set(told["modules"])
    ours = {name for name in modules if name.partition(".")[0] == "puffle_accounts"}
    assert "puffle_accounts.serving" in ours
    assert ours <= HARMLESS
    plugins = {point.module for point in entry_points(group=GROUP)}
    others = {"urllib3", "requests", "httptools", "psycopg", "psycopg_pool", "peewee", "playhouse"}
    assert modules & (plugins | others) == set()
    assert (told["users"], told["warned"], told["tls"]) == ([], [], "works")


@only("sqlite")
def test_under_gevent_a_provider_is_reached_by_tls(stack, gunicorn, certificate):
    heard = []

    def serve(connection, _):
        with tls.wrap_socket(connection, server_side=True) as secure:
            heard.append(hear(secure))
            secure.sendall(answer(200))

    tls = server_side(certificate)
    account = stack.add_linkedin()
    with Wire(serve) as wire:
        gunicorn(
            *("--worker-class", "gevent"),
            UNIPILE_BASE_URL=f"https://localhost:{wire.port}/api/v1",
            REQUESTS_CA_BUNDLE=str(certificate),
        )
        assert stack.delete(account).headers["Teardown-Status"] == "complete"
    [request] = heard
    assert request.startswith(b"DELETE /api/v1/accounts/")

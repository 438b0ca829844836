"""Wire the parts together."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flask import Flask, Request
from werkzeug.exceptions import NotFound
from werkzeug.routing import MapAdapter

from puffle_accounts import cli, database, gauges, logs, start, streams
from puffle_accounts.api import problems, views
from puffle_accounts.config import Config
from puffle_accounts.database.models import MODELS
from puffle_accounts.hooks import loading
from puffle_accounts.hooks.registry import Plugins
from puffle_accounts.service import Service
from puffle_accounts.telemetry import telemetry
from puffle_accounts.text import hide_secrets_of


class PathRouted(Flask):
    """Routes by path and method alone; no `Host` or `Upgrade` header can make a request fail."""

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        raw = request.environ.get("RAW_URI", "").partition("?")[0].lower()
        # Werkzeug looks past the first slashes, and a quoted slash separates nothing.
        if request.environ["PATH_INFO"].startswith("//") or "%2f" in raw:
            raise NotFound
        return self.url_map.bind("", path_info=request.path, default_method=request.method)


def create_app(environ: Mapping[str, str] | None = None, plugins: Plugins | None = None) -> Flask:
    """Return the application; the database is not opened before it is needed.

    Args:
        environ: what to read the configuration from, the process's environment by default.
        plugins: to use instead of those that are installed, for tests.

    Raises:
        ConfigError: a variable has a value that cannot be used.
    """
    streams.replace_closed()
    environ = os.environ if environ is None else environ
    hide_secrets_of(environ)
    config = Config.from_environ(environ)
    logs.configure(config.log_format, telemetry.add_ids)
    store = database.connect(config.database_url)
    store.bind(MODELS)
    loaded = plugins or loading.load(config.plugin_calls, config.disabled_plugins)
    loading.configure(loaded, environ)
    start.warn_of_unknown(environ, loaded)
    service = Service(store, loaded, config.teardown_timeout)
    gauges.of_process(service)

    app = PathRouted("puffle_accounts", static_folder=None)
    problems.init_app(app)
    views.init_app(app, service)
    cli.init_app(app, service)
    return app

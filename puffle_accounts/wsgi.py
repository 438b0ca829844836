"""What gunicorn serves: `puffle_accounts.wsgi:app`."""

from puffle_accounts.errors import ConfigError
from puffle_accounts.processes import instrumented
from puffle_accounts.processes.refusal import refuse

instrumented.in_worker()  # before Flask is imported, which it replaces

from puffle_accounts.app import create_app  # noqa: E402

try:
    app = create_app()
except ConfigError as error:
    refuse(error)  # with the status that halts the master: it would begin a worker for ever

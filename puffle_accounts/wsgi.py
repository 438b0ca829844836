"""What gunicorn serves: `puffle_accounts.wsgi:app`."""

import sys

from puffle_accounts import instrumented
from puffle_accounts.errors import ConfigError

instrumented.in_worker()  # before Flask is imported, which it replaces

from puffle_accounts.app import create_app  # noqa: E402

try:
    app = create_app()
except ConfigError as error:
    print(f"puffle-accounts: {error}", file=sys.stderr)
    sys.exit(4)  # gunicorn's APP_LOAD_ERROR: halt instead of restarting the worker for ever

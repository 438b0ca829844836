"""What gunicorn serves: `puffle_accounts.wsgi:app`."""

import sys

from puffle_accounts.app import create_app
from puffle_accounts.errors import ConfigError

try:
    app = create_app()
except ConfigError as error:
    print(f"puffle-accounts: {error}", file=sys.stderr)
    sys.exit(4)  # gunicorn's APP_LOAD_ERROR: halt instead of restarting the worker for ever

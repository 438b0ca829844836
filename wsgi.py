"""What gunicorn and `flask --app wsgi` serve from a checkout; it stands in the package."""

from puffle_accounts.wsgi import app

__all__ = ["app"]

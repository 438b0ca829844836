"""The HTTP client for plugins: what a provider's answer means, and no surprises on the way.

    provider = Upstream(
        "Example",
        key_variable="EXAMPLE_API_KEY",
        base_url_variable="EXAMPLE_BASE_URL",
        base_url="https://api.example.com/v1",
        authenticate=lambda key: {"Authorization": f"Bearer {key}"},
        code="error.code",
        is_gone=lambda body: body.get("error") == {"code": "not_found"},
    )

    removed = provider.delete("things", thing_id, tried="thing delete")

How it is sent is in `transport`.
"""

from puffle_accounts.errors import UpstreamFailed
from puffle_accounts.upstream.client import Upstream
from puffle_accounts.upstream.credentials import ClientCredentials, basic, in_query
from puffle_accounts.upstream.lists import resource
from puffle_accounts.upstream.session import request_id, seconds_left

__all__ = [
    "ClientCredentials",
    "Upstream",
    "UpstreamFailed",
    "basic",
    "in_query",
    "request_id",
    "resource",
    "seconds_left",
]

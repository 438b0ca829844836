"""What every plugin has to prove, for authors to inherit."""

from __future__ import annotations

from puffle_accounts.testing.answers import Answers
from puffle_accounts.testing.connections import Connections
from puffle_accounts.testing.hooks import Hooks
from puffle_accounts.testing.ids import Ids
from puffle_accounts.testing.secrets import Secrets


class PluginConformance(Answers, Connections, Ids, Secrets, Hooks):
    """Prove that a plugin does what the service counts on.

    Inherit it in a class whose name begins with `Test`, and say:

    - `plugin`: the module, or an object with methods that are marked with `@hookimpl`.
    - `theirs`: an `Account` of which the plugin holds something: `account(metadata={…})`.
    - `not_theirs`: one of which it holds nothing, or several in a tuple.
    - `key_variable`: the environment variable with its key.
    - `done`: the `Reply` of the provider that ends it well.
    - `gone`: the one that says that there is nothing (any more), or several in a tuple.

    If the plugin has `find_resources`:

    - `pages`: what the provider answers, page by page, in a tuple.
    - `listed`: the ids that these name, in a tuple.

    And where it applies:

    - `first`: replies to what is asked before anything else, such as for a token.
    - `before`: replies to what is asked before the call that `done` and `gone` answer.
    - `temporary`, `permanent`: more of the provider's own replies, which pass, or do not.
    - `accepted`: what answers `check_provider`; the first of `pages` or `{}` by default.
    - `base_url_variable`: the variable with the base URL, for a plugin without an `Upstream`.
    - `key`: the key to use, if the default is none of the provider's form.
    - `patience`: seconds that a call has where the provider is silent, 0.4 by default.

    What is proved: accounts of others are left alone without a call; done, gone, and each
    status of the answer table with the right `permanent` and `retry_after`; odd bodies;
    redirects; refused, slow, dripping and broken connections; twice in a row; a missing key;
    `RESOURCE_IDS` that fit what is called; a hostile id stays in its segment of the path; the
    list to its last page; the check for a wrong key, a wrong URL and a silent host; and no key
    in anything that is said or logged.
    """

"""Who asks providers what nobody names: `orphans find`, and `orphans adopt` of what it shows."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from itertools import cycle

from support import ROOT

from soak.actors import Background
from soak.book import Search
from soak.books import SETTLING
from soak.providers import OPERATOR
from soak.world import DIRECT, POOLED

FOUND, NOT_ASKED = 1, 2  # exit statuses
PAUSE = 3.0  # seconds between two searches
LONGEST = 150  # seconds that a command may take, whatever the providers do
REASON = "its provider said that it was gone"
PLUGINS = {"crm": "soak-crm"}  # those that are called otherwise than their provider
PROVIDERS = {plugin: provider for provider, plugin in PLUGINS.items()}
IN_USE = "Error: a live account uses "
DATABASE = "Error: database: "
NOBODY_SAID = re.compile(r"^\S+ could not be asked: \S", re.MULTILINE)


class Commands:
    """The commands as an operator runs them; what is no documented end of one is found wrong."""

    def __init__(self, world):
        self._world, self._book = world, world.book

    def find(self, number=DIRECT):
        """Ask all providers; return the search, which is written down.

        Args:
            number: whose way to the database is taken.
        """
        search = Search(time.time())
        search.status, out, err = self._run(number, "find", "--older-than", "0", "--json")
        search.ended = time.time()
        with suppress(ValueError):  # it ended before it showed anything
            rows = json.loads(out)
            search.shown = {(_provider(row["plugin"]), row["resource_id"]) for row in rows}
        self._book.searches.append(search)
        self._judge("orphans find", wrong_of_find(search, err), search)
        return search

    def adopt(self, places, number=DIRECT):
        """Make orphans of what was found; return of how many."""
        adopted = 0
        for provider in sorted({provider for provider, _ in places}):
            ids = sorted(resource for other, resource in places if other == provider)
            words = (PLUGINS.get(provider, provider), *ids, "--reason", REASON)
            search = Search(time.time())
            search.status, out, err = self._run(number, "adopt", *words)
            search.ended = time.time()
            adopted += sum(line.startswith("adopted ") for line in out.splitlines())
            self._judge("orphans adopt", _wrong_of_adopt(search, err), search)
        return adopted

    def _run(self, number, *words):
        """Run a command; return its status, `None` if it had to be killed, and what it said."""
        environ = self._world.stack.process_environ(**self._world.environ_of(OPERATOR, number))
        program = (sys.executable, "-m", "puffle_accounts", "orphans", *words)
        try:
            ran = subprocess.run(
                program, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return None, "", ""
        with (self._world.folder / "operator.log").open("a") as log:
            log.write(f"{words[0]}: status {ran.returncode}\n{ran.stderr}")
        return ran.returncode, ran.stdout, ran.stderr

    def _judge(self, command, wrong, search):
        """Keep what is wrong with a command, unless the database was away and that is what it said.

        `wrong` is empty, `DATABASE` if that is what stood in its way, or what is wrong.
        """
        if wrong == DATABASE:
            margin = SETTLING["database"] + self._book.lag(search.began, search.ended)
            troubled = self._book.was_troubled("database", search.began, search.ended, margin)
            wrong = "" if troubled else "the database was in its way, and it was well"
        if wrong:
            self._book.mistaken.append((command, wrong))


def _provider(plugin):
    return PROVIDERS.get(plugin, plugin)


def wrong_of_find(search, err):
    right = {
        0: not search.shown,
        FOUND: bool(search.shown),
        NOT_ASKED: bool(NOBODY_SAID.search(err)),
    }
    return _wrong(search.status, err, right)


def _wrong_of_adopt(search, err):
    return _wrong(search.status, err, {0: True, FOUND: IN_USE in err})


def _wrong(status, err, right):
    """Return what is wrong with a command's end.

    Args:
        right: by each status that is documented, whether what it said fits to it.
    """
    if status is None:
        return f"it did not end within {LONGEST} s"
    if re.search(r"^Traceback ", err, re.MULTILINE):
        return f"status {status} and a traceback: {err.strip().splitlines()[-1][:200]}"
    if right.get(status):
        return ""
    last = (err.strip().splitlines() or [""])[-1]
    if status == 1 and last.startswith(DATABASE):
        return DATABASE
    return f"status {status}, and it said: {last[:200] or 'nothing'}"


class Searcher(Background):
    """Searches while everything goes wrong, and has torn down again what providers lied about.

    Nothing else: what the service itself had lost would be hidden by that.
    """

    def _work(self):
        commands, ways = Commands(self._world), cycle((DIRECT, POOLED))
        while not self._over.wait(PAUSE):
            number = next(ways)
            lies = commands.find(number).shown & self._world.book.lied
            self._world.book.adopted += commands.adopt(lies, number)


def search_at_last(world, nobodys):
    """Search once all is quiet, and make orphans of all that is shown.

    Args:
        nobodys: what should be shown.
    """
    commands, book = Commands(world), world.book
    search = commands.find()
    if search.status == NOT_ASKED:
        book.mistaken.append(("orphans find", "a provider could not be asked, and all were well"))
    for provider, resource in sorted(nobodys ^ search.shown):
        is_nobodys = (provider, resource) in nobodys
        how = "was not shown" if is_nobodys else "shown, and a live account names it"
        book.mistaken.append((f"{provider} {resource}", how))
    commands.adopt(search.shown)

"""A live service to try something on: it is started, its log is read, and it is ended."""

from collections import Counter
from contextlib import contextmanager, suppress

from support import Gunicorn, Stack

from puffle_accounts.demo.sandbox import Sandbox


class Trial:
    """What is tried on one worker class and one database.

    `found` is what is wrong, `answers` how many there were of each kind.

    Args:
        folder: for the service's log.
    """

    INPUT = ""  # what is tried, for people
    UNWANTED = ("Traceback", "request.failed")  # in the log

    def __init__(self, worker_class, database_url, folder):
        self.worker_class, self.database_url, self.folder = worker_class, database_url, folder
        self.log = folder / "log" if folder else None
        self.words, self.by = (), ()  # more arguments of gunicorn's; by what it is started
        self.found, self.answers = [], Counter()

    @contextmanager
    def service(self, **environ):
        """Yield what the service stands on, and its gunicorn."""
        with Sandbox() as sandbox:
            stack = Stack(self.database_url, sandbox, **environ)
            try:
                yield stack, self.start(stack)
                log = self.said()
                self.found += [f"the log has {word}" for word in self.UNWANTED if word in log]
            finally:
                with suppress(ProcessLookupError):
                    self.server.kill()
                stack.database.close_all()

    def start(self, stack, port=0):
        """Start the service, and return it once it answers."""
        words = ("--worker-class", self.worker_class, *self.words)
        self.server = Gunicorn(stack, self.log, *words, by=self.by, port=port)
        return self.server.wait_until_ready()

    def said(self):
        """Return what stands in the log."""
        return self.log.read_text(errors="replace")

    def result(self):
        """Return what came of it."""
        return {
            "worker class": self.worker_class,
            "database": self.database_url.partition(":")[0],
            "input": self.INPUT,
            "cases": sum(self.answers.values()),
            "answers": dict(sorted(self.answers.items())),
            "wrong": len(self.found),
            "found": self.found[:20],
        }

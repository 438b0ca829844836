"""What was done and seen, as it happened: what the books are balanced from."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

FOREVER = float("inf")


@dataclass
class Answer:
    """What a client was answered; status 0 is none."""

    account: str
    key: str | None
    request_id: str
    began: float
    ended: float = 0.0
    status: int = 0
    error: str | None = None
    teardown: str | None = None
    replayed: bool = False
    service: str = ""  # the address of who answered, where a gateway says so
    expected: int | None = None  # of a request that must not do anything


@dataclass
class Hold:
    """A live account names a resource, until somebody asks for its end."""

    account: str
    provider: str
    resource: str
    since: float
    until: float = FOREVER


@dataclass
class Trouble:
    """A fault, as long as it lasted."""

    lane: str
    name: str
    began: float
    ended: float = FOREVER
    whom: str = ""

    def __str__(self):
        return (
            f"{self.lane}: {self.name} {self.whom}".rstrip() + f", {self.ended - self.began:.1f} s"
        )


@dataclass
class Search:
    """A run of `orphans find`, and what it showed, as (provider, resource)."""

    began: float
    ended: float = 0.0
    status: int | None = None  # `None` if it had to be killed
    shown: set = field(default_factory=set)


@dataclass
class Book:
    """Everything, in the order in which it happened."""

    answers: list[Answer] = field(default_factory=list)
    calls: list = field(default_factory=list)
    holds: dict = field(default_factory=lambda: defaultdict(list))  # by provider and resource
    troubles: list[Trouble] = field(default_factory=list)
    twice: list = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)  # (account, what)
    samples: list[tuple[float, int, int]] = field(default_factory=list)  # time, due, parked
    looks: list[tuple[float, float]] = field(default_factory=list)  # at the database, from and to
    lags: list[tuple[float, float]] = field(default_factory=list)  # time, seconds
    events: dict = field(default_factory=lambda: defaultdict(list))  # by account
    unmade: list[str] = field(default_factory=list)  # faults that could not be made or undone
    racing: set[str] = field(default_factory=set)  # accounts that users change under a DELETE
    sharing: set[str] = field(default_factory=set)
    lied: set = field(default_factory=set)  # (provider, resource) of which a provider told lies
    searches: list[Search] = field(default_factory=list)
    adopted: int = 0  # orphans made of what was shown during the faults
    lost: list = field(default_factory=list)  # (account, what), before the last search
    mistaken: list = field(default_factory=list)  # (what, how) of searches
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, account, what):
        """Add a line to an account's history."""
        self.events[account].append((time.time(), what))

    def hold(self, account, names):
        """From now on a live account names these, a mapping from provider to resource."""
        self.note(account, f"live, names {names}")
        with self.lock:
            for provider, resource in names.items():
                self.holds[provider, resource].append(
                    Hold(account, provider, resource, time.time())
                )

    def release(self, account, names):
        """Somebody asks for an account's end."""
        with self.lock:
            for resource in names.items():
                for hold in self.holds[resource]:
                    if hold.account == account:
                        hold.until = min(hold.until, time.time())

    def answered(self, answer):
        self.answers.append(answer)
        key = f", key {answer.key}" if answer.key else ""
        said = " ".join(filter(None, (str(answer.status), answer.error, answer.teardown)))
        took = answer.ended - answer.began
        self.note(answer.account, f"DELETE {answer.request_id}{key}: {said} after {took:.2f} s")

    def called(self, call, at_the_same_time):
        """A provider is called; `at_the_same_time` are calls of retriers for the same orphan."""
        self.calls.append(call)
        self.twice += [(call, other) for other in at_the_same_time]

    def found_wrong(self, account, what):
        self.note(account, f"WRONG: {what}")
        self.wrong.append((account, what))

    def lag(self, began, ended):
        """Return by how much this machine was late, at most, in a span of time."""
        return max((lag for at, lag in self.lags if began <= at <= ended + lag), default=0.0)

    def was_troubled(self, lane, began, ended, margin):
        """Whether a fault of a lane met this span of time, or ended shortly before."""
        return any(
            each.lane == lane and each.began <= ended and each.ended + margin >= began
            for each in self.troubles
        )

"""The books, balanced account by account once all is quiet: what must be zero, and figures."""

import re
from collections import Counter, defaultdict

from soak.book import FOREVER
from soak.faults import left_out
from soak.providers import SERVICE
from soak.slow import Slow
from soak.units import LEASE, TEARDOWN, WORKERS

SLACK = 1.0  # seconds that a slow machine may add
# How long after a fault its consequences are still its own, in seconds: a worker that is to end
# closes what was kept open up to its graceful time-out later.
SETTLING = {"database": 8.0, "process": LEASE + 3.0}
BEFORE, STARVED = 10.0, 2.0  # seconds
SUCCESS = (200,)
MAY_HAVE_DONE_IT = (0, 200, 500)
COLUMNS = {
    "unipile": ("provider_account_id",),
    "agentmail": ("agentmail_inbox_id",),
    "instantly": ("instantly_account_id", "email_address"),
}
SEARCHED = {0: "nothing found", 1: "found or no database", 2: "a provider not asked"}
TABLES = ("accounts", "orphans", "idempotency_keys", "api_keys")
ROWS = f"""
SELECT id::text, lower(trim(type)), status, metadata->>'soak_contact',
       {", ".join(column for columns in COLUMNS.values() for column in columns)} FROM accounts"""


class Books:
    """What became of everything.

    Args:
        world: quiet, with the ledger worked through.
    """

    def __init__(self, world):
        self.world, self.book = world, world.book
        self.rows = {}
        self.named = set()  # (provider, resource) of live accounts
        for account, kind, status, contact, session, inbox, *addresses in world.sql(ROWS):
            self.rows[account] = kind, status
            if kind == "linkedin" and status == "disconnected":
                continue
            named = [("crm", contact), ("unipile", session), ("agentmail", inbox)]
            named += [("instantly", address) for address in addresses]
            self.named |= {each for each in named if each[1]}
        self.of = defaultdict(list)
        for answer in self.book.answers:
            self.of[answer.account].append(answer)
        self.slow = Slow(world)
        self.unjudged = set()  # answers that a machine without time may have caused
        self.slow_looks = [
            look for look in self.book.looks if not self.book.was_troubled("database", *look, 0)
        ]

    def balance(self):
        """Return what must be zero: what it is called -> (account, what was seen) of each."""
        return {
            "lost": self.book.lost,
            "left after orphans find": list(self.left()),
            "mistakes of orphans find": [*self.book.mistaken, *self.shown_and_live()],
            "wrongly torn down": list(self.torn_down()),
            "wrong answers": [*self.wrong_answers(), *self.without_effect(), *self.book.wrong],
            "answers past their deadline": list(self.slow.unexplained()),
            "keyed repeats that differ": [*self.differing(), *self.escalated()],
            "orphans called twice at a time": [
                (self.account_of(call), f"{call.provider} {call.resource}: {other}")
                for call, other in self.book.twice
            ],
            "orphans left": [(a, f"of {p}: {why}") for a, p, why in self.orphans()],
            "secrets shown": list(self.secrets()),
            "services without all workers": [
                (each.address, "") for each in self.world.services if not _is_whole(each)
            ],
        }

    def orphans(self):
        return self.world.sql("SELECT account_id::text, plugin, reason FROM orphans")

    def account_of(self, call):
        by_request = {a.request_id: a.account for a in self.book.answers}
        return by_request.get(call.request_id, "?")

    # Upstream

    def lost(self):
        """Alive upstream, and nobody says so."""
        for (provider, resource), holds in self.book.holds.items():
            place = provider, resource
            if place in self.book.lied:
                continue  # nobody can know
            if self.world.holds(*place) and place not in self.named:
                account = holds[-1].account
                if account not in self.book.racing or self._was_answered(place):
                    yield account, f"{provider} {resource} is alive"

    def nobodys(self):
        """Return what is alive upstream and named by no live account, lies and all."""
        return self.world.alive() - self.named

    def left(self):
        """What is nobody's though providers were asked for it, and it was adopted."""
        for place in sorted(self.nobodys()):
            holds = self.book.holds.get(place)
            yield holds[-1].account if holds else "?", "{} {} is alive".format(*place)

    def shown_and_live(self):
        """Shown as nobody's by a search, during all of which a live account named it."""
        for search in self.book.searches:
            for place in search.shown:
                for hold in self.book.holds.get(place, ()):
                    named = hold.since < search.began and search.ended < hold.until
                    if named and search.ended < self._ended_late(hold):
                        yield hold.account, "{} {} was shown".format(*place)

    def _was_answered(self, place):
        """Whether a DELETE that called for it was answered 200: then an orphan had to say so.

        Where it was not, the row alone did, until its user put another id there.
        """
        done = {a.request_id for a in self.book.answers if a.status == 200}
        calls = self.book.calls
        return any((c.provider, c.resource) == place and c.request_id in done for c in calls)

    def torn_down(self):
        """Called for what a live account named, and had named when somebody looked."""
        asked = {a.request_id: a for a in self.book.answers}
        for call in self.book.calls:
            request = asked.get(call.request_id)
            late = self.book.lag(call.began - BEFORE, call.began)
            looked = call.began - TEARDOWN - SLACK - late
            if call.caller.endswith(".1") and request:
                looked = request.began
            for hold in self.book.holds.get((call.provider, call.resource), ()):
                named = hold.since < looked and call.began < hold.until
                if named and call.began < self._ended_late(hold):
                    yield hold.account, f"{call.provider} {call.resource} called by {call.caller}"

    def _ended_late(self, hold):
        """Return when a DELETE of before was done after all, that a gateway had given up."""
        earlier = {a.request_id for a in self.of[hold.account] if a.ended < hold.since}
        return min(
            (
                call.began
                for call in self.book.calls
                if call.request_id in earlier and call.caller == SERVICE and call.began > hold.since
            ),
            default=FOREVER,
        )

    # Answers

    def wrong_answers(self):
        for account, answers in self.of.items():
            for answer in answers:
                why = self._wrong(answer, answers)
                if why:
                    yield account, f"{answer.request_id}: {answer.status} {answer.error}, {why}"

    def _wrong(self, answer, answers):
        """Return what is wrong with an answer, `None` if nothing is."""
        status, others = answer.status, [each for each in answers if each is not answer]
        if status == 0:
            return None if self._troubled("process", answer) else "and every process was well"
        if status == 503:
            return None if self._troubled("database", answer) else "and the database was well"
        if status == 500 and answer.error == "internal_error":
            return "a fault of the service"
        if status == 500:
            return self._wrong_500(answer)
        if answer.expected:
            return None if status == answer.expected else f"not {answer.expected}"
        if status == 404:
            return None if any(map(answer_before(answer), others)) else "its user's own account"
        if status == 409:
            return None if any(map(key_at_work(answer), others)) else "nobody worked under the key"
        return None if status in SUCCESS else "for a valid request"

    def _wrong_500(self, answer):
        if answer.account in self.book.racing or self._troubled("database", answer):
            return None
        return "and the database was well"

    def _troubled(self, lane, answer):
        if self._starved(answer):
            self.unjudged.add(answer.request_id)
            return True
        return self.book.was_troubled(lane, answer.began, answer.ended, SETTLING[lane])

    def _starved(self, answer):
        """Whether the machine was so late that waits came to their ends with nothing wrong."""
        began, ended = answer.began - BEFORE, answer.ended
        slow = any(a <= ended and b >= began and b - a > STARVED for a, b in self.slow_looks)
        return slow or self.book.lag(began, ended) > STARVED

    def without_effect(self):
        """A 200 whose effect is missing at the end, and nobody connected the account again."""
        again = {a for a, events in self.book.events.items() if _reconnected(events)}
        for account, answers in self.of.items():
            if account in again or not any(each.status == 200 for each in answers):
                continue
            kind, status = self.rows.get(account, (None, None))
            if kind and not (kind == "linkedin" and status == "disconnected"):
                yield account, f"200, and the row is there, {status}"

    # Keys

    def keyed(self):
        """Return the answers of each account and key."""
        found = defaultdict(list)
        for answer in self.book.answers:
            if answer.key and answer.expected is None:
                found[answer.account, answer.key].append(answer)
        return found

    def differing(self):
        for (account, key), answers in self.keyed().items():
            done = [each for each in answers if each.status == 200]
            if len({each.teardown for each in done}) > 1:
                yield account, f"key {key}: {[each.teardown for each in done]}"
            if sum(not each.replayed for each in done) > 1:
                yield account, f"key {key}: done more than once"
            for answer in answers:
                if answer.status in (404, 422) and any(d.ended < answer.began for d in done):
                    yield account, f"key {key}: {answer.status} after a 200"

    def escalated(self):
        """LinkedIn accounts that one key alone was used for are still there."""
        for (account, key), answers in self.keyed().items():
            alone = len(answers) == len(self.of[account])
            made = " ".join(what for _, what in self.book.events[account] if "made:" in what)
            if alone and "linkedin, connected" in made.lower() and account not in self.rows:
                yield account, f"key {key}: its row is gone"

    # What must not be seen

    def secrets(self):
        """Keys in logs, tables, spans and metrics."""
        secret = re.compile(f"not-a-real-\\w+-key|{re.escape(self.world.stack.key)}")
        for log in self.world.folder.glob("*.log"):
            for found in set(secret.findall(log.read_text(errors="replace"))):
                yield log.name, found[:16]
        for path, told in self.world.receiver.received.items():
            for found in {w for each in told for w in secret.findall(str(each))}:
                yield path, found[:16]
        for table in TABLES:
            seen = f"SELECT 1 FROM {table} t WHERE t::text ~ %s LIMIT 1"
            if self.world.sql(seen, secret.pattern):
                yield table, "a key"

    # Figures

    def figures(self):
        """Return what is worth knowing besides."""
        answers = self.book.answers
        took = sorted(each.ended - each.began for each in answers if each.status == 200)
        return {
            "accounts": len(self.book.events),
            "requests": len(answers),
            "answers": dict(sorted(Counter(str(each.status) for each in answers).items())),
            "replayed": sum(each.replayed for each in answers),
            "provider calls": len(self.book.calls),
            "by retriers": sum(not c.caller.endswith(".1") for c in self.book.calls),
            "most orphans": max((count for _, count, _ in self.book.samples), default=0),
            "median seconds of a 200": round(took[len(took) // 2], 2) if took else None,
            "seconds of 99 % of them": round(took[len(took) * 99 // 100], 2) if took else None,
            "longest seconds of a 200": round(took[-1], 2) if took else None,
            "longest of any answer": self.slow.slowest(),
            "spans": sum(1 for _ in self.world.receiver.spans()),
            "not judged, for lack of time": len(self.unjudged),
            "longest lag": round(max((lag for _, lag in self.book.lags), default=0.0), 2),
            "lies told": len(self.book.lied),
            "orphans find": self.searched(),
            "faults not made": self.book.unmade or "none",
            "left out": {name: lacks for name, lacks in left_out(self.world).items()} or "nothing",
            "faults": dict(sorted(Counter(t.name for t in self.book.troubles).items())),
        }

    def searched(self):
        """Return how searches ended, and what was found."""
        *before, last = self.book.searches
        said = Counter(SEARCHED.get(each.status, "mistaken") for each in before)
        lies = len(last.shown & self.book.lied)
        return {
            "runs meanwhile": len(before),
            **dict(sorted(said.items())),
            "adopted meanwhile": self.book.adopted,
            "found at last": len(last.shown),
            "of them lies": lies,
        }


def answer_before(answer):
    """Whether another request may have ended the account before this one's answer."""
    return lambda other: other.status in MAY_HAVE_DONE_IT and other.began < answer.ended


def key_at_work(answer):
    """Whether another request worked under the same key, or may have left it leased."""

    def at_work(other):
        margin = 0 if other.status == 200 else LEASE + SLACK
        overlaps = other.began <= answer.ended and other.ended + margin >= answer.began
        return other.key == answer.key and overlaps

    return at_work


def _reconnected(events):
    return any(what.startswith("reconnected") for _, what in events)


def _is_whole(service):
    return service.process.poll() is None and len(service.workers()) == WORKERS

"""How long answers took: the time within the service stands in its log, the rest was before."""

import re

from soak.units import TEARDOWN

SERVED = re.compile(r"served ([\w.-]+) (\d+)")
SLACK = 5.0  # seconds that a slow machine may add
START = 15.0  # seconds until a slow machine has started a service
SLOWER = 5  # how often a lag may be met on the way
LANES = ("database", "process")


class Slow:
    """The answers, and the services' own lines about them.

    Args:
        world: quiet.
    """

    def __init__(self, world):
        self._book = world.book
        self._names = {each.address: each.name for each in world.services}
        self._own = {}  # request id -> seconds within the service
        for service in world.services:
            for request_id, ms in SERVED.findall(service.log.read_text(errors="replace")):
                self._own[request_id] = int(ms) / 1000

    def _within(self, answer):
        """Return its seconds within the service, `None` if nobody said, or by a wrong clock."""
        own = self._own.get(answer.request_id)
        return own if own is not None and own <= answer.ended - answer.began + 1 else None

    def unexplained(self):
        """What a service took longer for than its deadline allows, with no fault to wait for."""
        for answer in self._book.answers:
            own = self._within(answer) or 0.0
            began = answer.ended - own
            late = SLACK + SLOWER * self._book.lag(began, answer.ended)
            if own - self._faulty(began, answer.ended) > TEARDOWN + late:
                yield answer.account, f"{answer.request_id}: {own:.1f} s within the service"

    def _faulty(self, began, ended):
        """Return for how much of this time something was wrong with database or processes."""
        spans = sorted(
            (max(t.began, began), min(t.ended + SLACK, ended))
            for t in self._book.troubles
            if t.lane in LANES
        )
        total, until = 0.0, began
        for first, last in spans:
            total += max(0.0, last - max(first, until))
            until = max(until, last)
        return total

    def slowest(self):
        """Return what is known of the answer that was waited for longest."""
        answer = max(self._book.answers, key=lambda each: each.ended - each.began)
        took, own = answer.ended - answer.began, self._within(answer)
        said = f"{took:.1f} s until {answer.error or answer.status}"
        who = self._names.get(answer.service, "a service")
        if own is None:
            return f"{said}, no line of {who} by a right clock about it"
        before = f"{took - own:.1f} s of them before {who} took it up"
        return f"{said}, {before}, {self._met(answer, who)}"

    def _met(self, answer, who):
        met = [
            t.name
            for t in self._book.troubles
            if who in t.whom.split() and t.began <= answer.ended and t.ended + START >= answer.began
        ]
        return f"which met then or shortly before: {', '.join(met) or 'nothing'}"

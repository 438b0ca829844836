"""The table: medians over the repetitions, ratios with their spread."""

from statistics import median

from bench.contestants import CONTESTANTS, FLOOR
from bench.scenarios import SCENARIOS

NOTHING = "\N{EN DASH}"
OURS = ("gevent", "gthread")
COLUMNS = (
    "contestant",
    "deletes/s",
    "puffle gevent against it",
    "p50 ms",
    "p99 ms",
    "CPU s per 1,000",
    "peak RSS MB",
    "not 200",
    "CPU: load",
    "CPU: provider",
    "",
)
# Words, goal, and how to compute it for one of ours; ratios within one repetition.
GOALS = (
    (
        "no provider call, 64 connections: rate against FastAPI",
        "≥ 2.5",
        lambda figures, us: figures.ratio("postgresql-64", "rate", us, "fastapi"),
    ),
    (
        "e-mail, 50 ms, 64 connections: rate against the limit of latency",
        "≥ 0.92",
        lambda figures, us: figures.of_limit("email-50ms-64", us),
    ),
    (
        "the same against Fastify",
        "≥ 1",
        lambda figures, us: figures.ratio("email-50ms-64", "rate", us, "fastify"),
    ),
    (
        "e-mail, 50 ms, 512 connections: rate against FastAPI",
        "≥ 2.0",
        lambda figures, us: figures.ratio("email-50ms-512", "rate", us, "fastapi"),
    ),
    (
        "the same against plain Flask",
        "≥ 4.5",
        lambda figures, us: figures.ratio("email-50ms-512", "rate", us, "flask"),
    ),
    (
        "one e-mail delete alone: ms added, less what Fastify adds",
        "≤ 0",
        lambda figures, us: figures.difference("email-50ms-1", "p50_ms", us, "fastify"),
    ),
    (
        "e-mail, 50 ms, 64 connections: CPU against plain Flask",
        "≤ 0.35",
        lambda figures, us: figures.ratio("email-50ms-64", "cpu_per_1000", us, "flask"),
    ),
    (
        "the same against Fastify",
        "≤ 1.3",
        lambda figures, us: figures.ratio("email-50ms-64", "cpu_per_1000", us, "fastify"),
    ),
    (
        "LinkedIn while AgentMail hangs: share of its rate kept",
        "≥ 0.97",
        lambda figures, us: figures.values("hung", us, "kept"),
    ),
    (
        "LinkedIn while AgentMail hangs: p99 in ms",
        "≤ 20",
        lambda figures, us: figures.values("hung", us, "p99_ms"),
    ),
    (
        "SQLite, no provider call, 64 connections: rate against FastAPI",
        "≥ 5",
        lambda figures, us: figures.ratio("sqlite-64", "rate", us, "fastapi"),
    ),
)


class Figures:
    """All measurements of a run; a list of values has one per repetition."""

    def __init__(self, measurements):
        self.measurements = measurements
        self.scenarios = [each for each in SCENARIOS if self.of(each.name)]

    def of(self, scenario):
        return [each for each in self.measurements if each["scenario"] == scenario]

    def contestants(self, scenario):
        present = {each["contestant"] for each in self.of(scenario)}
        return [each for each in CONTESTANTS if each.name in present]

    def values(self, scenario, contestant, key):
        return [
            each[key]
            for each in self.of(scenario)
            if each["contestant"] == contestant and key in each
        ]

    def ratio(self, scenario, key, ours, other):
        return [mine / theirs for mine, theirs in self.pairs(scenario, key, ours, other)]

    def difference(self, scenario, key, ours, other):
        return [mine - theirs for mine, theirs in self.pairs(scenario, key, ours, other)]

    def pairs(self, scenario, key, ours, other):
        return zip(
            self.values(scenario, ours, key), self.values(scenario, other, key), strict=False
        )

    def of_limit(self, name, contestant):
        limit = scenario(name).limit
        return [rate / limit for rate in self.values(name, contestant, "rate")]

    def added(self, name, contestant):
        """Milliseconds beyond the floor of the same repetition."""
        return self.difference(name, "p50_ms", contestant, FLOOR.name)


def scenario(name):
    return next(each for each in SCENARIOS if each.name == name)


def markdown(machine, figures):
    parts = [introduction(machine), goals(figures)]
    parts += [section(figures, each) for each in figures.scenarios]
    return "\n\n".join(parts) + "\n"


def introduction(machine):
    return (
        "# Results\n\n"
        f"{machine['cores']} cores, Python {machine['python']}, PostgreSQL {machine['postgresql']};"
        f" {machine['repetitions']} repetitions of {machine['seconds']:g} s, medians, spread in"
        " brackets. How it was measured: [README](../README.md).\n\n![](results.svg)"
    )


def goals(figures):
    rows = [
        (words, goal, *(spread(compute(figures, us)) for us in OURS))
        for words, goal, compute in GOALS
    ]
    return "## Against the goals\n\n" + table(("", "goal", "gevent", "gthread"), rows)


def section(figures, scenario):
    rows = [row(figures, scenario, each) for each in figures.contestants(scenario.name)]
    limit = f"\n\nLimit of latency: {scenario.limit:,.0f} deletes/s." if scenario.limit else ""
    return f"## {scenario.title}{limit}\n\n" + table(COLUMNS, rows)


def row(figures, scenario, contestant):
    def values(key):
        return figures.values(scenario.name, contestant.name, key)

    against = figures.ratio(scenario.name, "rate", OURS[0], contestant.name)
    return (
        contestant.title,
        spread(values("rate"), ",.0f"),
        spread(against),
        middle(values("p50_ms"), ",.1f"),
        middle(values("p99_ms"), ",.1f"),
        middle(values("cpu_per_1000"), ".2f"),
        middle(values("peak_rss_mb"), ".0f"),
        str(sum(values("not_200"))) if values("not_200") else NOTHING,
        middle(values("load_cpu"), ".0%"),
        middle(values("provider_cpu"), ".0%"),
        remark(figures, scenario, contestant.name),
    )


def remark(figures, scenario, contestant):
    if scenario.hung:
        kept = figures.values(scenario.name, contestant, "kept")
        return f"{spread(kept, '.0%')} of the rate kept"
    if scenario.limit and scenario.connections == 1:
        return f"{spread(figures.added(scenario.name, contestant), '+.1f')} ms to the floor"
    if scenario.limit:
        return f"{spread(figures.of_limit(scenario.name, contestant), '.0%')} of the limit"
    return ""


def middle(values, form):
    return format(median(values), form) if values else NOTHING


def spread(values, form=".2f"):
    if not values:
        return NOTHING
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

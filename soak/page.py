"""Makes docs/reliability.md anew from what runs have written: `make reliability`."""

import json
import sys

from support import ROOT

RESULTS = ROOT / "soak" / "results"
PAGE = ROOT / "docs" / "reliability.md"
NOT_COUNTED = "-"  # by the version that made the run
HEAD = """# Reliability

How this service is tried with everything going wrong at once, and what came of it.
`make reliability` makes this page from the files in [soak/results](../soak/results); what a run
is, and how to make one, stands in [soak/README.md](../soak/README.md).
"""
SOAKS = """
## Soaks

Two gunicorns of two workers behind nginx, a PostgreSQL with a synchronous standby, reached by one
of them through PgBouncer, two retriers, four providers, a collector of spans, 32 clients; faults
in the database, in processes, in clocks and at providers, drawn from the seed. Afterwards the
books are balanced account by account, and then `orphans find` must show all that is alive and
named by nobody, what providers lied about included, and nothing else; once that is adopted and
retried, nothing may be left. It is asked meanwhile too. The first rows must be zero. `before` and
`after` are what services and retriers hold; a connection that nobody uses is kept for a minute,
and the memory is no leak: of one worker it stays as it was (`python -m bench.growth`, 2026-11-26,
every other an e-mail delete, on a busy machine): under gevent 71.4 MB after 5,000 deletes, 71.5 MB
after 40,000; under gthread 68.2 and 68.9 MB.
"""
PLANTED = """
## Faults planted

A run that finds nothing proves something only if it would have found it. Each of these was put
into a copy of the product, and looked for by a short soak, and by the tests alone (2026-11-26,
the first that failed).
"""
BAD = """
## Bad input

To a real gunicorn, under both worker classes and on both databases. *Bytes on a socket*: request
lines, headers of every size, each byte in the path and in the key, pipelined, smuggled, cut
short, and requests drawn at random; wrong is a 500, no end within ten seconds, a traceback, a
worker lost, an answer to another request. *Drawn from openapi.yaml*, by schemathesis: wrong is
what does not conform. *Odd answers of a provider*: every status, length, coding, wait and kind of
body, drips and no HTTP at all; wrong is anything but a 200 in its time, a row that has not ended,
an orphan missing or one too many, another's answer, memory without bound. *Bombs of 1 GB*:
answers that unpack to that; wrong is also more than 128 MB, or a quarter of a second of the
processor each. *Odd rows* of `accounts`: wrong is what is neither ended nor refused before a
provider is called.
"""


LIMITS = """
## Full disks, and other limits

Each limit of a machine, reached by real means while a live service works: small disks that are
filled, the worker's limits of descriptors and address space, cgroups for threads and memory,
pipes and files for the log.
16 accounts are deleted meanwhile, with a provider that fails; `0` is no answer within eight
seconds. Afterwards there is more again, and the service must be well by itself. Wrong is another
status than those that are right, a 503 or 500 without exactly one line that says why (of a full
disk: that it is full), a 200 whose account has not ended, a 500 or 503 whose account has, what is
alive upstream and named by nobody, a key in a log or a row, a worker that did not come back.
*Restarted*: the kernel killed the master, and a service manager had to start it again. *Well after*
counts until the last of the 16 is done: a key whose worker was killed is in use until its lease is
over, twelve seconds here.
"""
MUTANTS = """
## Mutants

Each module that decides what becomes of an account, with one thing changed at a time: an operator,
a number, a text, an argument that is left out. *Killed*: a test failed; *timeout*: the tests did
not end in several times their time; *survived*: none failed. The tests are those that need neither
a process of their own nor PostgreSQL. Why the rest survives, kind by kind:
[soak/survivors.md](../soak/survivors.md).
"""


def main():
    PAGE.write_text(page())
    return 0


def page():
    """Return the page."""
    runs = [_read(path) for path in sorted(RESULTS.glob("seed-*.json"), key=_seed)]
    sections = [HEAD, SOAKS, _soaks(runs), *map(_picture, runs)]
    sections += [PLANTED, _planted(_read(RESULTS / "planted.json"))]
    sections += [BAD, _bad(_read(RESULTS / "bad-input.json"))]
    sections += [LIMITS, _limits(_read(RESULTS / "limits.json"))]
    sections += [MUTANTS, _mutants(_read(RESULTS / "mutation.json"))]
    return "\n".join(sections)


def _read(path):
    return json.loads(path.read_text())


def _seed(path):
    return int(path.stem.partition("-")[2])


def table(rows):
    """Return a table of Markdown; the first row is its head."""
    head, *rest = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest))


def _soaks(runs):
    def row(name, of):
        return [name, *map(of, runs)]

    def figure(name):
        return row(name, lambda run: _said(run["figures"].get(name, NOT_COUNTED)))

    zeros = dict.fromkeys(name for run in runs for name in run["zeros"])
    shown = dict.fromkeys(name for run in runs for name in run["figures"] if name != "faults")
    return table(
        [
            row("seed", lambda run: run["seed"]),
            row("date, commit", lambda run: f"{run['date']}, {run['commit']}"),
            row("minutes", lambda run: f"{run['minutes']:g}"),
            *(row(f"**{n}**", lambda run, n=n: run["zeros"].get(n, NOT_COUNTED)) for n in zeros),
            row("faults", lambda run: sum(run["figures"]["faults"].values())),
            *map(figure, shown),
        ]
    )


def _said(value):
    if isinstance(value, dict):
        return ", ".join(f"{name}: {count}" for name, count in value.items())
    return value


def _picture(run):
    seed = run["seed"]
    faults = _said(run["figures"]["faults"])
    return f"\nSeed {seed}: {faults}.\n\n![Seed {seed}](../soak/results/seed-{seed}.svg)"


def _planted(results):
    rows = [["fault", "found by the soak", "found by tests"]]
    for each in results:
        soak = f"{_said(each['soak'])} ({each['soak seconds']} s)" if each["soak"] else "no"
        tests = ", ".join(f"`{name.partition('[')[0]}`" for name in each["tests"])
        rows.append([each["fault"], soak, tests or ("" if each["soak"] else "no")])
    return table(rows)


def _bad(results):
    rows = [["worker class", "database", "input", "cases", "wrong", "answers"]]
    for r in results:
        which = [r["worker class"], r["database"], r["input"]]
        figures = {name: r[name] for name in ("MB more at most", "processor seconds") if name in r}
        rows.append([*which, r["cases"], r["wrong"], _said(r["answers"] | figures)])
    return table(rows) + "\n"


def _limits(run):
    head = ["limit", "worker class", "database", "answers", "the log", "workers replaced"]
    rows = [[*head, "well after", "wrong"]]
    for r in run["limits"]:
        replaced = f"{r['workers replaced']}{', restarted' if r['restarted'] else ''}"
        which = [r["limit"], r["worker class"], r["database"], _said(r["answers"])]
        rows.append([*which, r["said"], replaced, f"{r['seconds']} s", r["wrong"]])
    return f"{run['date']}, {run['commit']}.\n\n{table(rows)}\n"


def _mutants(run):
    ends = ("killed", "timeout", "survived", "not tried")
    rows = [["module", "mutants", *ends, "killed, of those tried"]]
    for each in run["modules"]:
        counts = [each.get(end, 0) for end in ends]
        tried = sum(counts) - counts[3]
        share = f"{100 * counts[0] / tried:.1f} %" if tried else "none"
        rows.append([each["module"], sum(counts), *counts, share])
    return f"{run['date']}, {run['commit']}.\n\n{table(rows)}\n"


if __name__ == "__main__":
    sys.exit(main())

"""What came of a run: a table for people, JSON for programs, and the history of an account."""

import json
import shutil
import subprocess
import time

from support import ROOT

SHOWN, KEPT = 5, 200  # findings of a kind that are shown with their history, and written


def commit():
    """Return which state of the product this is, `None` where no repository says so."""
    words = ("git", "-C", ROOT, "describe", "--always", "--dirty")
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() or None


def result(seed, minutes, began, balance, figures, book):
    """Return a run as JSON has it."""
    slowest = max(book.answers, key=lambda answer: answer.ended - answer.began)
    return {
        "seed": seed,
        "minutes": minutes,
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "commit": commit(),
        "zeros": {name: len(found) for name, found in balance.items()},
        "found": {name: found[:KEPT] for name, found in balance.items() if found},
        "figures": figures,
        "slowest": history(slowest.account, book),
    }


def table(run):
    """Return the run for people."""
    lines = [f"{count:>6}  {name}" for name, count in run["zeros"].items()]
    lines += [f"{_said(value):>6}  {name}" for name, value in run["figures"].items()]
    return "\n".join(lines)


def _said(value):
    if isinstance(value, dict):
        return ", ".join(f"{name}: {count}" for name, count in value.items())
    return str(value)


def failure(run, book):
    """Return how to repeat a run that failed, and what was seen of the accounts."""
    lines = [f"repeat it: make soak ARGS='--minutes {run['minutes']:g} --seed {run['seed']}'"]
    for name, found in run["found"].items():
        lines += [f"\n{name}:"]
        for account, what in found[:SHOWN]:
            lines += [f"  {account}: {what}", *history(account, book)]
    return "\n".join(lines)


def history(account, book):
    """Return what happened to an account, and the faults at that time."""
    events = list(book.events.get(account, ()))
    if not events:
        return []
    asked = {each.request_id for each in book.answers if each.account == account}
    events += [
        (c.began, f"{c.provider} {c.resource} called by {c.caller} for {c.request_id}: {c.status}")
        for c in book.calls
        if c.request_id in asked
    ]
    first, last = events[0][0] - 2, max(moment for moment, _ in events)
    events += [(t.began, f"-- {t}") for t in book.troubles if t.ended >= first and t.began <= last]
    return [f"    {moment - first:8.3f}  {what}" for moment, what in sorted(events)]


def keep_logs(logs, folder, seed):
    """Copy the logs of a run; return where."""
    kept = folder / f"logs-{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for log in logs.glob("*.log"):
        shutil.copy(log, kept)
    return kept


def write(run, picture, folder):
    """Write both into a folder; return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{run['seed']}.json"
    path.write_text(json.dumps(run, indent=1, default=str) + "\n")
    path.with_suffix(".svg").write_text(picture)
    return path

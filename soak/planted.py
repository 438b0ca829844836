"""A soak that can fail: faults planted in a copy of the product, and who finds them.

    make planted ARGS='--out build/planted.json'

Each is looked for by a short soak, and by tests named here where the soak has not found it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from support import ROOT

MINUTES = 1.1
LIMIT = 300  # seconds for each to be found
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "results")


@dataclass(frozen=True)
class Fault:
    """A change for the worse.

    Args:
        changes: (file in the package, what stands there, what is put there), in turn.
        tests: where to look if the soak does not find it, as pytest is given it.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]
    tests: str


SERVICE, LEDGER, ATTEMPT = "service.py", "orphans/ledger.py", "orphans/attempt.py"
END_OF_CHANGE = "        if found is not None and not ended:\n            self._found = found\n"
FINISH = (
    "            if ended and self._lease:\n"
    "                self._service.idempotency_keys.finish(self._lease, self._status)\n"
)
RECORD = "            if found is None or ended:\n                self._record(left)\n"

FAULTS = (
    Fault(
        "the orphan is written after the commit",
        (
            (SERVICE, RECORD, "            if found is None or ended:\n                pass\n"),
            (
                SERVICE,
                END_OF_CHANGE,
                "        if ended:\n            with database.writing():\n"
                "                self._record(left)\n" + END_OF_CHANGE,
            ),
        ),
        "tests/orphans/test_orphans.py -k cannot_be_stored",
    ),
    Fault(
        "the look for a live account before a retry is left out",
        (
            (
                ATTEMPT,
                "look(self.ledger.database, plugin, account)\n",
                "Verdict.FREE\n",
            ),
        ),
        "tests/orphans/test_retry.py -k reconnected",
    ),
    Fault(
        "the look for another live account in a DELETE is left out",
        ((SERVICE, "if self._found.may_share else set()", "if False else set()"),),
        "tests/test_resource_ids.py",
    ),
    Fault(
        "FOR UPDATE SKIP LOCKED is left out",
        ((LEDGER, '"FOR UPDATE SKIP LOCKED" if', '"" if'),),
        "tests/cli/test_orphans_commands.py tests/orphans -k 'postgresql and (once or retr)'",
    ),
    Fault(
        "the lease of an orphan is ignored",
        ((LEDGER, '"(leased_until IS NULL OR', '"(1 = 1 OR'),),
        "tests/orphans/test_orphans.py -k lease",
    ),
    Fault(
        "the machine's clock is used for leases",
        (
            (
                "database/pooled.py",
                "        return self.execute_sql(text, self._bound(params))",
                "        machine = f\"'{clock.now().isoformat()}'::timestamptz\"\n"
                "        text = text.replace('statement_timestamp()', machine)\n"
                "        return self.execute_sql(text, self._bound(params))",
            ),
        ),
        "tests/deployed/test_clocks.py",
    ),
    Fault(
        "the compare-and-set leaves out the ids",
        (
            (
                "snapshots.py",
                'f"{database.exactly(column)} IS ?"',
                "f\"({database.exactly(column)} IS ? OR {column!r} <> 'status')\"",
            ),
            (
                SERVICE,
                "(before.status, before.provider_ids) == (now.status, now.provider_ids)",
                "before.status == now.status",
            ),
        ),
        "tests/test_service.py -k 'meanwhile or afresh'",
    ),
    Fault(
        "the key is finished outside the transaction",
        (
            (SERVICE, FINISH, ""),
            (
                SERVICE,
                END_OF_CHANGE,
                "        if ended and self._lease:\n            with database.writing():\n"
                "                self._service.idempotency_keys.finish("
                "self._lease, self._status)\n" + END_OF_CHANGE,
            ),
        ),
        "tests/test_idempotency.py -k cannot_be_remembered",
    ),
    Fault(
        "a 404 of any kind is taken for gone",
        (
            (
                "upstream/judgement.py",
                "        if gone and method",
                "        if (gone or status == 404) and method",
            ),
        ),
        "tests/test_upstream_providers.py",
    ),
    Fault(
        "after the first failure the other hooks are forgotten",
        (
            (
                "teardown.py",
                "        outcomes.append(call.ended(outcome))\n",
                "        outcomes.append(call.ended(outcome))\n"
                "        if outcome.failure:\n            return outcomes\n",
            ),
        ),
        "tests/test_teardown.py",
    ),
    Fault(
        "what is not done by the deadline is forgotten",
        (
            (
                "teardown.py",
                "return outcomes + [call.ended(call.failed(late)) for call in waiting]",
                "return outcomes",
            ),
        ),
        "tests/test_teardown.py",
    ),
    Fault(
        "what failed again is settled as done",
        ((ATTEMPT, "        if attempt.failures:\n", "        if not attempt:\n"),),
        "tests/orphans/test_retry.py -k merely_fails",
    ),
    Fault(
        "a used key is not refused for another account",
        (("idempotency.py", "if str(account) != account_id:", "if not account:"),),
        "tests/test_idempotency.py -k another_account",
    ),
    Fault(
        "a key in use is not respected",
        (
            (
                "idempotency.py",
                'NULL AND {leases.over("idempotency_keys.leased_until")})',
                'NULL AND NOT {leases.over("idempotency_keys.leased_until")})',
            ),
        ),
        "tests/test_idempotency.py -k 'works or lease'",
    ),
    Fault(
        "a key is not freed after a failure",
        (("idempotency.py", "            self._free(lease.token)\n", "            pass\n"),),
        "tests/test_idempotency.py -k frees",
    ),
    Fault(
        "a provider's failure is the request's",
        (
            (
                SERVICE,
                "        outcomes += [teardown.spared",
                "        assert not any(o.failure for o in outcomes)\n"
                "        outcomes += [teardown.spared",
            ),
        ),
        "tests/test_service.py",
    ),
    Fault(
        "a connection is held while a provider is awaited",
        (
            (
                SERVICE,
                "        outcomes = teardown.call_all(called, account, deadline)\n",
                "        with self._service.database.reading():\n"
                "            outcomes = teardown.call_all(called, account, deadline)\n",
            ),
        ),
        "tests/test_teardown.py -k held",
    ),
    Fault(
        "statements are prepared behind a pooler",
        (("database/pool.py", "conn.prepare_threshold = None", "conn.prepare_threshold = 0"),),
        "tests/database/test_poolers.py",
    ),
    Fault(
        "what a live account uses is shown by orphans find",
        (("orphans/forgotten.py", "in candidates - used:", "in candidates:"),),
        "tests/orphans/test_forgotten.py",
    ),
    Fault(
        "of a provider's list only the first page is read",
        (
            (
                "upstream/lists.py",
                "cursor)}) if cursor else None",
                "cursor)}) if not page else None",
            ),
        ),
        "tests/test_upstream.py tests/plugins",
    ),
    Fault(
        "the log shows a user's key",
        (
            (
                "keys.py",
                "    if row is None:\n",
                "    print(key, flush=True)\n    if row is None:\n",
            ),
        ),
        "tests/test_logs.py",
    ),
)


def plant(fault, folder, only=("",)):
    """Put a fault into a copy of all that there is, or only of some folders."""
    for each in only:
        shutil.copytree(ROOT / each, folder / each, ignore=LEFT_OUT)
    for file, before, after in fault.changes:
        path = folder / "puffle_accounts" / file
        source = path.read_text()
        if source.count(before) != 1:
            raise RuntimeError(f"{file} does not have once: {before}")
        path.write_text(source.replace(before, after))


def run(folder, words):
    """Run a module within the copy; return its exit status, and what it printed."""
    paths = os.pathsep.join(str(folder / each) for each in ("", "tests", "plugins"))
    with tempfile.TemporaryFile("w+") as output:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": paths},
                stdout=output,
                stderr=output,
                timeout=LIMIT,
            ).returncode
        except subprocess.TimeoutExpired:
            ended = None
        output.seek(0)
        return ended, output.read()


def by_soak(folder, seed, minutes):
    """Return what a soak has found, an empty mapping if nothing."""
    out = folder / "build"
    words = ["soak.run", "--minutes", str(minutes), "--seed", str(seed), "--out", str(out)]
    ended, printed = run(folder, words)
    written = out / f"seed-{seed}.json"
    if ended and not written.exists():
        return {"the soak itself did not end": printed[-300:]}
    zeros = json.loads(written.read_text())["zeros"] if written.exists() else {}
    return {name: count for name, count in zeros.items() if count}


def by_tests(folder, tests):
    """Return the tests that failed."""
    words = ["pytest", "-p", "no:cacheprovider", "-x", *_split(tests)]
    _, printed = run(folder, words)
    failed = [line.split()[1] for line in printed.splitlines() if line.startswith("FAILED ")]
    return [each.partition("::")[2] for each in failed]


def _split(tests):
    files, _, words = tests.partition(" -k ")
    return [*files.split(), *(("-k", words.strip("'")) if words else ())]


def look_for(fault, seed, minutes):
    """Plant a fault and look for it; return who has found it, and when.

    Args:
        minutes: of the soak; without any, only the tests look.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy, began = Path(folder) / "copy", time.time()
        plant(fault, copy)
        found = by_soak(copy, seed, minutes) if minutes else {}
        soaked = time.time()
        tests = [] if found else by_tests(copy, fault.tests)
        return {
            "fault": fault.name,
            "soak": found,
            "soak seconds": round(soaked - began),
            "tests": tests,
            "tests seconds": round(time.time() - soaked) if tests else None,
        }


def main():
    parser = argparse.ArgumentParser(prog="make planted ARGS='...'", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each soak; 0: none")
    parser.add_argument("--seed", type=int, default=62)
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "planted.json")
    given = parser.parse_args()
    results = []
    for fault in FAULTS:
        if given.only in fault.name:
            results.append(look_for(fault, given.seed, given.minutes))
            print(json.dumps(results[-1]), flush=True)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(results, indent=1) + "\n")
    return any(not (each["soak"] or each["tests"]) for each in results)


if __name__ == "__main__":
    sys.exit(main())

"""Change one thing in a module and see whether a test notices; again for everything in it.

    make mutation ARGS='--out soak/results/mutation.json'

mutmut (its section in setup.cfg) changes what stands in functions, one thing at a time, and runs
the tests that run what it changed, in this process and without PostgreSQL. It leaves out what is
decorated, since a decorator may register what it is given: in the copy that it works on, hooks
are registered after their functions.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

from support import ROOT

from soak.planted import LEFT_OUT
from soak.report import commit

FOLDER = ROOT / "build" / "mutation"
COPIED = ("puffle_accounts", "deploy", "docs", "tests", "wsgi.py", "gunicorn.conf.py")
TOLD = "test_logs.py test_metrics.py test_telemetry.py"
# What is changed, and the tests that have to notice.
PARTS = {
    "deletes": (
        "service.py teardown.py idempotency.py owed.py",
        "test_service.py test_teardown.py test_idempotency.py test_owed.py test_resource_ids.py"
        f" test_bulkhead.py database/test_failing_database.py {TOLD}",
    ),
    "orphans": (
        "orphans/attempt.py orphans/lane.py orphans/ledger.py orphans/retry.py"
        " orphans/superseded.py",
        f"orphans test_resource_ids.py {TOLD}",
    ),
    "calls": (
        "transport.py",
        "test_upstream.py test_upstream_connections.py test_upstream_providers.py"
        " test_telemetry.py",
    ),
    "providers": (
        "puffle_agentmail.py puffle_instantly.py puffle_unipile.py",
        "plugins",
    ),
}
HOOK = re.compile(r"@hookimpl\n(?=def (\w+))")
MUTMUT = Path(sys.executable).with_name("mutmut")
# The exit status of the tests, as mutmut keeps it.
ENDED = {1: "killed", 3: "killed", 0: "survived", 5: "survived", 33: "survived", -24: "timeout"}


def copy(part):
    """Make or renew the folder that mutmut works in; what has not changed keeps its results."""
    folder = FOLDER / part
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT, dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / name, folder / name)
    for plugin in (ROOT / "plugins").glob("*.py"):
        source = plugin.read_text()
        below = "".join(f"\n{name} = hookimpl({name})" for name in HOOK.findall(source))
        (folder / plugin.name).write_text(HOOK.sub("", source) + below + "\n")
        shutil.copystat(plugin, folder / plugin.name)
    _configure(folder, *PARTS[part])
    return folder


def _configure(folder, modules, tests):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    config["mutmut"]["only_mutate"] = "".join(f"\n{each}" for each in map(_path, modules.split()))
    selected = "".join(f"\ntests/{each}" for each in tests.split())
    config["mutmut"]["pytest_add_cli_args_test_selection"] = selected
    with (folder / "setup.cfg").open("w") as file:
        config.write(file)


def _path(module):
    return module if module.startswith("puffle_") else f"puffle_accounts/{module}"


def ended(folder):
    """Return how each mutant ended, by module and name."""
    found = {}
    for meta in sorted((folder / "mutants").rglob("*.py.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        if codes:
            module = str(meta.relative_to(folder / "mutants")).removesuffix(".meta")
            found[module] = {name: ENDED.get(code, "not tried") for name, code in codes.items()}
    return found


def figures(found):
    """Return for each module how many mutants ended how, and of all."""
    rows = [{"module": module, **Counter(each.values())} for module, each in found.items()]
    every = Counter(how for each in found.values() for how in each.values())
    return [*rows, {"module": "all", **every}]


def survivors(found, but=()):
    """Return the names of those that no test has failed for, `but` for those that ended so."""
    spared = {"killed", *but}
    return [name for each in found.values() for name, how in each.items() if how not in spared]


def shown(names, folder):
    """Return what each of these mutants changes."""
    return "\n".join(
        subprocess.run([MUTMUT, "show", n], cwd=folder, capture_output=True, text=True).stdout
        for n in names
    )


def run(part, given):
    """Try a part; return how each of its mutants ended, by module and name."""
    folder = copy(part)
    names = survivors(ended(folder)) if given.survivors else given.names
    words = [MUTMUT, "run", "--max-children", given.children, *names]
    if not given.survivors or names:
        with (folder / "said.txt").open("w") as said:
            subprocess.run(words, cwd=folder, stdout=said, stderr=said, check=True)
    found = ended(folder)
    (folder / "survivors.txt").write_text(shown(survivors(found, but=["not tried"]), folder))
    return found


def main():
    parser = argparse.ArgumentParser(prog="make mutation ARGS='...'", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants, with * for any; all if none is given")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--survivors", action="store_true", help="those of the last run again")
    parser.add_argument("--children", default="2", help="processes")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutation.json")
    given = parser.parse_args()
    found = {}
    for part in given.parts:
        found |= run(part, given)
    result = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "modules": figures(found)}
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Each limit of a machine reached in turn by a live service, under both worker classes.

    make limits ARGS='--only disk'

While it lasts every answer is one of those that are right, and the log says why; afterwards the
service is well by itself, no worker is lost, no key was shown, and the books balance.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from postgresql import postgres_server
from support import ROOT

from soak.limited import Limited
from soak.report import commit
from soak.scarce import LIMITS

CLASSES = ("gevent", "gthread")


def everything(given):
    """Yield what came of each."""
    with postgres_server() as server:
        for limit in LIMITS:
            for database in limit.databases if given.only in limit.name else ():
                for worker_class in CLASSES:
                    with tempfile.TemporaryDirectory() as folder:
                        url = (
                            server.get_uri()
                            if database == "postgresql"
                            else f"sqlite:///{folder}/accounts.db"
                        )
                        yield Limited(limit, worker_class, url, Path(folder)).work()


def main():
    parser = argparse.ArgumentParser(prog="make limits ARGS='...'", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "limits.json")
    given = parser.parse_args()
    results = []
    for result in everything(given):
        results.append(result)
        print(json.dumps(result), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    run = {"date": date, "commit": commit(), "limits": results}
    given.out.write_text(json.dumps(run, indent=1) + "\n")
    return any(each["wrong"] for each in results)


if __name__ == "__main__":
    sys.exit(main())

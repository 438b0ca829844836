"""Measure this service beside its peers: `python -m bench.run`, from the repository's root."""

import argparse
import json
import os
import platform

from bench import contestants, databases, picture, processes, report
from bench.measure import measure
from bench.scenarios import SCENARIOS

RESULTS = processes.ROOT / "bench" / "results"


def main():
    options = arguments()
    chosen = choose(contestants.available(), options.contestants)
    scenarios = choose(SCENARIOS, options.only)
    with databases.postgres() as postgres, databases.sqlite() as sqlite:
        machine = describe(postgres, options)
        with processes.provider() as provider:
            here = {each.name: each for each in (postgres, sqlite)}
            measurements = list(run(options, scenarios, chosen, here, provider))
    write(options.results, machine, measurements)


def run(options, scenarios, chosen, databases, provider):
    """In turn, so that a bad minute of the machine meets all contestants."""
    for repetition in range(options.repetitions):
        for scenario in scenarios:
            start = repetition % len(chosen)
            for contestant in chosen[start:] + chosen[:start]:
                if contestant.suits(scenario):
                    database = databases[scenario.database]
                    figures = measure(contestant, scenario, database, provider, options.seconds)
                    label = {"scenario": scenario.name, "contestant": contestant.name}
                    print(f"{repetition + 1} {scenario.name:16} {contestant.name:10}", end=" ")
                    print(f"{figures['rate']:9.1f}/s", flush=True)
                    yield {"repetition": repetition, **label, **figures}


def describe(postgres, options):
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": postgres.version(),
        "repetitions": options.repetitions,
        "seconds": options.seconds,
    }


def write(directory, machine, measurements):
    directory.mkdir(exist_ok=True)
    raw = {"machine": machine, "measurements": measurements}
    (directory / "results.json").write_text(json.dumps(raw, indent=1) + "\n")
    figures = report.Figures(measurements)
    (directory / "results.md").write_text(report.markdown(machine, figures))
    (directory / "results.svg").write_text(picture.svg(figures))
    print(f"Written: results.md, results.json and results.svg in {directory.name}/")


def choose(things, names):
    unknown = set(names) - {thing.name for thing in things}
    if unknown:
        raise SystemExit(f"unknown or not available: {', '.join(sorted(unknown))}")
    return tuple(thing for thing in things if not names or thing.name in names)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    names = {"default": (), "type": lambda text: text.split(","), "metavar": "NAME,…"}
    parser.add_argument("--only", help="scenarios", **names)
    parser.add_argument("--contestants", **names)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one repetition, a second each")
    options = parser.parse_args()
    options.results = RESULTS
    if options.quick:
        options.repetitions, options.seconds = 1, 1.0
    return options


if __name__ == "__main__":
    main()

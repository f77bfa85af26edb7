"""Writes rules.yml, alerts.yml and the dashboards: python3 dashboards/generator

With --check it writes nothing, and fails if a file is not what it would write.
"""

import argparse
import sys
from pathlib import Path

import settings

HOME = Path(__file__).parent.parent


def files():
    """The name and text of each file. The modules read the settings when they are imported."""
    import fleet
    import rules
    import supervisor

    return {
        "rules.yml": rules.rules_yml(),
        "alerts.yml": rules.alerts_yml(),
        "fleet.json": fleet.dashboard_json(),
        "supervisor.json": supervisor.dashboard_json(),
    }


def main():
    parser = argparse.ArgumentParser(prog="python3 dashboards/generator", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is stale")
    parser.add_argument("--into", type=Path, default=HOME, metavar="DIRECTORY", help="where to write them")
    parser.add_argument("--times-divided-by", type=int, default=1, metavar="FACTOR",
                        help="shorten all times, to see alerts come and go in seconds; not for production")
    arguments = parser.parse_args()
    settings.divide_times(arguments.times_divided_by)
    stale = []
    for name, text in files().items():
        path = arguments.into / name
        if not arguments.check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what the generator writes; run: python3 dashboards/generator")


if __name__ == "__main__":
    main()

"""Writes rules.yml, alerts.yml and the dashboards: python3 dashboards/generator

With --check it writes nothing, and fails if a file is not what it would write.
"""

import sys
from pathlib import Path

import fleet
import rules
import supervisor

HOME = Path(__file__).parent.parent
FILES = {
    "rules.yml": rules.rules_yml,
    "alerts.yml": rules.alerts_yml,
    "fleet.json": fleet.dashboard_json,
    "supervisor.json": supervisor.dashboard_json,
}


def main(check):
    stale = []
    for name, text in FILES.items():
        path, text = HOME / name, text()
        if check and (not path.exists() or path.read_text() != text):
            stale.append(name)
        elif not check:
            path.write_text(text)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what the generator writes; run: python3 dashboards/generator")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])

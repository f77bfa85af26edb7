"""Breaks each rule in turn and asks whether the unit tests notice: python3 dashboards/mutate.py

Each damage is small: a threshold or a window moved, a comparison, a function or an operator turned, a label of a matcher or of an
aggregation taken away, a `for` dropped. A damage that no test notices is printed, [-what was-]{+what is+}. Fails if fewer than 95
in 100 are noticed. What cannot change any answer is no damage; such changes stand in SAME, with the reason.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOME = Path(__file__).parent
sys.path.insert(0, str(HOME / "generator"))
sys.dont_write_bytecode = True

import rules
from settings import UNITS, seconds

NEEDED = 0.95
ALERTS = sum(rules.ALERTS.values(), [])
ALL = {each["alert"] for each in ALERTS}
TESTS = ("alerts_test.yml", "alerts_days_test.yml")
# Changes that change nothing: how the name of the rule begins, what the change looks like, and why.
SAME = [
    ("", r"unless (increase\()?\w+\[-\{", "`unless` without `on` compares all labels, so it takes nothing else away"),
    ("Supervisor(GaveUp|ChildNewReason|ChildCrashLoopingSlowly)", r"\[-increase-\]\{\+rate\+\}\([^()]*\) > 0",
     "what grows has a rate, and neither 0 nor the text needs the number"),
    ("instance_supervisor_reason:", r"\[-sum-\]\{\+max", "one series has these labels"),
    ("instance_supervisor_le:", r"\[-sum-\]\{\+max", "one series has these labels"),
    ("instance_supervisor_le:", r"\[-rate-\]\{\+increase", "a quantile asks for parts, not for a unit"),
    ("SupervisorDown|SupervisorGaveUp", r"supervisor_down_reason\{[^}]*\} \[-==-\]\{\+>=", "it is never more than 1"),
    ("SupervisorChildCrashLoopingSlowly", r'\[-\{cause="failure"\}-\]', "`and` without `on` compares all labels, so the other side decides"),
    ("SupervisorChildSlowToRestart", r"\[- on ", "these are all labels that both sides have"),
    ("SupervisorChildNewReason", r"^\(increase\(\w+\{[^}]*\}\[\[-15m-\]\{\+30m", "what is older is known, so it is not new"),
]
COMPARISONS = {">": [">=", "<"], ">=": [">", "<"], "<": [">"], "==": ["!=", ">="]}
MATCHERS = {"=": "!=", "=~": "!~", "!=": "=", "!~": "=~"}
FUNCTIONS = {
    "increase": ["delta", "rate"], "rate": ["increase", "delta"], "changes": ["resets"], "sum": ["max", "count"],
    "max_over_time": ["min_over_time", "avg_over_time"], "avg_over_time": ["max_over_time", "min_over_time"],
    "absent": ["count"], "clamp_max": ["clamp_min"],
}
OPERATORS = {"and": ["or", "unless"], "or": ["and", "unless"], "unless": ["and", "or"], "/": ["*"]}


def scaled(duration):
    """Half of a time and twice of it."""
    for time in (seconds(duration) // 2, seconds(duration) * 2):
        unit = max((unit for unit in UNITS if time % UNITS[unit] == 0), key=UNITS.get)
        yield f"{time // UNITS[unit]}{unit}"


def moved(number):
    """A number somewhat larger, and somewhat smaller."""
    value = float(number)
    step = 1 if value.is_integer() and value < 20 else value / 10
    return [f"{value + step:g}", f"{value - step:g}"]


def damages_to(expr):
    """Each damage to an expression: its kind, what is left, and how to show it."""
    def each(kind, pattern, replacements):
        for match in re.finditer(pattern, expr):
            for new in replacements(match):
                start, end = match.span(1)
                yield kind, expr[:start] + new + expr[end:], f"{expr[:start]}[-{match[1]}-]{{+{new}+}}{expr[end:]}"

    def without(match):
        """The labels of a list, each left out once."""
        labels = match[1].split(", ")
        return [", ".join(labels[:index] + labels[index + 1:]) for index in range(len(labels))]

    def fewer(match):
        """A regular expression with each of its alternatives left out once, or a word turned into another."""
        words = match[1].split("|")
        return ["|".join(words[:index] + words[index + 1:]) for index in range(len(words))] if len(words) > 1 else ["x"]

    yield from each("threshold", r"(?<=[<>=] )(\d+(?:\.\d+)?)", lambda match: moved(match[1]))
    yield from each("threshold", r"(?:histogram_quantile\(|\), )(\d+(?:\.\d+)?)", lambda match: moved(match[1]) if match[1] == "1" else ["0.5", "0.99"])
    yield from each("comparison", r" ([<>]=?|==) ", lambda match: COMPARISONS[match[1]])
    yield from each("window", r"\[(\w+)\]", lambda match: scaled(match[1]))
    yield from each("offset", r"offset (\w+)", lambda match: scaled(match[1]))
    yield from each("offset", r"( offset \w+)", lambda match: [""])
    yield from each("matcher", r'\{\w+(!?=~?)"', lambda match: [MATCHERS[match[1]]])
    yield from each("matcher", r'\{\w+!?=~?"([^"]*)"', fewer)
    yield from each("matcher", r"(\{[^}]*\})", lambda match: [""])
    yield from each("labels", r"(?:by|on) \(([^)]*)\)", without)
    yield from each("labels", r"( (?:by|on) \([^)]*\))", lambda match: [""])
    yield from each("function", r"\b(\w+)(?=\(| by)", lambda match: FUNCTIONS.get(match[1], []))
    yield from each("operator", r"(?:^|[ \n])(and|or|unless|/) ", lambda match: OPERATORS[match[1]])


class Damage:
    """A rule with one damage: which rule, of what kind, how to show it, its expression now, its other keys now."""

    def __init__(self, rule, kind, shown, expr, changes=None):
        self.rule, self.kind, self.shown, self.expr, self.changes = rule, kind, " ".join(shown.split()), expr, changes or {}

    def __str__(self):
        return f"{self.rule}, {self.kind}: {self.shown}"

    def is_none(self):
        return any(re.match(rule, self.rule) and re.search(pattern, self.shown) for rule, pattern, _ in SAME)


def damages():
    for name, expr, _ in rules.RECORDINGS:
        yield from (Damage(name, kind, shown, new) for kind, new, shown in damages_to(expr))
    for alert in ALERTS:
        name, expr = alert["alert"], alert["expr"]
        yield from (Damage(name, kind, shown, new) for kind, new, shown in damages_to(expr))
        for key in ("for", "keep_firing_for"):
            if alert[key]:
                yield from (Damage(name, key, f"[-{alert[key]}-]{{+{new}+}}", expr, {key: new}) for new in [None, *scaled(alert[key])])
        severity = "warning" if alert["labels"]["severity"] != "warning" else "info"
        yield Damage(name, "severity", severity, expr, {"labels": {"severity": severity}})


def write_rules(directory, damage, alerts):
    """Writes both rule files with the damage in them; of the alerts only these."""
    recordings = [(name, damage.expr if name == damage.rule else expr, why) for name, expr, why in rules.RECORDINGS]
    damaged = {
        group: [{**each, "expr": damage.expr, **damage.changes} if each["alert"] == damage.rule else each
                for each in content if each["alert"] in alerts]
        for group, content in rules.ALERTS.items()
    }
    (directory / "rules.yml").write_text(rules.rules_yml(recordings))
    (directory / "alerts.yml").write_text(rules.alerts_yml(damaged))


def users(recording):
    """The recordings and alerts that look at a recording, directly or not."""
    found = {recording}
    for _ in rules.RECORDINGS:
        found |= {name for name, expr, _ in rules.RECORDINGS if any(each in expr for each in found)}
    return found | {each["alert"] for each in ALERTS if any(name in each["expr"] for name in found)}


def cases():
    """The head of each file of tests, and its cases as they are written."""
    for file in TESTS:
        head, *parts = re.split(r"(?m)^(?=  - name: )", (HOME / file).read_text())
        yield head, parts


def passes(directory, *files):
    return subprocess.run(["promtool", "test", "rules", *files], cwd=directory, capture_output=True).returncode == 0


class Bench:
    """Where a damage is tried: first on the few tests that speak of its rule with that rule alone, which is fast, and if none of them
    notices, on all tests with all rules."""

    def __init__(self):
        self.subjects = {}

    def subject(self, rule):
        """The alerts that depend on a rule, and files with the tests that speak of them and pass without the others."""
        if rule not in self.subjects:
            names = {rule} if rule in ALL else users(rule)
            files = []
            for head, parts in cases():
                chosen = [part for part in parts if any(name in part for name in names)]
                files += [head + part for part in chosen]
            alerts = names & ALL
            with tempfile.TemporaryDirectory() as directory:
                directory = Path(directory)
                write_rules(directory, Damage(None, None, "", None), alerts)
                kept = []
                for text in files:
                    (directory / "test.yml").write_text(text)
                    if passes(directory, "test.yml"):
                        kept.append(text)
            self.subjects[rule] = alerts, kept
        return self.subjects[rule]

    def notices(self, damage):
        """Does a test fail? None if Prometheus does not even take the rule."""
        alerts, tests = self.subjects[damage.rule]
        with tempfile.TemporaryDirectory() as directory:
            directory = Path(directory)
            write_rules(directory, damage, ALL)
            if subprocess.run(["promtool", "check", "rules", "rules.yml", "alerts.yml"], cwd=directory, capture_output=True).returncode:
                return None
            write_rules(directory, damage, alerts)
            for number, text in enumerate(tests):
                (directory / f"{number}.yml").write_text(text)
            if not passes(directory, *(f"{number}.yml" for number in range(len(tests)))):
                return True
            write_rules(directory, damage, ALL)
            for file in TESTS:
                (directory / file).write_text((HOME / file).read_text())
            return not passes(directory, *TESTS)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, metavar="NUMBER", help="try only so many, spread evenly")
    parser.add_argument("--only", default="", metavar="WORD", help="try only those whose description contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    os.nice(10)
    found = list(damages())
    chosen = [each for each in found if arguments.only in str(each) and not each.is_none()]
    print(f"{len(found)} changes, {sum(each.is_none() for each in found)} of which change nothing")
    if not chosen:
        sys.exit(f"no change is called {arguments.only}")
    if arguments.sample and arguments.sample < len(chosen):
        chosen = [chosen[index * len(chosen) // arguments.sample] for index in range(arguments.sample)]
    bench = Bench()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(bench.subject, sorted({each.rule for each in chosen})))
        results = list(zip(chosen, pool.map(bench.notices, chosen)))
    results = [(damage, noticed) for damage, noticed in results if noticed is not None]
    noticed = Counter(damage.kind for damage, noticed in results if noticed)
    for damage, is_noticed in results:
        if not is_noticed:
            print(f"not noticed: {damage}")
    for kind, total in sorted(Counter(damage.kind for damage, _ in results).items()):
        print(f"{kind:16} {noticed[kind]:4} of {total:4}")
    rate = sum(noticed.values()) / len(results)
    print(f"{sum(noticed.values())} of {len(results)} damages noticed: {rate:.3f}")
    if rate < NEEDED:
        sys.exit(f"fewer than {NEEDED}")


if __name__ == "__main__":
    main()

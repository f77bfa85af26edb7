#!/usr/bin/env python3
"""What does a crash loop cost? 200 processes that die at once, without backoff, under one exporter.

Target: memory flat, and /metrics answered within 50 ms (99th percentile) meanwhile. Prints restarts per second, the
exporter's memory a quarter through and at the end, its share of the processors, and the time of scrapes.

    cargo build --release && python3 benches/crash_loop.py [SECONDS] [PROCESSES]
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
PROCESSES = int(sys.argv[2]) if len(sys.argv) > 2 else 200
BINARY = os.path.join(os.path.dirname(__file__), "..", "target", "release", "restart_exporter")
PER_SUPERVISOR = 20
TICKS = os.sysconf("SC_CLK_TCK")


def tree():
    lines = []
    for number in range(PROCESSES):
        if number % PER_SUPERVISOR == 0:
            lines.append(f'[[supervisor]]\nname = "s{number // PER_SUPERVISOR}"\nmax_restarts = 4000000000')
        lines.append(f'[[supervisor.child]]\nid = "c{number}"\ncommand = ["false"]')
    return "\n".join(lines)


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / TICKS, children / TICKS


def scrape(address):
    start = time.monotonic()
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return time.monotonic() - start, text


def main():
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "tree.toml")
        with open(file, "w") as out:
            out.write(tree())
        command = [BINARY, "run", file, "--web.listen-address=127.0.0.1:0", "--log.level=info"]
        exporter = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        address = re.search(r"address=(\S+)", exporter.stderr.readline()).group(1)
        # Its log is read and thrown away, as fast as it comes.
        os.set_blocking(exporter.stderr.fileno(), False)
        times, quarter, start = [], None, time.monotonic()
        while (now := time.monotonic() - start) < SECONDS:
            took, text = scrape(address)
            times.append(took)
            if quarter is None and now > SECONDS / 4:
                quarter = memory_kib(exporter.pid)
            drained = time.monotonic() + 0.1
            while time.monotonic() < drained:
                if not exporter.stderr.read(1 << 20):
                    time.sleep(0.01)
        restarts = sum(float(value) for value in re.findall(r'child_restarts_total{.*cause="failure"} (\S+)', text))
        own, children = processor_seconds(exporter.pid)
        end = memory_kib(exporter.pid)
        exporter.terminate()
        exporter.wait(timeout=30)
    times.sort()
    print(f"restarts: {restarts:.0f} in {SECONDS:.0f} s, {restarts / SECONDS:.0f} per second, {PROCESSES} processes")
    print(f"memory: {quarter} KiB after a quarter, {end} KiB at the end, ratio {end / quarter:.3f}")
    print(f"processors: {own / SECONDS:.2f} of {os.cpu_count()} by the exporter, {children / SECONDS:.2f} by its children")
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    print(f"scrapes: {len(times)}, median {times[len(times) // 2] * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms (target 50 ms)")


main()

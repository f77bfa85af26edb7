#!/usr/bin/env python3
"""How many scrapes a second? Our endpoint beside a hyper server that gathers and encodes with the crate `prometheus`.

Both serve the same series, some 1 MiB of text, and are asked by wrk in turn, with and without gzip (both at level 1).
Target: ten times as many requests per second without gzip.

    cargo build --release --manifest-path benches/peers/Cargo.toml && python3 benches/wrk.py [SUPERVISORS] [SECONDS]
"""

import os
import re
import statistics
import subprocess
import sys

import serving

SUPERVISORS = int(sys.argv[1]) if len(sys.argv) > 1 else 150
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
ROUNDS = 3
CONNECTIONS = 8
TARGET = 10


def requests_per_second(address, gzip):
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", f"http://{address}/metrics"]
    output = subprocess.run(command + ["-H", "Accept-Encoding: gzip"] * gzip, check=True, capture_output=True, text=True)
    if "Non-2xx" in output.stdout or "Socket errors" in output.stdout:
        sys.exit(f"not all were answered:\n{output.stdout}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output.stdout).group(1))


def main():
    with serving.start("ours", SUPERVISORS) as ours, serving.start("encoder", SUPERVISORS) as encoder:
        print(f"{SUPERVISORS} supervisors, {CONNECTIONS} connections, {SECONDS} s by turns, {ROUNDS} rounds")
        print(f"{'':8} {'ours KiB':>10} {'encoder KiB':>12} {'ours /s':>10} {'encoder /s':>11} {'ratio':>7}")
        for gzip in (False, True):
            sizes = [len(serving.scrape(server.address, gzip)) / 1024 for server in (ours, encoder)]
            rounds = [
                [requests_per_second(server.address, gzip) for server in (ours, encoder)] for _ in range(ROUNDS)
            ]
            fast, slow = (statistics.median(figures) for figures in zip(*rounds))
            ratio = fast / slow
            name = "gzip" if gzip else "plain"
            verdict = "" if gzip else f"  (target >= {TARGET})" + ("  MISSED" if ratio < TARGET else "")
            print(f"{name:8} {sizes[0]:>10.0f} {sizes[1]:>12.0f} {fast:>10.0f} {slow:>11.0f} {ratio:>7.1f}{verdict}")


main()

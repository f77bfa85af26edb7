#!/usr/bin/env python3
"""How many scrapes a second? Our endpoint beside a hyper server that gathers and encodes with the crate `prometheus`.

Both serve the same series, some 1 MiB of text, and are asked by wrk in turn, with and without gzip (both at level 1).
Each server has one core, and wrk another, because wrk needs as much time for a megabyte as our server does. Target: ten
times as many requests per second without gzip. For comparison also without that order, all on all cores.

    cargo build --release --manifest-path benches/peers/Cargo.toml && python3 benches/wrk.py [SUPERVISORS] [SECONDS]
"""

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


def requests_per_second(address, gzip, core):
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", f"http://{address}/metrics"]
    command += ["-H", "Accept-Encoding: gzip"] * gzip
    output = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=serving.on_core(core))
    if "Non-2xx" in output.stdout or "Socket errors" in output.stdout:
        sys.exit(f"not all were answered:\n{output.stdout}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output.stdout).group(1))


def compare(names, server_core, wrk_core, target):
    with (
        serving.start("ours", SUPERVISORS, server_core) as ours,
        serving.start("encoder", SUPERVISORS, server_core) as encoder,
    ):
        servers = (ours, encoder)
        for gzip, name in zip((False, True), names):
            sizes = [len(serving.scrape(server.address, gzip)) / 1024 for server in servers]
            rounds = [
                [requests_per_second(server.address, gzip, wrk_core) for server in servers] for _ in range(ROUNDS)
            ]
            fast, slow = (statistics.median(figures) for figures in zip(*rounds))
            ratio = fast / slow
            verdict = "" if gzip or not target else f"  (target >= {target})" + ("  MISSED" if ratio < target else "")
            print(f"{name:18} {sizes[0]:>10.0f} {sizes[1]:>12.0f} {fast:>10.0f} {slow:>11.0f} {ratio:>7.1f}{verdict}")


def main():
    print(f"{SUPERVISORS} supervisors, {CONNECTIONS} connections, {SECONDS} s by turns, {ROUNDS} rounds")
    print(f"{'':18} {'ours KiB':>10} {'encoder KiB':>12} {'ours /s':>10} {'encoder /s':>11} {'ratio':>7}")
    compare(("plain", "gzip"), 0, 1, TARGET)
    compare(("plain, all cores", "gzip, all cores"), None, None, None)


main()

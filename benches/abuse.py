#!/usr/bin/env python3
"""Does a normal scrape notice what others do to the endpoint?

Meanwhile: 40 readers that take 1 KiB a second, 500 idle connections, heads that are never finished, heads of 10 MiB,
scrapers that are killed in the middle of an answer. Prints the time of scrapes before and meanwhile, the server's memory,
and which limits were reached. Targets: the 99th percentile at most five times what it was, memory flat.

    cargo build --release --manifest-path benches/peers/Cargo.toml && python3 benches/abuse.py [SCRAPES] [SUPERVISORS]
"""

import http.client
import multiprocessing
import re
import resource
import socket
import sys
import time

import serving

SCRAPES = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SUPERVISORS = int(sys.argv[2]) if len(sys.argv) > 2 else 150
SLOW_READERS, IDLE, HALF_HEADS = 40, 500, 40
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
MOST_TIMES_SLOWER, MOST_MEMORY_RATIO = 5.0, 1.1


def connected(address, message=b"", small_buffer=False):
    client = socket.socket()
    if small_buffer:
        # Else the kernel would take the whole answer for its slow reader.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address)
    client.sendall(message)
    return client


def quietly(deed, address):
    """Does it again and again; that the server hangs up is what it should do."""
    while True:
        try:
            deed(address)
        except OSError:
            time.sleep(0.05)


def read_slowly(address):
    # More answers than the kernel's buffers hold.
    requests = 8 * (REQUEST + b"\r\n")
    readers = [connected(address, requests, small_buffer=True) for _ in range(SLOW_READERS)]
    while readers:
        for reader in list(readers):
            try:
                if not reader.recv(1024):
                    readers.remove(reader)
            except OSError:
                readers.remove(reader)
        time.sleep(1)


def sit_idle(address):
    connections = [connected(address) for _ in range(IDLE)]
    time.sleep(60)
    del connections


def send_half_a_head(address):
    connections = [connected(address, REQUEST) for _ in range(HALF_HEADS)]
    for _ in range(30):
        time.sleep(1)
        for connection in connections:
            connection.sendall(b"X-More: 1\r\n")


def send_a_huge_head(address):
    with connected(address, REQUEST + b"X-Long: ") as client:
        for _ in range(160):
            client.sendall(b"x" * 65536)
    time.sleep(0.1)


def hang_up_in_the_middle(address):
    with connected(address, REQUEST + b"\r\n") as client:
        client.recv(65536)
    time.sleep(0.02)


DEEDS = [read_slowly, sit_idle, send_half_a_head, send_a_huge_head, hang_up_in_the_middle]


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def scrapes(address, count, each=lambda number: None):
    """The sorted times of so many scrapes on one connection, as Prometheus keeps one."""
    client, times = http.client.HTTPConnection(*address), []
    for number in range(count):
        start = time.perf_counter()
        client.request("GET", "/metrics")
        answer = client.getresponse()
        if answer.status != 200 or not answer.read().endswith(b"\n"):
            sys.exit(f"a scrape was answered with {answer.status}, or not to its end")
        times.append(time.perf_counter() - start)
        each(number)
    return sorted(times)


def shown(times):
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1e3
    return f"p50 {at(0.5):.2f} ms, p99 {at(0.99):.2f} ms, most {times[-1] * 1e3:.1f} ms", at(0.99)


def verdict(what, figure, target):
    print(f"{what} = {figure:.2f} (target <= {target})" + ("  MISSED" if figure > target else ""))


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with serving.start("ours", SUPERVISORS) as server:
        host, port = server.address.rsplit(":", 1)
        address = (host, int(port))
        print(f"{SUPERVISORS} supervisors, {len(serving.scrape(server.address)) / 1024:.0f} KiB")
        before, p99_before = shown(scrapes(address, SCRAPES // 5))
        print(f"alone:     {SCRAPES // 5} scrapes, {before}, {memory_kib(server.pid)} KiB")
        crowd = [multiprocessing.Process(target=quietly, args=(deed, address), daemon=True) for deed in DEEDS]
        for deed in crowd:
            deed.start()
        time.sleep(3)
        memory = {}

        def look(number):
            if number in (SCRAPES // 4, SCRAPES - 1):
                memory[number] = memory_kib(server.pid)

        meanwhile, p99 = shown(scrapes(address, SCRAPES, look))
        quarter, end = memory.values()
        print(f"meanwhile: {SCRAPES} scrapes, {meanwhile}, {quarter} KiB after a quarter, {end} KiB at the end")
        text = serving.scrape(server.address).decode()
        for deed in crowd:
            deed.terminate()
        time.sleep(1)
        print(f"after:     {memory_kib(server.pid)} KiB")
    reached = re.findall(r'^restart_exporter_limit_reached_total\{limit="(http_\w+)"\} (\d+)', text, re.M)
    print("limits:    " + ", ".join(f"{limit} {count}" for limit, count in reached if count != "0"))
    verdict("p99 meanwhile / alone", p99 / p99_before, MOST_TIMES_SLOWER)
    verdict("memory at the end / after a quarter", end / quarter, MOST_MEMORY_RATIO)


main()

#!/usr/bin/env python3
"""Does a normal scrape notice what others do to the endpoint?

Meanwhile: 40 readers that take 1 KiB a second, 500 idle connections, heads that are never finished, heads of 10 MiB,
scrapers that are killed in the middle of an answer, and two HTTP/2 clients with 30 scrapes each that never open a window.
All of it over TLS, which HTTP/2 needs. Prints the time of scrapes before and meanwhile, the server's memory, and which
limits were reached. Targets: the 99th percentile at most 1.5 times what it was, memory flat.

    cargo build --release --manifest-path benches/peers/Cargo.toml && python3 benches/abuse.py [SCRAPES] [SUPERVISORS]
"""

import http.client
import multiprocessing
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import serving

SCRAPES = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SUPERVISORS = int(sys.argv[2]) if len(sys.argv) > 2 else 150
SLOW_READERS, IDLE, HALF_HEADS = 40, 500, 40
WINDOWLESS, STREAMS = 2, 30
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
MOST_TIMES_SLOWER, MOST_MEMORY_RATIO = 1.5, 1.1


def tls(*protocols):
    """Speaks TLS with whoever is there: the certificate is one of this run."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def connected(address, message=b"", small_buffer=False, context=tls()):
    client = socket.socket()
    if small_buffer:
        # Else the kernel would take the whole answer for its slow reader.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address)
    client = context.wrap_socket(client)
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


def frame(kind, flags, stream, body=b""):
    """RFC 9113, section 4.1."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def open_no_window(address):
    settings, headers, ping = 4, 1, 6
    path, authority = b"/metrics", b"localhost"
    # GET and https of the static table, then two literals (RFC 7541, section 6.2.2).
    block = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01" + bytes([len(authority)]) + authority
    message = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0, (4).to_bytes(2, "big") + bytes(4))
    message += b"".join(frame(headers, 5, 2 * number + 1, block) for number in range(STREAMS))
    clients = [connected(address, message, context=tls("h2")) for _ in range(WINDOWLESS)]
    for client in clients:
        client.settimeout(0.1)
        client.sendall(frame(settings, 1, 0))
    while True:
        for client in clients:
            client.sendall(frame(ping, 0, 0, bytes(8)))
            try:
                while client.recv(65536):
                    pass
                return
            except TimeoutError:
                pass
        time.sleep(0.5)


DEEDS = [read_slowly, sit_idle, send_half_a_head, send_a_huge_head, hang_up_in_the_middle, open_no_window]


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def scrape(address):
    client = http.client.HTTPSConnection(*address, context=tls())
    client.request("GET", "/metrics")
    return client.getresponse().read().decode()


def scrapes(address, count, each=lambda number: None):
    """The sorted times of so many scrapes on one connection, as Prometheus keeps one."""
    client, times = http.client.HTTPSConnection(*address, context=tls()), []
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


def web_config(folder):
    """A file that asks for TLS, with a certificate that nobody knows."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
            "/CN=localhost", "-keyout", "server.key", "-out", "server.crt"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    file = os.path.join(folder, "web.yml")
    with open(file, "w") as text:
        text.write("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    return file


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    folder = tempfile.TemporaryDirectory()
    with folder, serving.start("ours", SUPERVISORS, web_config_file=web_config(folder.name)) as server:
        host, port = server.address.rsplit(":", 1)
        address = (host, int(port))
        print(f"{SUPERVISORS} supervisors, {len(scrape(address)) / 1024:.0f} KiB")
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
        text = scrape(address)
        for deed in crowd:
            deed.terminate()
        time.sleep(1)
        print(f"after:     {memory_kib(server.pid)} KiB")
    reached = re.findall(r'^restart_exporter_limit_reached_total\{limit="(http_\w+)"\} (\d+)', text, re.M)
    print("limits:    " + ", ".join(f"{limit} {count}" for limit, count in reached if count != "0"))
    verdict("p99 meanwhile / alone", p99 / p99_before, MOST_TIMES_SLOWER)
    verdict("memory at the end / after a quarter", end / quarter, MOST_MEMORY_RATIO)


main()

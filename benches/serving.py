"""The servers of `benches/peers`, started and ended, and a scrape of one."""

import contextlib
import os
import subprocess
import types
import urllib.request

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(PEERS, "target"))


@contextlib.contextmanager
def start(who, supervisors):
    """Runs a server; gives its address and its process."""
    command = [os.path.join(TARGET, "release", "serve"), who, str(supervisors)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield types.SimpleNamespace(address=process.stdout.readline().strip(), pid=process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def scrape(address, gzip=False):
    """The body of one answer, as it came."""
    headers = {"Accept-Encoding": "gzip"} if gzip else {}
    with urllib.request.urlopen(urllib.request.Request(f"http://{address}/metrics", headers=headers)) as answer:
        return answer.read()

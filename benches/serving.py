"""The servers of `benches/peers`, started and ended, and a scrape of one."""

import contextlib
import os
import subprocess
import types
import urllib.request

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(PEERS, "target"))


def on_core(core):
    """What makes a new process stay on a core; nothing on a machine that has too few."""
    cores = sorted(os.sched_getaffinity(0))
    return None if core is None or core >= len(cores) else lambda: os.sched_setaffinity(0, {cores[core]})


@contextlib.contextmanager
def start(who, supervisors, core=None, web_config_file=None):
    """Runs a server, on one core or on all; gives its address and its process."""
    command = [os.path.join(TARGET, "release", "serve"), who, str(supervisors)]
    command += [web_config_file] if web_config_file else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(core))
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

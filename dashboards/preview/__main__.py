"""Draws a picture of each dashboard from real data: python3 dashboards/preview

Starts two exporters, the demo and the programs of tree.toml, and a Prometheus that scrapes them. After some minutes a page in a
headless Chromium runs the panels' own queries and draws them: a preview, not Grafana. Needs prometheus, chromium, pngquant and cargo.
"""

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parent
DEMO, TREE, PROMETHEUS = "127.80.0.1:8469", "127.80.0.2:8469", "127.80.0.3:9090"
# Scrapes every 15 seconds in an hour are as many as one a second in four minutes.
FASTER = 15
SCRAPE_SECONDS = 15 / FASTER
WIDTH = 1440
# Of which supervisor the second picture is.
CHOSEN = {"fleet": {}, "supervisor": {"instance": TREE, "supervisor": "shop/payments"}}


class Page(SimpleHTTPRequestHandler):
    """Serves the page and the dashboards, and hears from the page what it could not draw."""

    wrong = []

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path != "/wrong":
            return super().do_GET()
        self.wrong.append(urllib.parse.unquote(query))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def running(stack, *command):
    """A program in the background until the end of the stack."""
    # The demo panics on purpose, and a backtrace reads all debug information into memory.
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    stack.callback(lambda: (process.terminate(), process.wait()))


def await_answer(url):
    for _ in range(300):
        try:
            return urllib.request.urlopen(url).read()
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def picture(name, page, start, end):
    """Draws one dashboard."""
    panels = json.loads((HOME / f"{name}.json").read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * 33 + 44
    parameters = {"dashboard": f"{name}.json", "prometheus": f"http://{PROMETHEUS}", "start": start, "end": end,
                  "scrape": SCRAPE_SECONDS, "faster": FASTER, **CHOSEN[name]}
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{height}",
         "--virtual-time-budget=60000", f"--screenshot={HOME / name}.png", f"{page}?{urllib.parse.urlencode(parameters)}"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # A drawing has few colours, so a palette of them makes it a third as large.
    subprocess.run(["pngquant", "--force", "--speed=1", "--ext=.png", "128", HOME / f"{name}.png"], check=True)


def main():
    parser = argparse.ArgumentParser(prog="python3 dashboards/preview", description=__doc__)
    parser.add_argument("--seconds", type=int, default=240, help="how long to look at the programs")
    parser.add_argument("--exporter", type=Path, help="a built exporter, instead of building it")
    parser.add_argument("--wait", action="store_true", help="leave everything running until Enter is pressed")
    arguments = parser.parse_args()
    exporter = arguments.exporter
    if exporter is None:
        subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=HOME.parent, check=True)
        exporter = HOME.parent / "target/debug/restart_exporter"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tree, config = directory / "tree.toml", directory / "prometheus.yml"
        tree.write_text((HERE / "tree.toml").read_text().replace("DIRECTORY", str(directory)))
        config.write_text(json.dumps({
            "global": {"scrape_interval": f"{SCRAPE_SECONDS * 1000:.0f}ms"},
            "scrape_configs": [{"job_name": "restart-exporter", "static_configs": [{"targets": [DEMO, TREE]}]}],
        }))
        running(stack, "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address={PROMETHEUS}")
        await_answer(f"http://{PROMETHEUS}/-/ready")
        running(stack, exporter, "demo", f"--web.listen-address={DEMO}")
        running(stack, exporter, "run", tree, f"--web.listen-address={TREE}")
        for address in (DEMO, TREE):
            await_answer(f"http://{address}/-/ready")
        start = time.time()
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Page, directory=HOME))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/preview/page.html"
        time.sleep(arguments.seconds)
        end = time.time()
        for name in CHOSEN:
            picture(name, page, round(start, 3), round(end, 3))
            print(f"{HOME / name}.png")
        if Page.wrong:
            raise SystemExit("not drawn: " + "; ".join(Page.wrong))
        if arguments.wait:
            input(f"{page} on http://{PROMETHEUS}; Enter ends it")


if __name__ == "__main__":
    main()

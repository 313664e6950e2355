"""The real Prometheus and Alertmanager for tests (``monitoring/local_stack.py``): backfilled history, and HTTP servers that record requests."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "monitoring"))

import local_stack  # noqa: E402
from local_stack import (  # noqa: E402
    MONITORING,
    NOT_INSTALLED,
    Server,
    alertmanager,
    get,
    prometheus,
    wait,
    write_alertmanager_config,
    write_prometheus_config,
)

__all__ = [
    "AMTOOL",
    "INSTALLED",
    "MONITORING",
    "NOT_INSTALLED",
    "PROMTOOL",
    "Server",
    "alertmanager",
    "answering",
    "backfill",
    "get",
    "prometheus",
    "record",
    "wait",
    "write_alertmanager_config",
    "write_prometheus_config",
]  # fmt: skip
PROMTOOL, AMTOOL = shutil.which("promtool"), shutil.which("amtool")
INSTALLED = bool(local_stack.INSTALLED and PROMTOOL and AMTOOL)


@contextmanager
def answering(reply: Callable[[str, str, bytes], tuple[int, bytes]]) -> Iterator[str]:
    """A web server whose answers ``reply`` (path, Authorization, body) gives; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = reply(self.path, self.headers.get("Authorization", ""), body)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # who asked has gone
                self.wfile.write(content)

        do_GET = do_POST = _any

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def backfill(folder: Path, openmetrics: Path) -> None:
    """Put a past into the data of a Prometheus that does not run."""
    words = [PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(openmetrics), str(folder / "data")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def record(server: Server, config: Path, since: float, until: float) -> None:
    """Evaluate the recording rules over the past; a Prometheus sees it after a restart."""
    words = [
        PROMTOOL, "tsdb", "create-blocks-from", "rules", f"--start={since:.0f}", f"--end={until:.0f}", f"--url={server.url}",
        f"--output-dir={config.parent / 'data'}", "--eval-interval=60s", str(config.parent / "rules" / "recording.yml"),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

"""Pages in a real browser: what Chromium makes of them, in frames of a given width, measured from outside."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Flags of every Chromium of the tests: it needs no rights, and asks nothing of the network."""

FLAGS = ("--headless", *QUIET_FLAGS, "--virtual-time-budget=4000", "--window-size=1400,1000")
HARNESS = """<!DOCTYPE html><title>harness</title>
{frames}
<script>
addEventListener("load", () => setTimeout(() => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, all = [...page.querySelectorAll("*")];
    return {{
      title: page.title,
      overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
      tags: [...new Set(all.map(element => element.localName))],
      handlers: all.filter(element => [...element.attributes].some(a => a.name.startsWith("on"))).length,
      links: [...page.querySelectorAll("[href], [src]")].map(e => e.getAttribute("href") || e.getAttribute("src")),
      text: page.body.innerText,
      cut: [...page.querySelectorAll(".scroll, svg, pre")]
        .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
        .map(e => e.getAttribute("aria-label") || e.localName),
    }};
  }});
  const pre = document.createElement("pre");
  pre.id = "found";
  pre.textContent = JSON.stringify({{title: document.title, frames: found}});
  document.body.append(pre);
}}, 1000));
</script>"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def look(folder: Path, frames: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """What became of the pages, each (path within `folder`, width of its frame), and of the page around them.

    Returns {"title", "frames": [{"title", "overflow", "tags", "handlers", "links", "text", "cut"}]}; `cut` names what
    is wider than its frame.
    """
    tags = "\n".join(f'<iframe src="{page}" width="{width}" height="800"></iframe>' for page, width in frames)
    (folder / "harness.html").write_text(HARNESS.format(frames=tags), "utf-8")
    with _served(folder) as address, tempfile.TemporaryDirectory() as profile:
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", f"{address}/harness.html"]
        dom = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found, f"the harness did not finish: {dom[-500:]}"
    return dict(json.loads(unescape(found[1])))

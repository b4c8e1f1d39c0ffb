"""A folder on a web server of this machine, and a browser that looks at it.

The programs beside this file use them, and so do the tests.
"""
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # whoever only serves a folder needs no playwright
    from playwright.sync_api import Browser

NAMES = "chromium", "chromium-browser", "google-chrome"
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)  # None: there is none
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    "Answers from a folder, and logs nothing."
    def log_message(self, *args): pass


@contextmanager
def serve(
    folder: Path,
    handler: type[Quiet] = Quiet,  # answers requests
) -> Iterator[str]:                # the server's address
    "A web server for a folder inside the block."
    answer = functools.partial(handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def browse() -> Iterator["Browser"]:
    "A real browser inside the block, without a window."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser
        browser.close()

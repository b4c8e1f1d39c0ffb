"""The explorers in JupyterLab, in a real browser: a click in the plane of summaries decodes another universe."""
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from conftest import ROOT


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab that holds the explorers, without outputs."
    notebook = nbformat.read(ROOT / "nbs" / "tools" / "play.ipynb", 4)
    for cell in notebook.cells:
        if cell.cell_type == "code": cell.outputs = []
    nbformat.write(notebook, tmp_path / "play.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("jupyter"), "lab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", "--expose-app-in-browser", f"--notebook-dir={tmp_path}"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server:
        try:
            for _ in range(60):
                try:
                    urlopen(f"{url}/api").close()
                    break
                except OSError: time.sleep(1)
            else: pytest.fail((tmp_path / "log").read_text())
            yield url
        finally:
            server.terminate()


def test_click_decodes(browser, lab):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(f"{lab}/lab/tree/play.ipynb")
    page.get_by_text("| Idle").wait_for()   # the kernel is ready
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    picture = page.locator("img[alt^='The plane of summaries']")
    picture.wait_for(state="attached")
    picture.scroll_into_view_if_needed()
    universe = page.locator(".jp-OutputArea-output", has=picture).locator(".jp-OutputArea img").last
    universe.wait_for()
    seen = [universe.get_attribute("src")]
    for move in (lambda: picture.click(position={"x": 60, "y": 100}), lambda: picture.press("ArrowRight")):
        move()
        expect(universe).not_to_have_attribute("src", seen[-1], timeout=60_000)
        seen.append(universe.get_attribute("src"))
    assert len(set(seen)) == 3, "a click and an arrow key should each have decoded another map"
    page.close()

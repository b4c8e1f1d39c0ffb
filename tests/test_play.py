"""Explorers and live figures in JupyterLab, in a browser: the kernel answers them."""
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
from test_live import CHECKS

FIGURES = """
from cosmoflow.live import FIGURES, live
for figure in FIGURES: display(live(figure))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address of a JupyterLab with the explorers, without outputs, and all figures."
    tmp_path = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(ROOT / "nbs" / "tools" / "play.ipynb", 4)
    for cell in notebook.cells:
        if cell.cell_type == "code": cell.outputs = []
    notebook.cells.append(nbformat.v4.new_code_cell(FIGURES))
    nbformat.write(notebook, tmp_path / "play.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("jupyter"), "lab", "--no-browser",
               "--allow-root", f"--port={port}", "--IdentityProvider.token=",
               "--expose-app-in-browser", f"--notebook-dir={tmp_path}"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
                                "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    url = f"http://127.0.0.1:{port}"
    with ((tmp_path / "log").open("w", encoding="utf-8") as log,
          subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server):
        try:
            for _ in range(60):
                try:
                    urlopen(f"{url}/api").close()
                    break
                except OSError: time.sleep(1)
            else: pytest.fail((tmp_path / "log").read_text(encoding="utf-8"))
            yield url
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def explorers(browser, lab):
    "The page of explorers, with every cell run, and all live figures at its end."
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(f"{lab}/lab/tree/play.ipynb")
    page.get_by_text("| Idle").wait_for()   # the kernel is ready
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    yield page
    page.close()


def middle(element):
    box = element.bounding_box()
    return [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]


def test_explorers_follow_the_hand(explorers):
    from playwright.sync_api import expect

    def watched(control):
        "The picture that a control redraws."
        control.wait_for(state="attached")
        control.scroll_into_view_if_needed()
        output = explorers.locator(".jp-OutputArea-output", has=control)
        picture = output.locator(".jp-OutputArea img").last
        picture.wait_for()
        return picture

    def redraws(act, picture):
        seen = picture.get_attribute("src")
        act()
        expect(picture).not_to_have_attribute("src", seen, timeout=120_000)
        return picture.get_attribute("src")

    plane = explorers.locator("img[alt^='The plane of summaries']")
    universe = watched(plane)
    sliders = {"Omega_m": "0.4 0.5", "sigma_8": "0.9 1.0",
               "0: 8.8 to 25.0 Mpc/h": "0.25 0.50"}
    for name, values in sliders.items():
        label = explorers.get_by_text(name, exact=True)
        slider = ".jupyter-widget-hslider, .widget-hslider"
        control = explorers.locator(slider, has=label).first
        right = lambda: control.locator(".noUi-handle").press("ArrowRight")
        picture, pictures = watched(control), []
        for value in values.split():
            pictures.append(redraws(right, picture))
            expect(control.locator(".widget-readout")).to_have_text(value)
        assert len(set(pictures)) == 2
    plane.scroll_into_view_if_needed()
    redraws(lambda: plane.click(position={"x": 160, "y": 120}), universe)
    box = plane.bounding_box()
    cross = middle(plane.locator("xpath=following-sibling::span"))
    clicked = [box["x"] + 160, box["y"] + 120]
    assert cross == pytest.approx(clicked, abs=2), "the cross is elsewhere"
    redraws(lambda: plane.press("ArrowRight"), universe)
    redraws(lambda: plane.click(position={"x": 2, "y": 120}), universe)
    label = middle(plane.locator("xpath=following-sibling::span"))[0] - box["x"]
    assert label > 30, "beside the axes the cross stops at their edge"


@pytest.mark.parametrize("figure", CHECKS)
def test_live_figures_ask_the_kernel(explorers, figure):
    kind = f".cosmoflow-live[data-figure={figure}][data-state=live]"
    place = explorers.locator(kind)
    place.wait_for(state="attached")
    place.scroll_into_view_if_needed()
    CHECKS[figure](explorers, place, touch=False)


def test_simulations_of_the_sliders_share_their_waves():
    from cosmoflow.data import open_maps
    from cosmoflow.spectra import cross_correlation
    one = open_maps("PM", "1P")
    for sims in (range(5), range(5, 10)):
        first, *others = (one.maps[15 * sim:15 * sim + 15] for sim in sims)
        for other in others: assert cross_correlation(first, other)[:, 0].min() > 0.8

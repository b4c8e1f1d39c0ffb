"""Every notebook runs top to bottom in an environment like Colab's, with the wheel, and keeps outputs from such a run."""
import json
import os
import re
import subprocess
from runpy import run_path

import pytest
from conftest import NOTEBOOKS, ROOT

EXTRAS = {"pmpp": "sim", "cosmoflow.simulate": "sim", "umap": "viz", "ipywidgets": "viz", "anywidget": "viz", "sklearn": "viz", "optuna": "search"}

SETUP = run_path(str(ROOT / "nbs" / "site" / "_setup.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path, colab, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COSMOFLOW_FULL")}
    done = subprocess.run([colab, ROOT / "nbs" / "site" / "_run.py", "--out", tmp_path, path], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_setup_cell_installs_what_is_imported(path):
    code = "\n".join("".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
    imported = set(re.findall(r"^(?:from|import) ([\w.]+)", code, re.M))
    needed = {extra for module, extra in EXTRAS.items() if module in imported}
    installed = re.search(r'pip install -q "cosmoflow(?:\[([\w,]+)\])? @ git', code)
    assert installed, "no set-up cell"
    assert needed <= set((installed[1] or "").split(",")), f"imports need the extras {needed}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_setup_cell_is_the_one_of_all_pages(path):
    (cell,) = filter(SETUP["is_setup"], json.loads(path.read_text(encoding="utf-8"))["cells"])
    expected = SETUP["setup_cell"](SETUP["extras_of"](cell))
    assert "".join(cell["source"]) == expected, "run python nbs/site/_setup.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_kept_in_order(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    for cell in cells:
        assert not any(o["output_type"] == "error" for o in cell["outputs"]), "".join(cell["source"])
        if any("image/png" in o.get("data", {}) for o in cell["outputs"]):
            assert any(line.startswith("#| fig-alt:") for line in cell["source"]), "say in `#| fig-alt:` what the figure shows:\n" + "".join(cell["source"])
    assert any(c["outputs"] for c in cells), "run `make notebooks` and commit the outputs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_needs_no_file_beside_it(path):
    "On a restarted Colab runtime nothing but the package is there: no clone, no way into the tree."
    cells = ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    code = "\n".join(cell for cell in cells if not cell.startswith("#| export"))
    assert not re.search(r"git clone|^\s*%cd|[\"']records/", code, re.M)
    assert set(re.findall(r"[\"'](?:\.\./)+(\w+)", code)) <= {"build", "cosmoflow"}, "only what full runs leave"

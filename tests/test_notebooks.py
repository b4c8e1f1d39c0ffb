"""Every notebook runs, with the wheel and as on Colab, and keeps its outputs."""
import json
import os
import re
import subprocess
import sys
from runpy import run_path

import pytest
from conftest import NOTEBOOKS, ROOT, cell_sources

EXTRAS = {
    "pmpp": "sim",
    "cosmoflow.simulate": "sim",
    "umap": "viz",
    "ipywidgets": "viz",
    "anywidget": "viz",
    "constriction": "compress",
    "cosmoflow.posterior": "posterior",
    "sbi": "posterior",
    "onnx": "export",
    "onnxruntime": "export",
    "sklearn": "viz",
    "optuna": "search",
}
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if name not in ("PYTHONPATH", "COSMOFLOW_FULL")}
# One page is made as readers get it; the others are drafts in kernels that are forked.
# Only Linux forks a process safely that has imported so much.
ANEW = NOTEBOOKS[:1] if sys.platform == "linux" else NOTEBOOKS
FORKED = [path for path in NOTEBOOKS if path not in ANEW]
SETUP = run_path(str(ROOT / "nbs" / "site" / "_setup.py"))


@pytest.fixture(scope="session")
def kernels(colab):
    "A process that runs one notebook after another: kernels.py."
    program = [colab, ROOT / "tests" / "kernels.py"]
    with subprocess.Popen(program, env=ENVIRONMENT, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process: yield process


@pytest.mark.parametrize("path", FORKED, ids=lambda p: p.stem)
def test_runs(path, kernels, tmp_path):
    print(json.dumps([str(path), str(tmp_path)]), file=kernels.stdin, flush=True)
    trouble = json.loads(kernels.stdout.readline())
    assert not trouble, trouble


@pytest.mark.parametrize("path", ANEW, ids=lambda p: p.stem)
def test_runs_as_pages_are_made(path, colab, tmp_path):
    "By the command of `make notebooks`, in a kernel that starts anew."
    program = [colab, ROOT / "nbs" / "site" / "_run.py", "--out", tmp_path, path]
    done = subprocess.run(program, cwd=tmp_path, env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_setup_cell_installs_what_is_imported(path):
    code = "\n".join(cell_sources(path, "code"))
    code = code.replace("from cosmoflow.simulate import round_mantissa\n", "")  # no jax
    imported = set(re.findall(r"^(?:from|import) ([\w.]+)", code, re.M))
    needed = {extra for module, extra in EXTRAS.items() if module in imported}
    installed = re.search(r'"cosmoflow(?:\[([\w,]+)\])? @ git\+https', code)
    assert installed, "no set-up cell"
    extras = set((installed[1] or "").split(","))
    assert needed <= extras, f"imports need the extras {needed}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_setup_cell_is_the_one_of_all_pages(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (cell,) = filter(SETUP["is_setup"], cells)
    expected = SETUP["setup_cell"](SETUP["extras_of"](cell))
    assert "".join(cell["source"]) == expected, "run python nbs/site/_setup.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_kept_in_order(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    for cell in cells:
        outputs, source = cell["outputs"], "".join(cell["source"])
        assert not any(o["output_type"] == "error" for o in outputs), source
        if any("image/png" in o.get("data", {}) for o in outputs):
            says = any(line.startswith("#| fig-alt:") for line in cell["source"])
            assert says, f"say in `#| fig-alt:` what the figure shows:\n{source}"
    assert any(cell["outputs"] for cell in cells), "run `make notebooks` and commit it"


RUNNER = run_path(str(ROOT / "nbs" / "site" / "_run.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_small_and_for_readers(path):
    "Neither what is left of a progress bar, nor the name of a widget's class."
    assert path.stat().st_size < 1_500_000
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = "".join([*output.get("text", ()), *data.get("text/plain", ())])
            assert not re.search(r"\d%\|", text), "a progress bar"
            if RUNNER["WIDGET"] in data: assert text == RUNNER["STILL"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_needs_no_file_beside_it(path):
    "On a restarted Colab runtime there is the package alone: no clone, no tree."
    code = "\n".join(cell for cell in cell_sources(path, "code")
                     if not cell.startswith("#| export"))
    assert not re.search(r"git clone|^\s*%cd|[\"']records/", code, re.M)
    outside = set(re.findall(r"[\"'](?:\.\./)+(\w+)", code))
    assert outside <= {"build", "cosmoflow"}, "only what full runs leave"

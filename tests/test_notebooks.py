"""Every notebook runs top to bottom, each in a process of its own, and keeps outputs from such a run."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RUN = "import sys; from pathlib import Path; from nbdev.test import test_nb; ok, _ = test_nb(Path(sys.argv[1])); sys.exit(not ok)"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path):
    done = subprocess.run([sys.executable, "-c", RUN, path], cwd=path.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_kept_in_order(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    for cell in cells:
        assert not any(o["output_type"] == "error" for o in cell["outputs"]), "".join(cell["source"])
        if any("image/png" in o.get("data", {}) for o in cell["outputs"]):
            assert any(line.startswith("#| fig-alt:") for line in cell["source"]), "say in `#| fig-alt:` what the figure shows:\n" + "".join(cell["source"])
    assert any(c["outputs"] for c in cells), "run `make notebooks` and commit the outputs"

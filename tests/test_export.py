"""The package is what the notebooks export, and dependencies point one way."""
import ast
import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, ROOT, sources

import cosmoflow
from cosmoflow import data, model

ORDER = ("core", "data", "layers", "spectra", "plot", "simulate", "encoder", "unet", "flow", "model", "train",
         "inference", "evaluate", "vae", "distill", "scales", "results", "demo", "bench", "lessons", "cli")


def test_export_in_sync(tmp_path):
    for name in ("nbs", "cosmoflow"): shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("suite", "weights", "__pycache__"))
    for name in ("pyproject.toml", "settings.ini", "setup.py"): shutil.copy(ROOT / name, tmp_path)
    for path in (tmp_path / "cosmoflow").glob("*.py"):
        if path.name not in ("__init__.py", "__main__.py"): path.unlink()
    subprocess.run([Path(sys.executable).with_name("nbdev-export")], cwd=tmp_path, check=True, capture_output=True)
    names = sorted(p.name for p in (ROOT / "cosmoflow").glob("*.py"))
    assert names == sorted(p.name for p in (tmp_path / "cosmoflow").glob("*.py"))
    _, differ, errors = filecmp.cmpfiles(ROOT / "cosmoflow", tmp_path / "cosmoflow", names, shallow=False)
    assert not differ and not errors, f"run nbdev-export and commit: {differ + errors}"


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module):
    tree = ast.parse((ROOT / "cosmoflow" / f"{module}.py").read_text(encoding="utf-8"))
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    used = {n.module.removeprefix("cosmoflow.") for n in froms if n.level or n.module.startswith("cosmoflow.")}  # nbdev writes some relative
    assert used or module in ("core", "layers", "flow"), "found no import: does this test still see them?"
    assert used <= set(ORDER[: ORDER.index(module)]), f"{module} imports {used}"


def test_every_module_has_its_place(): assert sorted(ORDER) == sorted(p.stem for p in (ROOT / "cosmoflow").glob("[a-z]*.py"))


def test_what_is_used_most_stands_at_the_top():
    assert (cosmoflow.CosmoFlow, cosmoflow.open_maps, cosmoflow.split_simulations) == (model.CosmoFlow, data.open_maps, data.split_simulations)
    assert {"CosmoFlow", "open_maps", "split_simulations"} <= {*dir(cosmoflow)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"): _ = cosmoflow.nothing


def test_a_checkout_that_nobody_installed_can_be_imported(tmp_path):
    "Nor is there a repository, as in a ZIP of the tree; -S hides all that is installed."
    for name in ("cosmoflow/__init__.py", "cosmoflow/cli.py", "settings.ini"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run([sys.executable, "-S", "-c", "import cosmoflow; print(cosmoflow.__version__)"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{cosmoflow.__version__}\n", done.stderr


@pytest.mark.skipif(not REPOSITORY, reason="needs a repository, to compare with")
def test_the_tree_without_git_holds_the_same_files(): assert sources(git=False) == sources(git=True)


def test_import_is_light():
    heavy = "{'jax', 'optuna', 'umap', 'ipywidgets', 'accelerate', 'matplotlib'}"
    code = f"import sys, cosmoflow.cli, cosmoflow; cosmoflow.CosmoFlow; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
    code = "import sys, cosmoflow.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_missing_extra_names_it(monkeypatch):
    from cosmoflow.simulate import particle_mesh
    monkeypatch.setitem(sys.modules, "pmpp", None)
    with pytest.raises(ImportError, match=r'pip install "cosmoflow\[sim\]"'): particle_mesh()

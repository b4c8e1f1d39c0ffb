"""The package is what the notebooks export, and dependencies point one way."""
import ast
import dataclasses
import filecmp
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, ROOT, sources

import cosmoflow
from cosmoflow import data, model
from cosmoflow.export import _write_all

ORDER = (
    "core", "fetch", "data", "releases", "layers", "spectra", "plot", "simulate",
    "encoder", "unet", "flow", "model", "train", "inference", "evaluate", "vae",
    "distill", "scales", "anomaly", "posterior", "codec", "compress", "points",
    "export", "live", "results", "demo", "bench", "lessons", "cli")


def printed(code, *options, **where):
    "What another interpreter prints that runs this code."
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True,
                          text=True, **where)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_export_in_sync(tmp_path):
    left_out = shutil.ignore_patterns("suite", "weights", "__pycache__")
    for name in ("nbs", "cosmoflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for name in ("pyproject.toml", "settings.ini", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    for path in (tmp_path / "cosmoflow").glob("*.py"):
        if path.name not in ("__init__.py", "__main__.py"): path.unlink()
    export = Path(sys.executable).with_name("nbdev-export")
    subprocess.run([export], cwd=tmp_path, check=True, capture_output=True)
    names = sorted(p.name for p in (ROOT / "cosmoflow").glob("*.py"))
    assert names == sorted(p.name for p in (tmp_path / "cosmoflow").glob("*.py"))
    _, differ, errors = filecmp.cmpfiles(
        ROOT / "cosmoflow", tmp_path / "cosmoflow", names, shallow=False)
    assert not differ and not errors, f"run nbdev-export and commit: {differ + errors}"


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module):
    tree = ast.parse((ROOT / "cosmoflow" / f"{module}.py").read_text(encoding="utf-8"))
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    ours = [n.module for n in froms  # nbdev writes some of them relative
            if n.level or n.module.startswith("cosmoflow.")]
    used = {name.removeprefix("cosmoflow.") for name in ours}
    assert used or module in ("core", "layers", "flow"), "does this test see imports?"
    private = [name.name for n in froms for name in n.names
               if name.name[0] == "_" and (n.level or n.module[:9] == "cosmoflow")]
    assert not private, f"{module} imports {private}"
    assert used <= set(ORDER[: ORDER.index(module)]), f"{module} imports {used}"


def test_every_module_has_its_place():
    modules = (ROOT / "cosmoflow").glob("[a-z]*.py")
    assert sorted(ORDER) == sorted(path.stem for path in modules)


def test_what_is_used_most_stands_at_the_top():
    assert cosmoflow.CosmoFlow == model.CosmoFlow
    assert cosmoflow.open_maps == data.open_maps
    assert cosmoflow.split_simulations == data.split_simulations
    assert {"CosmoFlow", "open_maps", "split_simulations"} <= {*dir(cosmoflow)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cosmoflow.nothing


def test_a_checkout_that_nobody_installed_can_be_imported(tmp_path):
    "Nor is there a repository, as in a ZIP of the tree; -S hides what is installed."
    for name in ("cosmoflow/__init__.py", "cosmoflow/cli.py", "settings.ini"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    code = "import cosmoflow; print(cosmoflow.__version__)"
    assert printed(code, "-S", cwd=tmp_path) == cosmoflow.__version__


@pytest.mark.skipif(not REPOSITORY, reason="needs a repository, to compare with")
def test_the_tree_without_git_holds_the_same_files():
    assert sources(git=False) == sources(git=True)


def test_import_is_light():
    heavy = "{'jax', 'optuna', 'umap', 'ipywidgets', 'accelerate', 'matplotlib'}"
    used = "import sys, cosmoflow.cli, cosmoflow; cosmoflow.CosmoFlow"
    assert printed(f"{used}; print({heavy} & set(sys.modules))") == "set()"
    named = "import sys, cosmoflow.cli"
    assert printed(f"{named}; print('torch' in sys.modules)") == "False"


def test_missing_extra_names_it(monkeypatch):
    from cosmoflow.simulate import particle_mesh
    monkeypatch.setitem(sys.modules, "pmpp", None)
    with pytest.raises(ImportError, match=r'pip install "cosmoflow\[sim\]"'):
        particle_mesh()


def test_results_that_hold_arrays_are_compared_by_what_they_are():
    "An == that goes field by field ends in an error where a field is an array."
    found = 0
    for module in pkgutil.iter_modules(cosmoflow.__path__):
        if module.name == "__main__": continue
        names = vars(importlib.import_module(f"cosmoflow.{module.name}"))
        for kind in filter(dataclasses.is_dataclass, names.values()):
            if not isinstance(kind, type): continue
            types = " ".join(str(f.type) for f in dataclasses.fields(kind))
            if not re.search("Tensor|ndarray|MapView", types): continue
            found += 1
            assert kind.__eq__ is object.__eq__, kind
    assert found > 8


def test_an_export_leaves_nothing_of_an_earlier_model(tmp_path):
    "A program that asks for `decoder.onnx` by its name would draw the other's maps."
    onnx = pytest.importorskip("onnx")
    write = lambda graphs, maps: _write_all(
        tmp_path, dict.fromkeys(graphs, onnx.ModelProto()), about, maps)
    about = {"maps": [{}], "H": 16, "W": 16}
    write(("encoder", "decoder", "velocity"), b"maps")
    (tmp_path / "notes.txt").touch()
    write(("encoder", "velocity"), b"")
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["encoder.onnx", "model.json", "notes.txt", "velocity.onnx"]

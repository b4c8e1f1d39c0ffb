"""Style and types: Python by ruff, the package by mypy, JavaScript by TypeScript."""
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
from conftest import ROOT


@pytest.mark.parametrize("command", [("ruff", "check"), ("mypy",)], ids=lambda c: c[0])
def test_finds_nothing(command):
    program, *args = command
    program = Path(sys.executable).with_name(program)
    done = subprocess.run([program, *args], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_finds_nothing_in_the_live_figures():
    "TypeScript reads types in comments, as cosmoflow/web/jsconfig.json asks."
    npx = shutil.which("npx")
    if not npx: pytest.skip("found no program `npx`")
    known = subprocess.run(
        [npx, "--yes", "--package", "typescript@5.9.3", "tsc", "--version"],
        capture_output=True, timeout=300)
    if known.returncode: pytest.skip("npm could not fetch TypeScript")
    done = subprocess.run(
        [npx, "--package", "typescript@5.9.3", "tsc", "--project",
         "cosmoflow/web/jsconfig.json"],
        cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_mutant_replaces_a_text_that_stands_once():
    "Else the run of mutants, which takes long and is seldom made, would stop there."
    mutants = run_path(str(ROOT / "tests" / "mutate.py"))["MUTANTS"]
    texts = {name: (ROOT / "cosmoflow" / f"{name}.py").read_text(encoding="utf-8")
             for name in {module for module, *_ in mutants}}
    assert not [(name, old) for name, old, *_ in mutants if texts[name].count(old) != 1]

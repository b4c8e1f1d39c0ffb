"""Style and types: Python by ruff, the package by mypy, JavaScript by TypeScript."""
import shutil
import subprocess
import sys
from pathlib import Path

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

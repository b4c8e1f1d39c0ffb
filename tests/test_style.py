"""Style and types, as pyproject.toml asks: all code by ruff, the package by mypy."""
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

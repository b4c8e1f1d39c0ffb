"""The programs beside the notebooks run from their command line."""
import subprocess
import sys
from pathlib import Path

from cosmoflow.core import read_json

EXPERIMENTS = Path(__file__).resolve().parents[1] / "nbs" / "experiments"


def test_transfer_goes_over_all_kinds_and_goes_on(tmp_path):
    "Few universes stop no other run, and what is there is not run again."
    command = [sys.executable, EXPERIMENTS / "_transfer.py", "--out", tmp_path,
               "--first", "PM", "LH", "-", "--second", "PM", "LH", "-", "--seen", "60",
               "--kinds", "flow", "cnn", "--starts", "mini", "--sizes", "5",
               "--seeds", "0", "--large", ""]
    run = lambda: subprocess.run(command, check=True, capture_output=True, text=True,
                                 encoding="utf-8").stdout
    said = run()
    assert "flow_mini_005_0: not run" in said
    (path,) = tmp_path.glob("*.json")
    found = read_json(path)
    assert found["simulations"] == [20, 21, 22, 23, 24]
    assert len(found["new"]["by_simulation"][0]) == 20
    assert "cnn_labels_005_0: new" in said and "cnn_labels" not in run()

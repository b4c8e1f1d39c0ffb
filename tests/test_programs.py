"""The programs beside the notebooks run from their command line."""
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from cosmoflow.core import read_json
from cosmoflow.data import open_maps

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


def test_timetables_measures_a_training_once(tmp_path, monkeypatch):
    "One short training gives every number of the record, and is not run again."
    spec = spec_from_file_location("timetables", EXPERIMENTS / "_timetables.py")
    study = module_from_spec(spec)
    spec.loader.exec_module(study)
    data = open_maps("PM", "LH", sims=slice(0, 20), pixels=32)
    short = dict(EPOCHS=1, WIDTH=8, WAYS={"bands": study.WAYS["bands"]},
                 open_maps=lambda *_: data, records_folder=lambda: tmp_path)
    for name, value in short.items(): monkeypatch.setattr(study, name, value)
    study.main(tmp_path, [0])
    found = read_json(tmp_path / "bands_0" / "measured.json")
    kept = read_json(tmp_path / "timetables" / "timetables.json")["results"]
    assert {row["quantity"]: row["value"] for row in kept} == found
    assert 0 <= found["score, coarse first"] <= 1 and found["validation loss"] > 0
    monkeypatch.setattr(study, "train", None)
    assert study.run("bands", 0, tmp_path, data) == found

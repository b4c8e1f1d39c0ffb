"""The wheel, as a stranger gets it: into an empty environment, away from the checkout."""
import hashlib
import json
import re
import subprocess
import sys
import zipfile

from conftest import ROOT


def test_sizes(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.compress_size for i in archive.infolist()}
    assert sum(s for name, s in sizes.items() if "/suite/" in name) < 16e6
    assert sum(s for name, s in sizes.items() if "/weights/mini/" in name) < 8e6
    assert sum(s for name, s in sizes.items() if "/weights/base/" in name) < 30e6
    assert sum(s for name, s in sizes.items() if "/weights/" in name) < 45e6
    for name in ("camels/CosmoAstroSeed_Astrid_L25n256_LH.txt", "weights/mini/config.json", "style.mplstyle", "solutions.json", "py.typed", "records/11_paper.npz"): assert f"cosmoflow/{name}" in sizes


def test_guide_names_the_size(wheel):
    (said,) = re.findall(r"(\d+) MB with its maps and weights", (ROOT / "nbs/workshop/guide.md").read_text(encoding="utf-8"))
    assert abs(wheel.stat().st_size / 1e6 - int(said)) < 1


def test_wheel_and_sdist_are_fit_for_release(wheel):
    made = sorted(p for p in wheel.parent.iterdir() if p.suffix in (".whl", ".gz"))
    assert [p.suffix for p in made] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *made], check=True)


def test_demo_from_an_empty_environment(stranger, tmp_path):
    (tmp_path / "away").mkdir()
    done = subprocess.run([stranger / "cosmoflow", "demo", "--out", "demo", "--epochs", "1", "--sims", "0:10"], cwd=tmp_path / "away", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.name for p in (tmp_path / "away" / "demo").iterdir()} == {"demo.png", "index.html", "metrics.json", "model"}
    metrics = json.loads((tmp_path / "away" / "demo" / "metrics.json").read_text(encoding="utf-8"))
    for name in ("shipped", "trained here"): assert len(metrics[name]["reconstruction"]["ratio"]) == 32
    assert metrics["shipped"]["reconstruction"]["r"][0] > 0.9
    where = subprocess.run([stranger / "python", "-c", "import cosmoflow; print(cosmoflow.__file__)"], cwd=tmp_path / "away", capture_output=True, text=True, check=True).stdout
    assert str(stranger.parent) in where


def test_records_travel_with_the_package(stranger, tmp_path):
    "Installed, and in an empty folder: all of them, as the checkout has them."
    code = """
import hashlib, sys
from cosmoflow.results import read_record, read_records, records_folder
assert len(read_records(records_folder() / "benchmarks")) > 1
assert read_record("03_channels") in read_records()
for path in sorted(p for p in records_folder().rglob("*") if p.is_file()):
    print(path.relative_to(records_folder()).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
"""
    done = subprocess.run([stranger / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = ROOT / "cosmoflow/records"
    mine = [f"{p.relative_to(kept).as_posix()} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in sorted(kept.rglob("*")) if p.is_file()]
    assert done.stdout.splitlines() == mine

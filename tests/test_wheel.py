"""The wheel, as a stranger gets it: in an empty environment, away from the checkout."""
import hashlib
import json
import re
import subprocess
import sys
import zipfile

from conftest import ROOT


def test_sizes(wheel):
    "Below 80 MB, and the parts as the table in CONTRIBUTING says."
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.compress_size for i in archive.infolist()}
    assert sum(sizes.values()) < 80e6
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.findall(r"^  \| `([\w/-]+)` \| ([\d.]+) \|$", told, re.M)
    assert len(table) == 7
    for part, size in table:
        within = [s for name, s in sizes.items() if f"cosmoflow/{part}/" in name]
        assert abs(sum(within) / 1e6 - float(size)) < 0.2, part
    for name in ("camels/CosmoAstroSeed_Astrid_L25n256_LH.txt",
                 "weights/mini/config.json", "style.mplstyle", "solutions.json",
                 "released.json",
                 "py.typed", "records/11_paper.npz", "web/notebook.js", "web/live.css"):
        assert f"cosmoflow/{name}" in sizes


def test_guide_names_the_size(wheel):
    guide = (ROOT / "nbs/workshop/guide.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"(\d+) MB with its maps and weights", guide)
    assert abs(wheel.stat().st_size / 1e6 - int(said)) < 1


def test_wheel_and_sdist_are_fit_for_release(wheel):
    made = sorted(p for p in wheel.parent.iterdir() if p.suffix in (".whl", ".gz"))
    assert [p.suffix for p in made] == [".whl", ".gz"]
    check = [sys.executable, "-m", "twine", "check", "--strict", *made]
    subprocess.run(check, check=True)


def test_demo_from_an_empty_environment(stranger, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    call = dict(cwd=away, capture_output=True, text=True)
    short = ["--out", "demo", "--epochs", "1", "--sims", "0:10"]
    done = subprocess.run([stranger / "cosmoflow", "demo", *short], **call)
    assert done.returncode == 0, done.stderr[-3000:]
    made = {path.name for path in (away / "demo").iterdir()}
    assert made == {"demo.png", "index.html", "metrics.json", "model"}
    metrics = (away / "demo" / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(metrics)
    for name in ("shipped", "trained here"):
        assert len(metrics[name]["reconstruction"]["ratio"]) == 32
    assert metrics["shipped"]["reconstruction"]["r"][0] > 0.9
    code = "import cosmoflow; print(cosmoflow.__file__)"
    where = subprocess.run([stranger / "python", "-c", code], check=True, **call)
    assert str(stranger.parent) in where.stdout


LIST_RECORDS = """
import hashlib
from cosmoflow.results import read_record, read_records, records_folder
assert len(read_records(records_folder() / "benchmarks")) > 1
assert read_record("03_channels") in read_records()
for path in sorted(p for p in records_folder().rglob("*") if p.is_file()):
    name = path.relative_to(records_folder()).as_posix()
    print(name, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_records_travel_with_the_package(stranger, tmp_path):
    "Installed, and in an empty folder: all of them, as the checkout has them."
    done = subprocess.run([stranger / "python", "-c", LIST_RECORDS], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = ROOT / "cosmoflow/records"
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    mine = [f"{path.relative_to(kept).as_posix()} {digest(path)}"
            for path in sorted(kept.rglob("*")) if path.is_file()]
    assert done.stdout.splitlines() == mine

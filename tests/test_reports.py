"""What lab reports say in prose is what a run left, and a full run can begin."""
import json
import re
import shlex
import subprocess
from collections import Counter
from functools import cache
from runpy import run_path

import pytest
import torch
from conftest import ROOT, cell_sources

from cosmoflow import cli
from cosmoflow.core import read_json, write_json
from cosmoflow.data import open_maps
from cosmoflow.results import open_experiment, read_records

EXPERIMENTS = ROOT / "nbs" / "experiments"
REPORTS = sorted(EXPERIMENTS.glob("*.ipynb"))
each_report = pytest.mark.parametrize("path", REPORTS, ids=lambda p: p.stem)


def markdown(path): return "\n".join(cell_sources(path, "markdown"))


def printed(path):
    "All text that the cells of a page print, with plain spaces."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    texts = ["".join(o.get("text", "")) for o in outputs]
    texts += ["".join(text) for o in outputs for kind, text in o.get("data", {}).items()
              if kind.startswith("text/")]
    return "\n".join(texts).replace("\xa0", " ")


def rounds_to(number, said):
    "Whether a number, or it in percent, is said to the digits that are there."
    decimals = len(said.partition(".")[2])
    half = 0.51 * 10**-decimals
    return any(abs(factor * number - float(said)) <= half for factor in (1, 100))


@cache
def recorded():
    "Values and errors of all records."
    rows = [row for record in read_records() for row in record["results"]]
    return [(row["value"], row["error"]) for row in rows if row["error"] is not None]


@each_report
def test_numbers_with_errors_stand_in_a_record_or_on_the_page(path):
    "Or on the card of a model, whose commands repeat them."
    cards = [*ROOT.glob("cosmoflow/weights/*/README.md"),
             *ROOT.glob(".github/release/*/README.md")]
    sources = printed(path) + "".join(c.read_text(encoding="utf-8") for c in cards)
    said = re.findall(r"(?<![\d.])(\d+\.\d+) ± (\d+\.\d+)", markdown(path))
    unseen = [pair for pair in said if " ± ".join(pair) not in sources]
    assert not [pair for pair in unseen
                if not any(all(map(rounds_to, row, pair)) for row in recorded())]


INPUTS = {"training", "full", "warm", "foreign", "jaxpm", "shifted", "points",
          "points_seeds", "transfer", "transfer_shifted", "evaluation",
          "evaluation_base", "paper"}  # folders of `build` that other commands fill


def read_folders(path):
    "The folders of `build` that the code of a report reads and does not fill."
    code = "\n".join(cell_sources(path, "code"))
    found = re.findall(r"(?:\.\./build/|(?:BUILD|RUN\.parent) / \")(\w+)", code)
    return INPUTS & set(found)


@each_report
def test_says_what_a_full_run_reads(path):
    "Whoever sets FULL in a fresh clone finds the name of each folder in the text."
    text = markdown(path)
    assert not [name for name in read_folders(path) if f"build/{name}" not in text]


def commands(path):
    "The commands in the blocks of code of a page's text."
    blocks = re.findall(r"^```\n(.*?)^```", markdown(path), re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@each_report
def test_commands_of_the_text_are_there(path):
    "The program takes them; the programs beside the page exist."
    parser = cli._parser()
    for program, *words in filter(None, commands(path)):
        if program == "cosmoflow": parser.parse_args(words)
        elif program == "python" and words[0] != "-c": assert (ROOT / words[0]).exists()
        elif program == "python": compile(words[1], str(path), "exec")


@pytest.mark.parametrize("kept", read_records(), ids=lambda r: r["experiment"])
def test_a_record_says_one_thing_by_one_name(kept):
    "Of two rows with one quantity and method, every reader finds the last alone."
    named = Counter((r["quantity"], r["method"]) for r in kept["results"])
    assert not [name for name, n in named.items() if n > 1]


def test_resnet18_stands_beside_what_was_measured(tmp_path):
    study = run_path(str(EXPERIMENTS / "_resnet18.py"))
    data = open_maps("PM", "LH", sims=slice(0, 10), pixels=32)
    study["main"].__globals__["open_maps"] = lambda *_: data
    own = {"mean": [0.1, 0.1], "standard_error": [0.01, 0.01]}
    write_json(tmp_path / "metrics.json", {"suite": "PM", "set": "LH", "seed": 0,
                                          "inference": {"raw maps": own}})
    study["main"]("-", tmp_path, 1)
    kept = read_json(tmp_path / "metrics.json")
    assert kept["seed"] == 0 and kept["inference"].pop("raw maps") == own
    (found,) = kept["inference"].values()
    assert found.keys() == own.keys() and torch.tensor(found["mean"]).shape == (2,)
    with pytest.raises(FileNotFoundError): study["main"]("-", tmp_path / "none", 1)


def test_a_missing_folder_points_to_the_report(tmp_path):
    with pytest.raises(FileNotFoundError, match="none is no folder: the top of"):
        open_experiment("01_reconstruction", root=tmp_path / "none", model=None)


def test_make_results_names_the_reports_that_did_not_run(tmp_path):
    "One that misses what it reads stops no other, and the table is made."
    for name in ("python", "cosmoflow"):
        (tmp_path / name).write_text("#!/bin/sh\necho $*\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["make", "results", "-o", "env", f"BIN={tmp_path}", "FULL=grep -q build/order"],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    whole = [p for p in REPORTS if "build/order" in p.read_text(encoding="utf-8")]
    assert done.returncode and "nbs/tools/results.ipynb" in done.stdout and whole
    for path in REPORTS: assert (path.name in done.stdout) == (path not in whole)

"""The command line as a shell sees it."""
import functools
import importlib
import inspect
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import warnings
from itertools import product
from types import SimpleNamespace
from zipfile import BadZipFile

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import COSMOFLOW, full_disk
from fastcore.docments import docments
from safetensors import SafetensorError

from cosmoflow import CosmoFlow, __version__, cli
from cosmoflow.data import Normalizer, open_maps

COMMANDS = ("simulate", "download", "fetch", "train", "evaluate", "distill",
            "encode", "decode", "infer", "compress", "decompress", "export", "bench",
            "demo")
WRONG = {  # what each command refuses, and how
    "simulate": ("--set XY --out o", "set='XY'"),
    "download": ("--suite PM --set LH --out o", "not on CMD's server"),
    "fetch": ("maxi", "'maxi': no release has a model of this name"),
    "train": ("--data nowhere --out o", "nowhere"),
    "evaluate": ("--data nowhere", "nowhere"),
    "distill": ("--data nowhere --out o", "nowhere"),
    "encode": ("none.npy x.npy", "none.npy: no such file"),
    "decode": ("none.npy x.npy", "none.npy: no such file"),
    "infer": ("none.npy", "none.npy: no such file"),
    "compress": ("none.npy x.cflow", "none.npy: no such file"),
    "decompress": ("none.cflow x.npy", "none.cflow: no such file"),
    "export": ("--data nowhere --out o", "nowhere"),
    "bench": ("--pixels 96 --out o", "multiples of 64"),
    "demo": ("--sims 999: --out o", "selects none"),
}


def run(*args, **kwargs):
    return subprocess.run([COSMOFLOW, *map(str, args)], capture_output=True,
                          text=True, timeout=300, **kwargs)


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    "Runs a line in an empty folder, in this process: status, output and errors."
    monkeypatch.chdir(tmp_path)

    def call(line):
        status = 0
        try: cli.main(shlex.split(line))
        except SystemExit as e: status = e.code
        return status, *capsys.readouterr()
    return call


def test_commands_are_these(): assert tuple(cli.COMMANDS) == COMMANDS == tuple(WRONG)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_needs_no_torch(command):
    code = (f"import sys, cosmoflow.cli as c\ntry: c.main(['{command}', '--help'])\n"
            "finally: print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"example: cosmoflow {command}" in done.stdout, done.stderr
    assert done.stdout.endswith("False\n"), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command):
    parser = cli._command_parser(cli.COMMANDS[command], command)
    for action in parser._actions:
        if action.dest not in ("pdb", "xtra"):
            explanation, *_ = action.help.split(" (default")
            assert len(explanation.split()) > 1, action.dest
        assert "None" not in action.help, action.help
        assert "likewise" not in action.help, action.help


@pytest.mark.parametrize("command", COMMANDS)
def test_its_example_parses(command):
    _, example, *_ = cli._paragraphs(cli.COMMANDS[command])
    line = shlex.split(example.removeprefix("example: cosmoflow "))
    assert cli._parser().parse_args(line).command == command


@pytest.mark.parametrize("path", [
    "simulate.simulate", "data.open_maps", "data.download", "releases.fetch_weights",
    "train.TrainConfig", "train.train",
    "model.find_model", "model.CosmoFlow.__init__", "model.CosmoFlow.decode",
    "evaluate.evaluate", "distill.distill", "export.export", "compress.compress",
    "codec.choose_steps", "posterior.infer", "bench.bench", "demo.demo",
])
def test_what_is_read_is_what_is_there(path):
    module, *names = path.split(".")
    module_there = importlib.import_module(f"cosmoflow.{module}")
    real = functools.reduce(getattr, names, module_there)
    there = docments(real, full=True, returns=False)
    there = {name: p for name, p in there.items()
             if p.kind is not inspect.Parameter.VAR_KEYWORD}
    read = {name: (default, comment)
            for name, _, default, comment in cli._parameters(path)}
    assert list(read) == [name for name in there if name != "self"]
    for name, (default, comment) in read.items():
        assert comment == (there[name].docment or "").strip()
        if default is None: assert there[name].default is inspect.Parameter.empty
        elif name != "config": assert cli._value(module, default) == there[name].default


def test_training_options_are_the_fields_with_the_defaults_of_each_preset(shell):
    from cosmoflow.train import TRAIN_PRESETS, TrainConfig
    out = " ".join(shell("train --help")[1].split())
    for name, words in docments(TrainConfig, returns=False).items():
        assert f"--{name.replace('_', '-')} " in out and words in out
    epochs = {preset: TRAIN_PRESETS[preset]["epochs"] for preset in ("tiny", "mini")}
    assert "tiny {tiny}, mini {mini}".format(**epochs) in out


def test_what_a_preset_switches_on_can_be_switched_off(shell, monkeypatch):
    from cosmoflow.train import TRAIN_PRESETS
    on = [(preset, name) for preset, settings in TRAIN_PRESETS.items()
          for name, value in settings.items() if value is True]
    seen = []

    def stop(config, data):
        seen.append(config)
        raise ValueError("that is all")

    monkeypatch.setattr("cosmoflow.train.check_training", stop)
    for preset, name in on:
        for flag in (name, f"no-{name}"):
            shell(f"train --preset {preset} --{flag.replace('_', '-')} --out run")
    switched = [getattr(config, name) for config, (_, name) in
                zip(seen, [one for one in on for _ in "ab"])]
    assert on and switched == [True, False] * len(on)


def test_encode_and_decode(tmp_path, shell):
    maps, field, again, eight = (
        tmp_path / f"{name}.npy" for name in ("maps", "field", "again", "eight"))
    np.save(maps, open_maps("PM", "CV").maps[:3])
    assert run("encode", maps, field).returncode == 0
    assert shell("decode field.npy again.npy --steps 4 --seed 1")[0] == 0
    assert shell("encode maps.npy eight.npy --summary")[0] == 0
    assert np.load(field).shape == (3, 8, 4, 4)
    assert np.load(again).shape == (3, 64, 64)
    mean = np.load(field).mean((2, 3))
    np.testing.assert_allclose(np.load(eight), mean, rtol=1e-4, atol=1e-5)


def test_maps_that_cannot_be_right_are_refused_unless_told_otherwise(tmp_path, shell):
    np.save(tmp_path / "log.npy", np.log10(open_maps("PM", "CV").maps[:2]))
    status, _, errors = shell("encode log.npy field.npy")
    assert status == 2 and errors.count("\n") == 1
    assert "are they log10 maps?" in errors and "--no-check" in errors
    assert not (tmp_path / "field.npy").exists()
    assert shell("encode log.npy field.npy --no-check")[0] == 0
    assert (tmp_path / "field.npy").exists()


@pytest.mark.parametrize("value", (np.nan, np.inf))
@pytest.mark.parametrize("line", ("encode bad.npy x.npy", "compress bad.npy x.cflow",
                                  "encode bad.npy x.npy --summary", "infer bad.npy"))
def test_maps_that_have_no_field_are_refused_whatever_is_told(
        tmp_path, shell, line, value):
    maps = np.array(open_maps("PM", "CV").maps[:2])
    maps[1, 3, 4] = value
    np.save(tmp_path / "bad.npy", maps)
    status, _, errors = shell(f"{line} --no-check")
    assert status == 2 and errors.count("\n") == 1
    assert os.listdir(tmp_path) == ["bad.npy"]


@pytest.fixture
def two_sets(tmp_path):
    "A folder of maps in other units, without a set LH in `cv`; and maps in a file."
    data = open_maps("PM", "CV")
    params = "\n".join(f"{0.1 + 0.03 * i:.2f} {1 - 0.03 * i:.2f}" for i in range(10))
    for folder, name in (("odd", "LH"), ("cv", "CV")):
        (tmp_path / folder).mkdir()
        maps = 1e10 * np.asarray(data.maps)
        np.save(tmp_path / folder / f"Maps_Mcdm_PM_{name}_z=0.00.npy", maps)
        table = tmp_path / folder / f"params_{name}_PM.txt"
        table.write_text(params, encoding="utf-8")
    np.save(tmp_path / "odd.npy", maps[:1])


ADVISED = {  # what is refused, and what the refusal advises
    "encode odd.npy x.npy": "--no-check",
    "infer odd.npy": "--no-check",
    "compress odd.npy x.cflow": "--no-check",
    "evaluate --data odd": "",
    "export --data odd --out x": "",
    "evaluate --data cv": "--suite --set --field --data",
    "train --data cv --out x": "--suite --set --field --data",
    "distill --data cv --out x": "--suite --set --field --data",
    "export --data cv --out x": "--suite --set --field --data",
    "evaluate --data odd --maps-per-simulation 7": "--maps-per-simulation",
    "train --data odd --out x --maps-per-simulation 7": "--maps-per-simulation",
    "distill --data odd --out x --maps-per-simulation 7": "--maps-per-simulation",
    "export --data odd --out x --maps-per-simulation 7": "--maps-per-simulation",
}


@pytest.mark.parametrize("line", ADVISED)
def test_a_refusal_advises_only_what_the_command_has(two_sets, shell, line):
    status, _, errors = shell(line)
    advised = re.findall(r"--[a-z][a-z-]*", errors)
    assert status == 2 and advised == ADVISED[line].split()
    assert errors.count("(") == errors.count(")") and errors.rstrip()[-1] not in " ("
    command = line.split()[0]
    parser = cli._command_parser(cli.COMMANDS[command], command)
    assert {*advised} <= {*parser._option_string_actions}


@pytest.mark.parametrize("command", ["train", "distill"])
def test_a_training_that_failed_can_be_given_a_lower_lr(shell, monkeypatch, command):
    "As its `FloatingPointError` advises."
    given = []
    def note(model, data, out, lr=None, config=None, pretrained=False):
        given.append(config.lr if config else lr)
    monkeypatch.setattr(importlib.import_module(f"cosmoflow.{command}"), command, note)
    status, _, errors = shell(f"{command} --sims 0:10 --out x --lr 1e-5")
    assert (status, given) == (0, [1e-5]), errors


def test_another_set_can_be_exported(shell, monkeypatch):
    "Its maps and parameters teach the regressors; --maps shows the usual sets."
    taken = {}
    def note(model, data, out, name, sets, maps):
        taken.update(data=data.set, sets=[one.set for one in sets], maps=maps)
        return {"files": {}}
    module = importlib.import_module("cosmoflow.export")
    monkeypatch.setattr(module, "export", note)
    assert shell("export --out x --set 1P --sims 0:3 --maps 2")[0] == 0
    assert taken == {"data": "1P", "sets": [*module.SHOWN_SETS], "maps": 2}


def test_home_is_expanded_in_every_path(tmp_path, shell, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:1])
    CosmoFlow.from_pretrained("mini").save_pretrained(tmp_path / "own")
    assert shell("encode '~/maps.npy' '~/field.npy' --model=~/own")[0] == 0
    assert (tmp_path / "field.npy").exists() and not (tmp_path / "~").exists()


def test_help_needs_no_docstrings():
    "They are gone under `python -OO`."
    module = ["-m", "cosmoflow", "encode", "--help"]
    plain, bare = (subprocess.run([sys.executable, *options, *module], text=True,
                                  capture_output=True) for options in ([], ["-OO"]))
    assert bare.returncode == 0 and bare.stdout == plain.stdout


def test_version_and_module():
    assert run("--version").stdout == f"cosmoflow {__version__}\n"
    module = [sys.executable, "-m", "cosmoflow", "--version"]
    done = subprocess.run(module, capture_output=True, text=True)
    assert done.stdout == f"cosmoflow {__version__}\n"


def test_bad_input_is_one_line_for_a_shell(tmp_path):
    done = run("encode", "none.npy", "x.npy", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "cosmoflow: error: none.npy: no such file; "
        "expected maps of surface density, (n, H, W)"]


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_input_is_one_line_and_debug_shows_where(shell, command):
    line, message = WRONG[command]
    status, _, errors = shell(f"{command} {line}")
    assert status == 2 and message in errors
    assert errors.startswith("cosmoflow: error: ") and errors.count("\n") == 1
    status, _, errors = shell(f"{command} {line} --debug")
    assert status == 2 and "Traceback" in errors and message in errors.splitlines()[-1]


@pytest.mark.parametrize("args, message", [
    ("encode text.npy x.npy", "text.npy: expected a .npy file"),
    ("encode zip.npy x.npy", "zip.npy: expected a .npy file"),
    ("encode flat.npy x.npy", "flat.npy: expected maps"),
    ("decode flat.npy x.npy", "flat.npy: expected compressed fields"),
    ("encode maps.npy x.txt", "x.txt: expected an output name that ends in .npy"),
    ("decode maps.npy x.npy/", "x.npy: expected a file, but it is a folder"),
    ("compress maps.npy x.npy", "x.npy: expected an output name that ends in .cflow"),
    ("decompress maps.npy x.npy", "maps.npy: expected a .cflow file"),
    ("encode maps.npy x.npy --model maxi", "'maxi': no such folder here"),
    ("evaluate --suite Astrid", "root is needed for Astrid"),
    ("train --out run --schedule linear", "schedule='linear'"),
    ("train --out run --timetable sleeping", "timetable='sleeping'"),
    ("train --out run --precision half", "precision='half'"),
    ("distill --out o --steps 0", "steps=0"),
    ("simulate --set LH --sims a:b --out o", "expected a range such as 0:400"),
    ("encode maps.npy x.npy --model ''", "--model: expected a value, found an empty"),
    ("train --out ''", "argument --out: expected a value, found an empty one"),
    ("train --out run --lr inf", "argument --lr: inf: expected a finite number"),
    ("decompress maps.npy x.npy --steps 10000000000000000000000", "fits into 64 bits"),
])
def test_errors_are_one_line(tmp_path, shell, args, message):
    (tmp_path / "text.npy").write_text("hello", encoding="utf-8")
    (tmp_path / "zip.npy").write_bytes(b"PK\3\4 and no more")
    np.save(tmp_path / "flat.npy", np.ones(3))
    if args.endswith("/"): (tmp_path / "x.npy").mkdir()
    np.save(tmp_path / "maps.npy", np.full((1, 16, 16), 1e11, np.float32))
    status, _, errors = shell(args)
    assert status == 2 and message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not [p for p in tmp_path.glob("x.*") if p.is_file()]
    assert not list(tmp_path.glob(".*tmp*"))


def holds(folder):
    "Every file and folder, and what is in it."
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None
            for p in folder.rglob("*")}


TO = {  # each command, with an output to be chosen
    "simulate": "--set CV --sims 0:1 --out {}",
    "download": "--suite Astrid --set CV --out {}",
    "fetch": "mini-128 --cache {}",
    "train": "--preset tiny --sims 0:10 --out {}",
    "evaluate": "--sims 0:10 --out {}",
    "distill": "--sims 0:10 --out {}",
    "encode": "maps.npy {}/x.npy",
    "decode": "field.npy {}/x.npy",
    "infer": "maps.npy --out {}/x.csv",
    "compress": "maps.npy {}/x.cflow",
    "decompress": "field.npy {}/x.npy",
    "export": "--sims 0:10 --out {}",
    "bench": "--out {}",
    "demo": "--out {}",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("where", ("file", "file/below", "/proc/none"))
def test_where_nothing_can_be_written_is_said_before_anything_is_computed(
        tmp_path, shell, monkeypatch, command, where):
    if where.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("needs a folder that nobody can write to")
    def computed(*_, **__): raise AssertionError("computed")
    for what in ("model.CosmoFlow.from_pretrained", "model.CosmoFlow.from_preset",
                 "demo.open_maps", "data.open_maps", "simulate.particle_mesh",
                 "fetch._open", "bench.machine_rates"):
        monkeypatch.setattr(f"cosmoflow.{what}", computed)
    monkeypatch.setattr("numpy.load", computed)
    for name in ("file", "maps.npy", "field.npy"): (tmp_path / name).touch()
    before = holds(tmp_path)
    status, said, errors = shell(f"{command} {TO[command].format(where)}")
    assert status == 2 and not said
    assert errors.startswith(f"cosmoflow: error: {where}") and errors.count("\n") == 1
    assert "choose another" in errors
    assert holds(tmp_path) == before


REFUSED = {  # what is wrong in a command that is right otherwise, and what is said
    "simulate": {
        "--pixels 0": "pixels=0",
        "--particles 0": "particles=0",
        "--steps -1": "steps=-1",
        "--devices 0": "devices=0",
        "--keep-bits 24": "keep_bits=24",
        "--sims 99:": "selects none",
    },
    "download": {
        "--field Mdark": "field='Mdark'",
        "--suite PM": "not on CMD's server",
        "--set XY": "set='XY'",
    },
    "fetch": {
        "--cache file": "file is a file",
    },
    "train": {
        "--pixels 8": "multiple of 16",
        "--pixels 7": "divisor",
        "--channels 0": "channels=0",
        "--epochs 0": "epochs=0",
        "--lr -1": "lr=-1",
        "--clip -1": "clip=-1.0",
        "--ema 2": "ema=2",
        "--weight-decay -1": "weight_decay=-1",
        "--patience -1": "patience=-1",
        "--norm-epochs 1.5": "norm_epochs=1.5",
        "--pooled -1": "pooled=-1",
        "--init none": "no such folder",
        "--init mini-fast": "was distilled",
        "--data file": "no such file",
        "--field Mgas": "PM LH Mcdm",
        "--sims 0:2": "leave no simulation",
        "--batch-size 3 --siblings 1": "even number",
    },
    "evaluate": {
        "--steps 0": "steps=0",
        "--model none --steps 0": "steps=0",
        "--solver rk": "solver='rk'",
        "--model none": "no such folder",
        "--sims 900:": "selects none",
        "--pixels 7": "divisor",
    },
    "distill": {
        "--steps 0": "steps=0",
        "--epochs 0": "epochs=0",
        "--model mini-fast": "was distilled",
        "--pixels 8": "multiple of 16",
        "--data file": "no such file",
    },
    "encode": {
        "--model none": "no such folder",
    },
    "decode": {
        "--model none": "no such folder",
        "--model none --solver rk": "solver='rk'",
        "--steps 0": "steps=0",
        "--solver rk": "solver='rk'",
    },
    "infer": {
        "--model none": "no such folder",
        "--model mini": "has no posterior",
        "--together 0": "together=0",
        "--together 16": "together=16",
        "--together 2": "expected a divisor of the 1 maps",
        "--draws 0": "draws=0",
        "--draws 1000001": "whole number from 1 to 1000000",
        "--out x.txt": "ends in .csv",
        "--corner x.pdf": "ends in .png",
    },
    "compress": {
        "--model none": "no such folder",
        "--step 0": "step=0.0",
        "--tilt 2": "tilt=2.0",
        "--step 1e9": "step=1000000000.0",
        "--box 0": "box=0.0",
    },
    "decompress": {
        "--steps 0": "steps=0",
        "--solver rk": "solver='rk'",
        "--steps 1": "another kind of file",
    },
    "export": {
        "--maps -1": "maps=-1",
        "--model none": "no such folder",
        "--model vae": "do not make a CosmoFlow",
        "--pixels 8": "multiples of 16",
        "--data file": "no such file",
        "--sims 0:2": "leave no simulation",
    },
    "bench": {
        "--rounds 0": "rounds=0",
        "--batch 0": "batch=0",
        "--particles 2": "particles=2",
        "--jobs sleeping": "sleeping",
        "--pixels 96": "multiples of 64",
    },
    "demo": {
        "--epochs 0": "epochs=0",
        "--sims 900:": "selects none",
        "--sims 0:2": "leave no simulation",
    },
}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [(command, wrong) for command in COMMANDS for wrong in REFUSED[command]])
def test_a_command_that_is_refused_leaves_nothing(tmp_path, shell, command, wrong):
    (tmp_path / "file").touch()
    maps = open_maps("PM", "CV").maps[:1]
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "field.npy", np.zeros((1, 8, 1, 1), np.float32))
    before = holds(tmp_path)
    status, _, errors = shell(f"{command} {TO[command].format('out')} {wrong}")
    assert status == 2 and REFUSED[command][wrong] in errors
    assert errors.count("cosmoflow: error") == 1 and "Traceback" not in errors
    assert holds(tmp_path) == before


def parser_of(command): return cli._command_parser(cli.COMMANDS[command], command)


def reads(command):
    "The arguments of a command that have a value, by name, and how each is read."
    return {(*action.option_strings, action.dest)[0]: action.type
            for action in parser_of(command)._actions
            if action.type and action.dest != "xtra"}


def takers(*kinds):
    "Commands with such arguments: the names of these."
    found = {command: [name for name, read in reads(command).items()
                       if isinstance(read("1"), kinds)] for command in COMMANDS}
    return {command: names for command, names in found.items() if names}


TEXTS, RATES, COUNTS = takers(object), takers(float), takers(int)


def refusal(command, argument, text, capsys):
    "What is said to a line that is right, but for one argument."
    line = shlex.split(TO[command].format("out"))
    places = [name for name in TEXTS[command] if name[0] != "-"]
    if argument in places: line[places.index(argument)] = text
    else: line.append(f"{argument}={text}")
    with pytest.raises(SystemExit): parser_of(command).parse_args(line)
    start, said = f"{command}: error: argument {argument}: ", capsys.readouterr().err
    assert said.splitlines()[-1].startswith(start), said
    return said.splitlines()[-1].removeprefix(start)


def test_these_are_the_arguments_of_all_commands():
    names = lambda taken: {name for names in taken.values() for name in names}
    assert names(TEXTS) >= {"maps", "field", "file", "out", "name", "--out", "--model",
                            "--init", "--data", "--cache", "--corner"}
    assert names(RATES) == {"--lr", "--weight-decay", "--clip", "--norm-epochs",
                            "--pooled", "--siblings", "--ema", "--box", "--step",
                            "--tilt", "--means"}
    assert names(COUNTS) >= {"--steps", "--epochs", "--pixels", "--draws", "--seed"}


@pytest.mark.parametrize("command", TEXTS)
def test_an_empty_argument_is_refused_by_its_name(capsys, command):
    "As `--out \"$NOT_SET\"` gives it; a path would mean the current folder."
    for argument in TEXTS[command]:
        said = refusal(command, argument, "", capsys)
        assert said.startswith("expected a value, found an empty one"), argument


@pytest.mark.parametrize("command", RATES)
def test_what_is_no_finite_number_is_refused_by_its_name(capsys, command):
    for argument, text in product(RATES[command], ("inf", "-inf", "nan", "1e999")):
        said = refusal(command, argument, text, capsys)
        assert said == f"{text}: expected a finite number"


@pytest.mark.parametrize("command", COUNTS)
def test_a_number_that_nothing_can_count_to_is_refused_by_its_name(capsys, command):
    for argument, text in product(COUNTS[command], (f"1{30 * '0'}", f"-1{30 * '0'}")):
        said = refusal(command, argument, text, capsys)
        assert said == f"{text}: expected a number that fits into 64 bits"


EARLY = {  # what needs neither maps nor a model to be refused, and how
    "compress maps.npy x.cflow --step 0": "step=0.0",
    "compress maps.npy x.cflow --tilt 2": "tilt=2.0",
    "compress maps.npy x.cflow --means -1": "means=-1.0",
    "compress maps.npy x.cflow --box -1": "box=-1.0",
    "distill --out x --lr -1": "lr=-1.0",
    "export --out x --maps -1": "maps=-1",
    "train --out x --init mini --channels 4": "--channels: expected none beside --init",
    "train --out x --init mini --timetable fading --waves":
        "--waves --timetable: expected none beside --init",
    "train --out log.csv": "log.csv: expected a file, but it is a folder",
    "distill --out model.safetensors": "model.safetensors: expected a file, but it",
    "evaluate --out figure.png": "figure.png: expected a file, but it is a folder",
    "evaluate --out metrics.json": "metrics.json: expected a file, but it is a folder",
    "export --out model.json": "model.json: expected a file, but it is a folder",
    "export --out encoder.onnx": "encoder.onnx: expected a file, but it is a folder",
    "export --out velocity.onnx": "velocity.onnx: expected a file, but it is a folder",
    "demo --out index.html": "index.html: expected a file, but it is a folder",
    "demo --out metrics.json": "metrics.json: expected a file, but it is a folder",
    "demo --out model": "model: expected a folder, but",
    "decode field.npy x.npy --solver dopri5 --steps 3":
        "steps=3: expected none beside the solver dopri5",
    "decompress maps.cflow x.npy --solver dopri5 --steps 3": "steps=3: expected none",
    "evaluate --out x --solver dopri5 --steps 3": "steps=3: expected none beside",
    "infer maps.npy --draws 1": "draws=1: expected 7 or more; a 68 % interval leaves",
    "infer maps.npy --draws 6 --out x.csv": "draws=6: expected 7 or more",
    "infer maps.npy --draws 1000001":
        "draws=1000001: expected a whole number from 1 to 1000000",
    "infer maps.npy --together 16": "together=16: expected a whole number from 1 to 15",
    "train --out x --preset mini --patience 3":
        "--patience: expected none beside the schedule cosine",
    "bench --out x --jobs decoding simulation --compile":
        "compiled=True: expected some of the jobs that use it: training step, velocity",
    "bench --out x --jobs decoding --batch 3": "batch=3: expected some of the jobs",
    "bench --out x --jobs padding --particles 8": "use it: simulation",
}


@pytest.mark.parametrize("line", EARLY)
def test_what_needs_no_maps_to_be_refused_is_refused_before_a_load(
        tmp_path, shell, monkeypatch, line):
    "A folder of this name lies in the folder of this name."
    def loaded(*_, **__): raise AssertionError("loaded")
    for what in ("model.CosmoFlow.from_pretrained", "model.CosmoFlow.from_preset",
                 "data.open_maps"):
        monkeypatch.setattr(f"cosmoflow.{what}", loaded)
    monkeypatch.setattr("numpy.load", loaded)
    monkeypatch.setattr("cosmoflow.demo.open_maps", loaded)
    out = shlex.split(line)[2]
    if EARLY[line].startswith(f"{out}: expected a file"):
        (tmp_path / out / out).mkdir(parents=True)
    if EARLY[line].startswith(f"{out}: expected a folder"):
        (tmp_path / out).mkdir()
        (tmp_path / out / "model").touch()
    before = holds(tmp_path)
    status, _, errors = shell(line)
    assert status == 2 and EARLY[line] in errors and errors.count("\n") == 1
    assert holds(tmp_path) == before


@pytest.mark.parametrize("name", cli._RUN)
def test_a_demo_looks_at_the_files_of_its_training_first(tmp_path, shell, name):
    (tmp_path / "out" / "model" / name).mkdir(parents=True)
    status, said, errors = shell("demo --out out --sims 0:10")
    assert (status, said) == (2, "") and "but it is a folder; choose" in errors


@pytest.mark.parametrize(("options", "whose"), [
    ("--preset mini --ema 0.99 --seed 7", "a demo's"), ("--preset mini", "yours"),
    ("--preset tiny", "yours")])
def test_a_demo_replaces_no_training_but_its_own(
        tmp_path, shell, monkeypatch, options, whose):
    short = "--sims 0:10 --pixels 16 --epochs 1 --out o/model"
    assert shell(f"train {options} {short}")[0] == 0
    def opened(*_, **__): raise AssertionError("opened")
    monkeypatch.setattr("cosmoflow.demo.open_maps", opened)
    before = holds(tmp_path)
    errors = shell("demo --out o")[2]
    mine = "o/model/checkpoint.safetensors: it is of another training, which a demo"
    assert (mine if whose == "yours" else "opened") in errors
    assert holds(tmp_path) == before


def test_a_benchmark_looks_at_its_file_before_it_measures(shell, monkeypatch, tmp_path):
    def measured(*_): raise AssertionError("measured")
    monkeypatch.setattr("cosmoflow.bench.machine_rates", measured)
    monkeypatch.setattr("cosmoflow.bench._machine", lambda _: "My Chip")
    (tmp_path / "out" / "my-chip.json").mkdir(parents=True)
    message = "out/my-chip.json: expected a file, but it is a folder; choose"
    assert message in shell("bench --out out --jobs velocity")[2]


def around():
    "What a process has one of, and what belongs to whoever calls us."
    generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    grad = torch.is_grad_enabled()
    torch_s = torch.get_default_dtype(), torch.get_num_threads(), grad
    filters = [*warnings.filters], warnings.showwarning
    streams = [stream.errors for stream in (sys.__stdout__, sys.__stderr__)]
    figures = plt.get_fignums(), dict(plt.rcParams), matplotlib.get_backend()
    return (*generators, random.getstate(), *torch_s, *filters, *streams, *figures,
            os.getcwd(), os.umask(os.umask(0o22)), signal.getsignal(signal.SIGINT))


ALONE = {  # short work of each command that is done here
    "train": "--preset tiny --sims 0:10 --pixels 16 --epochs 1 --out o",
    "distill": "--sims 0:10 --pixels 16 --epochs 1 --out o",
    "evaluate": "--sims 0:10 --pixels 16 --no-raw-maps --steps 1 --out o",
    "encode": "maps.npy x.npy",
    "decode": "field.npy x.npy --steps 1",
    "compress": "maps.npy x.cflow",
    "bench": "--pixels 64 --jobs padding batches --rounds 1 --preset tiny --out o",
    "export": "--sims 0:10 --pixels 16 --out o",
}


@pytest.mark.parametrize("command", ALONE)
def test_a_command_leaves_what_is_around_it_alone(tmp_path, shell, command):
    "Random numbers, precision, warnings, figures: the caller may be a notebook."
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:1])
    np.save(tmp_path / "field.npy", np.zeros((1, 8, 1, 1), np.float32))
    shell(f"{command} --help")  # what is imported once may set what it wants
    before = around()
    status, _, errors = shell(f"{command} {ALONE[command]}")
    assert status == 0, errors
    for was, now in zip(before, around(), strict=True): assert was == now


def test_an_option_that_has_no_effect_is_no_secret(shell, monkeypatch):
    "With the schedule that asks for it, patience is taken."
    def trained(model, data, out, config, pretrained): assert config.patience == 3
    monkeypatch.setattr("cosmoflow.train.train", trained)
    line = "train --out x --sims 0:10 --preset mini --schedule plateau --patience 3"
    status, _, errors = shell(line)
    assert status == 0, errors


def test_a_model_starts_with_the_weights_of_its_seed(shell, monkeypatch):
    "As they were when torch's own generator drew them."
    def trained(model, data, out, config, pretrained): found.append(model.state_dict())
    found = []
    monkeypatch.setattr("cosmoflow.train.train", trained)
    assert shell("train --out x --sims 0:10 --preset tiny --seed 5")[0] == 0
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        expected = CosmoFlow.from_preset("tiny", Normalizer(0.0, 1.0, 1.0)).state_dict()
    for name, value in expected.items(): assert torch.equal(found[0][name], value), name


def test_a_model_without_a_posterior_is_not_loaded(tmp_path, shell, monkeypatch):
    def loaded(*_, **__): raise AssertionError("loaded")
    monkeypatch.setattr("cosmoflow.model.CosmoFlow.from_pretrained", loaded)
    np.save(tmp_path / "maps.npy", np.full((1, 64, 64), 1e11, np.float32))
    assert "has no posterior" in shell("infer maps.npy --model mini")[2]


@pytest.mark.parametrize(("out", "place"), [
    ("encode maps.npy {}", "x.npy"), ("decompress maps.cflow {} --steps 1", "x.npy"),
    ("infer maps.npy --draws 9 --corner {}", "x.png"),
    ("infer maps.npy --draws 9 --out {}", "x.csv")])
def test_an_output_may_be_a_link_to_any_name(tmp_path, shell, out, place):
    "As of a store of files that are named by their content."
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:1])
    assert shell("compress maps.npy maps.cflow")[0] == 0
    (tmp_path / place).symlink_to("0f3a.bin")
    status, _, errors = shell(out.format(place))
    assert status == 0, errors
    assert (tmp_path / "0f3a.bin").stat().st_size > 100
    assert (tmp_path / place).is_symlink()


def test_a_file_name_is_no_advice(shell):
    errors = shell("encode 'maps (--old).npy' x.npy")[2]
    assert errors.startswith("cosmoflow: error: maps (--old).npy: no such file")


TAKE_A_SEED = [command for command in COMMANDS
               if any(action.dest == "seed" for action in cli._command_parser(
                   cli.COMMANDS[command], command)._actions)]


def test_these_commands_take_a_seed():
    assert TAKE_A_SEED == ["train", "evaluate", "distill", "decode", "infer",
                           "compress", "export", "demo"]


@pytest.mark.parametrize("command", TAKE_A_SEED)
@pytest.mark.parametrize("seed", (-1, 2**63))
def test_what_is_no_seed_is_refused_before_a_file_is_read(
        tmp_path, shell, command, seed):
    status, _, errors = shell(f"{command} {TO[command].format('out')} --seed={seed}")
    message = f"cosmoflow: error: seed={seed}: expected a whole number from 0 to"
    assert status == 2 and errors.startswith(message) and not holds(tmp_path)


TAKE_A_FILE = {"encode": "{} x.npy", "decode": "{} x.npy", "infer": "{}",
               "compress": "{} x.cflow", "decompress": "{} x.npy"}


@pytest.mark.parametrize("command", TAKE_A_FILE)
def test_a_folder_or_an_archive_is_no_file_of_maps(tmp_path, shell, command):
    (tmp_path / "folder").mkdir()
    line = f"{command} {TAKE_A_FILE[command]}"
    assert "error: folder: no such file; expected" in shell(line.format("folder"))[2]
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    told = shell(line.format("two.npz"))[2]
    assert ("save the one you mean" in told) or command == "decompress"
    assert told.startswith("cosmoflow: error: two.npz: ") and told.count("\n") == 1


@pytest.mark.parametrize(("wrong", "launched", "message"), [
    ("--batch-size 3 --siblings 1", {}, "batch_size=3: expected an even number"),
    ("--batch-size 6 --siblings 1", {"WORLD_SIZE": "2"},
     "batch_size=6: expected an even number of maps a process"),
    ("--batch-size 8", {"WORLD_SIZE": "3"},
     "batch_size=8: expected a multiple of the 3 processes"),
    ("--precision no", {"ACCELERATE_MIXED_PRECISION": "bf16"},
     "ACCELERATE_MIXED_PRECISION=bf16: expected no"),
    ("--pixels 8", {}, "multiple of 16"),
    ("--box 0", {}, "box=0.0: expected a side in Mpc/h"),
])
def test_what_cannot_be_trained_is_refused_before_a_map_is_read(
        tmp_path, shell, monkeypatch, wrong, launched, message):
    def read(*_, **__): raise AssertionError("a map was read")
    monkeypatch.setattr("cosmoflow.data.Normalizer.fit", read)
    for name, value in launched.items(): monkeypatch.setenv(name, value)
    status, _, errors = shell(f"train --preset tiny --sims 0:10 --out out {wrong}")
    assert status == 2 and message in errors and errors.count("\n") == 1
    assert not holds(tmp_path)


def test_a_simulation_that_failed_does_not_bind_the_next(shell, monkeypatch):
    "Its settings were wrong, perhaps; those of a finished one stay."
    class Mesh:
        def __init__(self, particles, pixels, *_): self.pixels = pixels
        def maps(self, *_):
            if self.pixels > 64: raise MemoryError("too large")
            return np.ones((15, self.pixels, self.pixels))
    monkeypatch.setattr("cosmoflow.simulate.particle_mesh", Mesh)
    line = "simulate --set CV --sims 0:1 --out PM --pixels"
    assert shell(f"{line} 4096")[0] == 2
    assert shell(f"{line} 64")[0] == 0
    status, _, errors = shell(f"{line} 32")
    assert status == 2 and "settings pixels is 64 there and 32 here" in errors


TRIAL = "--sims 0:10 --pixels 16"
FULL = {  # what does not fit on a full disk, and how large files may get
    "train": (f"--preset tiny {TRIAL} --epochs 1 --out o",
              "o/model.safetensors", 20_000),
    "distill": (f"{TRIAL} --epochs 1 --out o", "o/model.safetensors", 20_000),
    "evaluate": (f"{TRIAL} --no-raw-maps --steps 1 --out o", "o/figure.png", 20_000),
    "encode": ("maps.npy x.npy", "x.npy", 3_000),
    "decode": ("field.npy x.npy --steps 1", "x.npy", 3_000),
    "infer": ("maps.npy --out x.csv", "x.csv", 300),
    "compress": ("maps.npy x.cflow", "x.cflow", 300),
}


@pytest.mark.parametrize("command", FULL)
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path, shell, command):
    line, path, room = FULL[command]
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:10])
    np.save(tmp_path / "field.npy", np.zeros((1, 8, 4, 4), np.float32))
    before = holds(tmp_path)
    with full_disk(room): status, _, errors = shell(f"{command} {line}")
    last = errors.splitlines()[-1]
    assert last.startswith(f"cosmoflow: error: {path}: it could not be written (")
    assert "File too large" in last, "a full disk is not called by its name"
    assert status == 2 and "Traceback" not in errors
    whole = {"log.csv", ".lock", "metrics.json", "o"}
    assert {p.name for p in holds(tmp_path).keys() - before.keys()} <= whole
    if command != "evaluate":  # it keeps nothing to go on from
        assert shell(f"{command} {line}")[0] == 0
        assert (tmp_path / path).stat().st_size > room


SAYS = {command: line for command, line in FULL.items()
        if command not in ("train", "distill")}


@pytest.mark.parametrize("command", SAYS)
def test_files_are_whole_when_nobody_reads_what_is_said(
        tmp_path, shell, monkeypatch, command):
    "As after `| head -1`, which is no error; a full disk for what is said is one."
    line, path, _ = SAYS[command]
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:1])
    np.save(tmp_path / "field.npy", np.zeros((1, 8, 1, 1), np.float32))
    maps = open_maps("PM", "CV", pixels=16).maps[:15]
    found = SimpleNamespace(metrics={}, true=maps, rec=maps)
    monkeypatch.setattr("cosmoflow.evaluate.evaluate", lambda *_, **__: found)
    monkeypatch.setattr("cosmoflow.evaluate.report", str)
    error = BrokenPipeError(32, "Broken pipe")
    def write(text): raise error
    monkeypatch.setattr("sys.stdout.write", write)
    assert shell(f"{command} {line}")[::2] == (141, "")
    assert (tmp_path / path).exists()
    error = OSError(28, "No space left on device")
    status, _, errors = shell(f"{command} {line}")
    assert status == 2 and errors.endswith("No space left on device\n")


NO_FILE = {  # what an output may lead to, and what is said
    "folder": "out{}: expected a file, but it is a folder; choose another place\n",
    "pipe": "out{}: expected a file, but it is a pipe or a device; choose another",
    "link to a folder": "out{}: expected a file, but it is a folder; choose another",
    "link to nowhere": "/proc/none: no file can be made there",
}
INTO_A_FILE = {"encode": ("maps.npy {}", ".npy"), "decode": ("maps.npy {}", ".npy"),
               "infer": ("maps.npy --out {}", ".csv"),
               "infer --corner": ("maps.npy --corner {}", ".png"),
               "compress": ("maps.npy {}", ".cflow"),
               "decompress": ("maps.npy {}", ".npy")}


@pytest.mark.parametrize("what", NO_FILE)
@pytest.mark.parametrize("command", INTO_A_FILE)
def test_an_output_that_leads_to_no_file_is_said_before_anything_is_read(
        tmp_path, shell, command, what):
    if what == "link to nowhere" and not os.path.isdir("/proc"):
        pytest.skip("needs a folder that nobody can write to")
    line, suffix = INTO_A_FILE[command]
    out = tmp_path / f"out{suffix}"
    (tmp_path / "there").mkdir()
    make = {"folder": out.mkdir, "pipe": lambda: os.mkfifo(out),
            "link to a folder": lambda: out.symlink_to("there"),
            "link to nowhere": lambda: out.symlink_to(f"/proc/none/x{suffix}")}
    make[what]()
    before = os.listdir(tmp_path)
    status, _, errors = shell(f"{command.split()[0]} {line.format(out.name)}")
    message = NO_FILE[what].format(suffix)
    assert status == 2 and errors.startswith(f"cosmoflow: error: {message}")
    assert errors.count("\n") == 1 and os.listdir(tmp_path) == before


def test_an_output_may_be_a_link_to_a_file_or_to_its_place(tmp_path, shell):
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:1])
    (tmp_path / "there").mkdir()
    (tmp_path / "old.npy").write_bytes(b"old")
    for place in ("old.npy", "there/new.npy"):
        (tmp_path / "link.npy").unlink(missing_ok=True)
        (tmp_path / "link.npy").symlink_to(place)
        assert shell("encode maps.npy link.npy")[0] == 0
        assert (tmp_path / "link.npy").is_symlink()
        assert np.load(tmp_path / place).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("backend", ("module://nowhere.backend", "tkagg", None))
def test_figures_need_no_screen(tmp_path, monkeypatch, backend):
    "A notebook names its own backend to every command that it starts."
    np.save(tmp_path / "maps.npy", open_maps("PM", "CV").maps[:1])
    monkeypatch.delenv("MPLBACKEND", raising=False)
    if backend: monkeypatch.setenv("MPLBACKEND", backend)
    monkeypatch.setenv("DISPLAY", ":99")  # where nothing is
    done = run("infer", "maps.npy", "--corner", "x.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_caller_s_own_process_keeps_its_screen(shell, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://nowhere.backend")
    shell("encode none.npy x.npy")
    assert os.environ["MPLBACKEND"] == "module://nowhere.backend"


@pytest.mark.parametrize("text, expected", [
    ("0:400", slice(0, 400)), (":10", slice(None, 10)), ("7", slice(7, 8)),
    ("0", slice(0, 1)), ("-1", slice(-1, None)), ("-2", slice(-2, -1)),
    ("-5:", slice(-5, None))])
def test_a_range_of_simulations_is_python_s(text, expected):
    found = cli._sims(text)
    assert found == expected
    if ":" not in text: assert list(range(27))[found] == [range(27)[int(text)]]


@pytest.mark.parametrize("line", ("encode a.npy b.npy", "decode a.npy ./a.npy",
                                  "compress a.cflow a.cflow", "decompress a.npy b.npy",
                                  "infer a.npy --out b.csv", "infer a.csv --out a.csv",
                                  "infer a.npy --corner b.png"))
def test_what_is_read_is_not_written_over(tmp_path, shell, line):
    for name in "a.npy", "a.cflow", "a.csv": (tmp_path / name).write_bytes(b"mine")
    for name in "b.npy", "b.csv", "b.png": (tmp_path / name).symlink_to("a.npy")
    status, _, errors = shell(line)
    assert status == 2 and "expected another name" in errors
    assert (tmp_path / "a.npy").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", (np.float64, ">f4"))
def test_maps_that_are_converted_are_noted_in_one_line(tmp_path, shell, kind):
    from cosmoflow.data import map_path, param_path
    data = open_maps("PM", "LH", sims=slice(0, 10), pixels=16)
    np.save(map_path(tmp_path, "PM", "LH"), data.maps.astype(kind))
    np.savetxt(param_path(tmp_path, "PM", "LH"), data.params)
    status, _, errors = shell("train --preset tiny --data . --epochs 2 --out run")
    notes, *lines = errors.splitlines()
    assert status == 0
    assert notes.startswith("cosmoflow: note: Maps_Mcdm_PM_LH")
    assert "every map is converted" in notes
    steps = [line.split(",")[0] for line in lines]
    assert steps == ["training: step 3 of 6", "training: step 6 of 6"], (
        "a line an epoch, no bar")
    assert "\r" not in errors


def test_a_terminal_that_knows_ascii_only(tmp_path):
    "No locale at all, and names that it cannot spell."
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
             "PYTHONIOENCODING": "ascii"}
    folder = tmp_path / "Größe σ_8"
    folder.mkdir()
    np.save(folder / "maps.npy", open_maps("PM", "CV").maps[:1])
    CosmoFlow.from_pretrained("mini").save_pretrained(folder / "σ")
    done = run("encode", folder / "maps.npy", folder / "field.npy",
               "--model", folder / "σ", env=os.environ | plain)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("field.npy: (1, 8, 4, 4)\n"), done.stderr
    assert (folder / "field.npy").exists() and os.listdir(tmp_path) == [folder.name]


def replaced(monkeypatch, command, error):
    "Makes a command raise this as soon as it runs."
    @functools.wraps(cli.COMMANDS[command])
    def broken(**options): raise error
    monkeypatch.setitem(cli.COMMANDS, command, broken)


@pytest.mark.parametrize("error", [
    SafetensorError("HeaderTooSmall"),
    MemoryError(),
    RuntimeError("two\nlines"),
    AssertionError(),
    ZeroDivisionError("by zero"),
    TypeError("no"),
    KeyError("mean"),
    BadZipFile("no zip"),
    sqlite3.OperationalError("locked"),
], ids=lambda e: type(e).__name__)
def test_what_nobody_foresaw_is_one_line_with_its_kind(shell, monkeypatch, error):
    replaced(monkeypatch, "demo", error)
    status, _, errors = shell("demo")
    assert status == 2 and errors.count("\n") == 1
    assert errors.startswith(f"cosmoflow: error: {type(error).__name__}: ")
    assert errors.endswith("(--debug shows where)\n")
    assert "Traceback" in shell("demo --debug")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_advice_after_ctrl_c_depends_on_the_command(shell, monkeypatch, command):
    advice = {
        "train": "the same command with --resume goes on",
        "simulate": "the same command goes on",
        "download": "the same command goes on",
        "fetch": "the same command goes on",
        "distill": "the same command goes on",
    }
    expected = advice.get(command, "the same command starts again")
    replaced(monkeypatch, command, KeyboardInterrupt)
    line = cli._paragraphs(cli.COMMANDS[command])[1].removeprefix("example: cosmoflow ")
    status, _, said = shell(line)
    assert status == 130 and expected in said.lower()
    assert said.startswith("\ncosmoflow: stopped. ") and said.count("\n") == 2
    assert expected in " ".join(shell(f"{command} --help")[1].lower().split())


STOPPED = """
import functools, os, signal, sys
from cosmoflow import cli
# as at a terminal: what runs in the background may have been told to ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
@functools.wraps(cli.COMMANDS["demo"])
def demo(**options):
    print("before", end="")
    os.kill(os.getpid(), signal.SIGINT)
cli.COMMANDS["demo"] = demo
sys.argv = ["cosmoflow", "demo"]
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_ends_a_loop_of_a_shell_too(tmp_path):
    "A shell goes on with the next file unless the signal itself has ended the first."
    program = tmp_path / "stopped.py"
    program.write_text(STOPPED, encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and done.stdout == "before"
    assert done.stderr.startswith("\ncosmoflow: stopped. ")
    assert "Traceback" not in done.stderr

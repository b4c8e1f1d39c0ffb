"""The ledger that `train`, `train_vae` and `distill` share: tests ask all three."""
import csv
import inspect
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, randomised
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cosmoflow import train as training
from cosmoflow.bench import untrained
from cosmoflow.codec import train_for_rate
from cosmoflow.core import differences, digest
from cosmoflow.data import Normalizer, augment, open_maps
from cosmoflow.distill import distill
from cosmoflow.export import graphs
from cosmoflow.flow import TIMETABLES
from cosmoflow.inference import fit_mlp
from cosmoflow.model import CosmoFlow
from cosmoflow.points import PointData, open_points, train_points
from cosmoflow.posterior import fit_flow
from cosmoflow.train import Run, TrainConfig, require_new, train
from cosmoflow.vae import VAE, train_vae

NORMALIZER = Normalizer(11.0, 0.5, 1e8)
TRAINERS = "train", "vae", "distill"
# What the last epoch writes: log, weights, configuration, checkpoint; and the model
# with its prior.
WRITES = {"train": 6, "vae": 4, "distill": 4}


@pytest.fixture(scope="module")
def data(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


def work(name, data, out, normalizer=NORMALIZER, lr=1e-3, teacher=0, epochs=2):
    "Two short epochs of one of them; a run that is in the folder goes on."
    torch.manual_seed(0)
    if name == "train":
        model = CosmoFlow.from_preset("tiny", normalizer)
        config = TrainConfig(epochs=epochs, lr=lr, ema=0.9, batch_size=60)
        return train(model, data, out, config, resume=True)
    if name == "vae":
        model = VAE(normalizer, data.pixels, width=8)
        return train_vae(model, data, out, epochs, batch_size=60, lr=lr, patience=0)
    model = untrained("tiny", torch.device("cpu"), seed=teacher)
    model.normalizer = normalizer
    return distill(model, data, out, epochs=epochs, lr=lr, fine=1)


def kept(out):
    "All that a folder holds, without the seconds that it took."
    plain = lambda rows: [{k: v for k, v in row.items() if k != "seconds"}
                          for row in rows]
    with safe_open(out / "checkpoint.safetensors", "pt") as f:
        state = json.loads(f.metadata()["state"])
    tensors = {name: load_file(out / f"{name}.safetensors")
               for name in ("model", "checkpoint")}
    log = plain(csv.DictReader((out / "log.csv").open(encoding="utf-8")))
    config = (out / "config.json").read_text(encoding="utf-8")
    return tensors, log, config, state | {"history": plain(state["history"])}


def assert_same(a, b):
    for name, tensors in a[0].items():
        assert tensors.keys() == b[0][name].keys()
        assert all(torch.equal(tensors[k], b[0][name][k]) for k in tensors), name
    assert a[1:] == b[1:]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    "What each of them leaves when nothing stops it."
    out = tmp_path_factory.mktemp("whole")
    for name in TRAINERS: work(name, data, out / name)
    return out


class Killed(BaseException): pass


@contextmanager
def killed_at(nth):
    "The block ends where a file is to take its name for the nth time, before it does."
    count, give_name = 0, os.replace

    def counting(*args):
        nonlocal count
        count += 1
        if count == nth: raise Killed
        return give_name(*args)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("os.replace", counting)
        yield


@pytest.fixture(scope="module")
def half(data, tmp_path_factory):
    "What each of them leaves when it is stopped after one of two epochs."
    out = tmp_path_factory.mktemp("half")
    for name in TRAINERS:
        with killed_at(5): work(name, data, out / name)
    return out


@pytest.mark.parametrize(
    ("name", "write"),
    [(name, i + 1) for name in TRAINERS for i in range(WRITES[name])])
def test_killed_before_any_write_of_the_last_epoch_and_run_again(
        name, write, data, half, whole, tmp_path):
    out = shutil.copytree(half / name, tmp_path / "run")
    with killed_at(write): work(name, data, out)
    assert not list(out.glob("*.tmp*"))
    work(name, data, out)
    assert_same(kept(out), kept(whole / name))


@pytest.mark.parametrize("name", TRAINERS)
def test_a_finished_run_is_taken_from_its_folder(name, data, whole, tmp_path):
    out = shutil.copytree(whole / name, tmp_path / "run")
    before = kept(out)
    model = work(name, data, out)
    assert_same(kept(out), before)
    tensors, *_ = before
    for k, v in model.state_dict().items():
        assert torch.equal(v, tensors["model"][k]), k


OTHER = {
    "settings lr is 0.001 there and 0.01 here": dict(lr=0.01),
    "normalizer mean is 11.0 there and 11.5 here":
        dict(normalizer=replace(NORMALIZER, mean=11.5)),
    "data suite is 'PM' there and 'Astrid' here": dict(suite="Astrid"),
    "data set is 'LH' there and 'SB28' here": dict(set="SB28"),
    "data field is 'Mcdm' there and 'Mgas' here": dict(field="Mgas"),
    "data pixels is 16 there and 32 here": dict(pixels=32),
    "data box is 25.0 there and 50.0 here": dict(box=50.0),
    "data simulations is 10 there and 20 here": dict(sims=slice(0, 20)),
    "data parameters is '.*' there and '.*' here": dict(sims=slice(20, 30)),
}


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("message", OTHER)
def test_another_run_is_refused_by_name(name, message, data, whole):
    change = dict(OTHER[message])
    opened = {k: change.pop(k) for k in ("pixels", "sims") if k in change}
    other = "suite", "set", "field", "box"
    renamed = {k: change.pop(k) for k in other if k in change}
    if opened:
        data = open_maps("PM", "LH", **{"sims": slice(0, 10), "pixels": 16} | opened)
    before = kept(whole / name)
    refusal = f"of another run: .*{message}.*choose another folder"
    with pytest.raises(ValueError, match=refusal):
        work(name, replace(data, **renamed), whole / name, **change)
    assert_same(before, kept(whole / name))


REMADE = {  # maps of the same simulations, and how the refusal names them
    "fewer of each": (lambda d: d.simulations(maps=slice(0, 8)),
                      "data maps is 150 there and 80 here; data brightest is "),
    "in another order": (lambda d: d.simulations(maps=slice(None, None, -1)),
                         "data brightest is "),
    "made otherwise": (lambda d: replace(d, maps=1.01 * np.asarray(d.maps)),
                       "data brightest is "),
}


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("kind", REMADE)
def test_other_maps_of_the_same_simulations_are_refused(name, kind, data, whole):
    "Their suite, parameters and normaliser tell nothing: say, 64^3 or 128^3 particles."
    change, message = REMADE[kind]
    before = kept(whole / name)
    with pytest.raises(ValueError, match=f"of another run: {message}"):
        work(name, change(data), whole / name)
    assert_same(before, kept(whole / name))


@pytest.mark.parametrize("name", TRAINERS)
def test_the_same_maps_in_double_precision_go_on(name, data, whole, tmp_path):
    out = shutil.copytree(whole / name, tmp_path / "run")
    work(name, replace(data, maps=np.asarray(data.maps, np.float64)), out)
    assert_same(kept(out), kept(whole / name))


def test_another_teacher_is_refused(data, whole):
    with pytest.raises(ValueError, match="teacher weights is '.*' there and '.*' here"):
        work("distill", data, whole / "distill", teacher=1)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_reads_the_maps_that_it_is_known_by_once(
        name, data, whole, tmp_path, monkeypatch):
    reads, some = [], training._some_maps
    noted = lambda data: reads.append(data) or some(data)
    monkeypatch.setattr(training, "_some_maps", noted)
    work(name, data, shutil.copytree(whole / name, tmp_path / "run"))
    assert len(reads) == 1


def edit(path, state=lambda s: s, tensors=lambda t: t):
    "Writes a checkpoint again with other contents."
    with safe_open(path, "pt") as f: old = json.loads(f.metadata()["state"])
    save_file(tensors(load_file(path)), path, {"state": json.dumps(state(old))})


@pytest.mark.parametrize("name", TRAINERS)
def test_a_checkpoint_without_a_box_goes_on_with_camels_box_alone(
        name, data, whole, tmp_path):
    "An older version wrote it, when there was no other; it did not look at the maps."
    out = shutil.copytree(whole / name, tmp_path / "run")

    def older(state):
        for key in ("box", "maps", "brightest"): del state["run"]["data"][key]
        state["run"]["model"].pop("timetable", None)  # fading: there was no other
        return state

    edit(out / "checkpoint.safetensors", state=older)
    work(name, data, out)
    with pytest.raises(ValueError, match="data box is 25.0 there and 50.0 here"):
        work(name, replace(data, box=50.0), out)


def without(tensors, word): return {k: v for k, v in tensors.items() if word not in k}


def misshapen(tensors):
    first = next(k for k in tensors if k.startswith("model."))
    return tensors | {first: torch.zeros(7, 7)}


DAMAGE = {
    "lacks .*: optimizer.0.exp_avg,": dict(tensors=lambda t: without(t, "exp_avg")),
    "lacks .*: optimizer.0": dict(tensors=lambda t: {
        k: v for k, v in t.items() if not k.startswith("optimizer.")}),
    "1 tensors do not fit .*: optimizer.0.exp_avg": dict(
        tensors=lambda t: t | {"optimizer.0.exp_avg": torch.zeros(3)}),
    "1 tensors do not fit .*: model.": dict(tensors=misshapen),
    "lacks history; remove it": dict(state=lambda s: {
        k: v for k, v in s.items() if k != "history"}),
    "lacks lr; remove it": dict(state=lambda s: {
        k: v for k, v in s.items() if k != "lr"}),
    "expected a checkpoint": dict(state=lambda s: [s]),
    "an older version wrote it": dict(
        state=lambda s: {"settings": {}, "history": s["history"], "lr": 1e-3}),
}


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("message", DAMAGE)
def test_a_checkpoint_that_lacks_something_is_refused(
        name, message, data, whole, tmp_path):
    out = shutil.copytree(whole / name, tmp_path / "run")
    edit(out / "checkpoint.safetensors", **DAMAGE[message])
    with pytest.raises(ValueError, match=message) as e: work(name, data, out)
    assert str(out / "checkpoint.safetensors") in str(e.value)


def test_what_is_no_checkpoint_is_refused(data, whole, tmp_path):
    good = (whole / "train" / "checkpoint.safetensors").read_bytes()
    for bad in (b"", good[:1000], (whole / "train" / "model.safetensors").read_bytes()):
        (tmp_path / "checkpoint.safetensors").write_bytes(bad)
        with pytest.raises(ValueError, match="expected a checkpoint"):
            work("train", data, tmp_path)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_loss_that_is_not_a_number_keeps_what_was_good(
        name, data, whole, tmp_path, monkeypatch):
    def broken(maps, generator):
        in_second_epoch = (tmp_path / "log.csv").exists()
        return augment(maps, generator) * (torch.nan if in_second_epoch else 1)

    message = r"epoch 2: \w+ is nan.* try a lower lr"
    with monkeypatch.context() as patch:
        patch.setattr(f"cosmoflow.{name}.augment", broken)
        with pytest.raises(FloatingPointError, match=message):
            work(name, data, tmp_path)
    tensors, log, *_ = kept(tmp_path)
    assert len(log) == 1
    for held in tensors.values(): assert all(w.isfinite().all() for w in held.values())
    work(name, data, tmp_path)
    assert_same(kept(tmp_path), kept(whole / name))


def test_weights_that_are_not_numbers_are_not_kept(data, tmp_path):
    "The last step's weights may not show in any loss."
    model = untrained("tiny", torch.device("cpu"))
    with Run(tmp_path, {}, data, model) as run:
        run.resume({"model": model}, torch.optim.AdamW(model.parameters()))
        next(model.parameters()).data[0] = torch.inf
        with pytest.raises(FloatingPointError, match="epoch 1: a weight is not finite"):
            run.keep({"epoch": 1, "loss": 0.5}, model)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_row_tells_the_seconds_since_the_one_before(data, tmp_path, monkeypatch):
    model, clock = untrained("tiny", torch.device("cpu")), iter((200, 203.04, 210.04))
    monkeypatch.setattr("cosmoflow.train.time",
                        SimpleNamespace(time=lambda: next(clock)))
    with Run(tmp_path, {}, data, model) as run:
        run.resume({"model": model}, torch.optim.AdamW(model.parameters()))
        for epoch in (1, 2): run.keep({"epoch": epoch, "loss": 0.5}, model)
    log = (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()
    assert log == ["epoch,loss,seconds", "1,0.5,3.0", "2,0.5,7.0"]


HOLD = """
import sys
import time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("name", TRAINERS)
def test_two_trainings_into_one_folder(name, data, whole, tmp_path):
    "A living process keeps others out; that of a killed one is no hindrance."
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / ".lock"],
                               stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        message = f"{tmp_path}: another training is at work in this folder"
        with pytest.raises(BlockingIOError, match=message):
            work(name, data, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    work(name, data, tmp_path)
    assert_same(kept(tmp_path), kept(whole / name))
    with FileLock(tmp_path / ".lock", timeout=0): pass  # a run that has ended lets go


@pytest.mark.parametrize("name", ["vae", "distill"])
def test_what_takes_one_process_says_so_to_several(name, data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "^WORLD_SIZE=2: expected one process; .* without a launcher"
    with pytest.raises(ValueError, match=message): work(name, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rate_and_loss_scaler_go_on(data, tmp_path):
    "fp16 scales losses by a number that it learns; here the GPU's scaler on the CPU."
    def run_and_scaler():
        model = untrained("tiny", torch.device("cpu"))
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        run = Run(tmp_path, {}, data, model)
        return run, scaler, model
    run, scaler, model = run_and_scaler()
    optimizer = torch.optim.AdamW(model.parameters())
    with run:
        run.resume({"model": model}, optimizer, scaler=scaler, plateau=None)
        for _ in range(4):  # the scale doubles after three good steps
            scaler.scale(sum(p.sum() for p in model.parameters())).backward()
            scaler.step(optimizer)
            scaler.update()
        optimizer.param_groups[0]["lr"] = 5e-4
        run.keep({"epoch": 1, "loss": 0.5}, model)
    again, scaler_again, model = run_and_scaler()
    optimizer = torch.optim.AdamW(model.parameters())
    with again:
        again.resume({"model": model}, optimizer, scaler=scaler_again, plateau=None)
    assert optimizer.param_groups[0]["lr"] == 5e-4
    state = scaler.state_dict()
    assert scaler_again.state_dict() == state
    assert state | {"scale": 16.0, "_growth_tracker": 1} == state


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fp16_resumes_to_the_bit(data, tmp_path):
    def part(out):
        torch.manual_seed(0)
        config = TrainConfig(epochs=3, lr=1e-3, batch_size=60, precision="fp16")
        model = CosmoFlow.from_preset("tiny", NORMALIZER)
        return train(model, data, out, config, resume=True)

    part(tmp_path / "whole")
    with killed_at(5): part(tmp_path / "cut")
    part(tmp_path / "cut")
    a, b = kept(tmp_path / "whole"), kept(tmp_path / "cut")
    assert a[3]["parts"] == b[3]["parts"] and a[3]["parts"]["scaler"]
    for k, v in a[0]["model"].items():
        torch.testing.assert_close(v, b[0]["model"][k], rtol=0, atol=1e-6)


def test_a_digest_depends_on_every_number_and_on_nothing_else():
    numbers = torch.arange(12.0).view(3, 4)
    same = digest([numbers])
    alike = [numbers.double().numpy()], [numbers.half()], numbers.unbind()
    assert len(same) == 12 and all(digest(other) == same for other in alike)
    for i in range(12):
        changed = numbers.clone()
        changed.view(-1)[i] += 1e-3
        assert digest([changed]) != same
    assert digest([numbers.mT]) != same


def test_differences_name_both_values():
    there = {"settings": {"lr": 1, "old": 2}}
    here = {"settings": {"lr": 1, "new": 3}, "teacher": {}}
    assert differences(there, here) == (
        "settings old is 2 there and None here; settings new is None there and 3 here")
    assert differences(here, here) == ""


def for_rate():
    model = fresh("distill")
    return model.fit_prior(np.array(open_maps("PM", "CV", pixels=16).maps[:30]))


class Bell(torch.nn.Linear):
    "A flow that takes everything for noise, as `fit_flow` asks it."
    def loss(self, u, told): return (u - self(told)).square().sum(1)


def points(model, data, out):
    universes = PointData(**{k: v[:8] for k, v in vars(open_points()).items()})
    train_points(universes, out, steps=ONE, count=BATCH, every=ONE, seed=NONE)


X, THETA = torch.ones(8, 2, 3), torch.full((8, 2), 0.4) + torch.tensor([0, 0.4])
FLAT = torch.arange(8.0)[:, None], torch.arange(8.0)[:, None]
ONE, BATCH, NONE = np.int64(1), np.int64(60), np.int64(0)  # as a loop over seeds gives
LEARN = {  # by module: what makes a network, and how it learns
    "train": (lambda: fresh("train"), lambda model, data, out: train(
        model, data, out, TrainConfig(epochs=ONE, batch_size=BATCH, seed=NONE))),
    "vae": (lambda: fresh("vae"), lambda model, data, out: train_vae(
        model, data, out, epochs=ONE, batch_size=BATCH, seed=NONE)),
    "distill": (lambda: fresh("distill"), lambda model, data, out: distill(
        model, data, out, epochs=ONE, batch_size=BATCH, fine=1, seed=NONE)),
    "codec": (for_rate, lambda model, data, out: train_for_rate(
        model, data, out, epochs=ONE, batch_size=BATCH, seed=NONE)),
    "inference": (object, lambda model, data, out: fit_mlp(
        *FLAT, *FLAT, 4, ONE, seed=NONE)),
    "posterior": (lambda: Bell(4, 2), lambda model, data, out: fit_flow(
        model, X, THETA, X, THETA, epochs=ONE, seed=NONE)),
    "points": (object, points),
}


def fresh(name):
    "A small network for one of the trainers."
    if name == "vae": return VAE(NORMALIZER, 16, width=8)
    return CosmoFlow.from_preset("tiny", NORMALIZER)


def train_by(model, data, out, **settings):
    "`train`, with its settings as arguments."
    train(model, data, out, TrainConfig(**settings))


def takes(learn):
    "The names of a training's arguments."
    names = {*inspect.signature(learn).parameters}
    return names | vars(TrainConfig()).keys() if learn is train_by else names


LEARNERS = train_by, train_vae, distill, train_for_rate
NAN, INF = float("nan"), float("inf")
WRONG = {  # settings that cannot be, and who takes them
    "epochs": (0, 2.5, "3"), "batch_size": (0, 7.5), "seed": (-1,), "data": (0,),
    "model": ("vae",), "lr": (NAN, INF, -1, 0, "x"),
    "patience": (NAN, INF, -1, "x"), "weight_decay": (NAN, INF), "clip": (NAN, -1),
    "siblings": (NAN, INF), "bf16": ("no", 1), "freeze_encoder": ("no",),
    "compile": (None,), "pooled": (NAN, -1, 2, "x"), "ema": (NAN, -1, 1.5, None),
    "spectral": (NAN, INF, -1),
}
ASKED = [(learn, {name: value}) for learn in LEARNERS[:3] for name in WRONG
         for value in WRONG[name] if name in takes(learn)]
ASKED += [(train_for_rate, {name: WRONG[name][0]})
          for name in ("epochs", "batch_size", "seed", "data", "model", "lr", "ema")]
ASKED += [(train_for_rate, {name: INF}) for name in ("lr", "price")]


@pytest.mark.parametrize("learn, wrong", ASKED,
                         ids=lambda given: getattr(given, "__name__", str(given)))
def test_what_cannot_be_learnt_is_refused_before_a_folder_is_made(
        learn, wrong, data, tmp_path):
    model = fresh("vae" if learn is train_vae else "distill")
    given = dict(model=model, data=data, out=tmp_path / "run") | wrong
    with pytest.raises(ValueError, match=f"^{[*wrong][0]}[=:]"): learn(**given)
    assert not list(tmp_path.iterdir())


def remade(change):
    "Changes the maps, and nothing else."
    return lambda model, data: (model, replace(data, maps=change(np.array(data.maps))))


def one_is_nan(maps):
    maps[0, 3, 3] = np.nan
    return maps


USELESS = {  # a network or maps from which no training can come, and what is said
    "log10 maps": (remade(np.log10), r"data: .*are they log10 maps\? Give 10"),
    "divided by the mean": (remade(lambda m: m / m.mean()), "data: .*Multiply by it"),
    "in other units": (remade(lambda m: 1e9 * m), r"data: .*units\? \(Normalizer.fit"),
    "negative": (remade(np.negative), "data: .*are they contrasts"),
    "zeros": (remade(np.zeros_like), "data: .*found a mean of 0"),
    "a NaN": (remade(one_is_nan), "data: .*found NaN or infinity; mend"),
    "a few simulations": (lambda m, d: (m, d.simulations(slice(0, 5))),
                          "fractions=.*no simulation of 5 for validation"),
    "no simulation": (lambda m, d: (m, d.simulations([])),
                      "fractions=.*no simulation of 0 for training"),
    "bfloat16": (lambda m, d: (m.bfloat16(), d), "model: .*float32, found bfloat16"),
    "double": (lambda m, d: (m.double(), d), "model: .*float32, found float64"),
    "frozen": (lambda m, d: (m.requires_grad_(False), d), "model: .*found all frozen"),
}


@pytest.mark.parametrize("kind", USELESS)
@pytest.mark.parametrize("learn", LEARNERS)
def test_a_training_that_must_fail_is_refused_before_a_folder_is_made(
        learn, kind, data, tmp_path):
    "Not after its last epoch, when the prior is fitted."
    model = fresh("vae") if learn is train_vae else for_rate()
    change, message = USELESS[kind]
    model, data = change(model, data)
    with pytest.raises(ValueError, match=f"^{message}"):
        learn(model, data, tmp_path / "run", epochs=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("learn", [train_by, train_vae])
def test_weights_made_in_inference_mode_are_told_apart(learn, data, tmp_path):
    "The others train a copy, which can learn."
    with torch.inference_mode():
        model = fresh("vae" if learn is train_vae else "train")
    with pytest.raises(ValueError, match="^model: .*inference_mode and cannot learn"):
        learn(model, data, tmp_path / "run", epochs=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, kind, learn", [
    ("train", CosmoFlow, train_by), ("vae", VAE, train_vae)])
def test_a_model_that_was_loaded_in_inference_mode_learns(
        name, kind, learn, data, whole, tmp_path):
    noise = {"seed": 0} if name == "train" else {}
    rebuild = lambda model: model.reconstruct(data.maps[:2], **noise)
    plain = kind.from_pretrained(whole / name, "cpu")
    with torch.inference_mode():
        model = kind.from_pretrained(whole / name, "cpu")
        inside = rebuild(model)
    assert not any(w.is_inference() for w in model.state_dict().values())
    torch.testing.assert_close(rebuild(plain), inside)
    torch.testing.assert_close(rebuild(model), inside)
    learn(model, data, tmp_path / "run", epochs=1)


def test_these_modules_learn():
    found = {path.stem for path in (ROOT / "cosmoflow").glob("*.py")
             if ".backward(" in path.read_text(encoding="utf-8")}
    assert found - {"bench"} == set(LEARN)  # which is for a shell


@pytest.mark.parametrize("name", LEARN)
def test_learning_takes_any_mode_and_numbers_of_numpy(name, data, tmp_path):
    "Under inference mode nothing has gradients, as under `no_grad`."
    make, learn = LEARN[name]
    model = make()
    with torch.inference_mode():
        learn(model, data, tmp_path)
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


AROUND = {  # what a caller may have set
    "double precision": double,
    "another device": lambda: torch.device("meta"),  # what lies there is lost
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
}
GIVEN = {"train": dict(siblings=0.1, pooled=0.1, ema=0.9, epochs=1, batch_size=60),
         "vae": dict(epochs=1, batch_size=60), "distill": dict(epochs=1, fine=1)}


def learn_plainly(name, data, out, around=nullcontext):
    "One of the trainings, with what the caller has set around the call alone."
    torch.manual_seed(0)
    model, learn = fresh(name), dict(zip(TRAINERS, LEARNERS))[name]
    with around(): learn(model, data, out, **GIVEN[name])
    return kept(out)


@pytest.fixture(scope="module")
def plainly(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("plainly")
    return {name: learn_plainly(name, data, out / name) for name in TRAINERS}


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("around", AROUND)
def test_what_the_caller_set_changes_no_training(name, around, data, plainly, tmp_path):
    found = learn_plainly(name, data, tmp_path, AROUND[around])
    for tensors in (found[0]["model"], plainly[name][0]["model"]):
        tensors.pop("prior", None)  # a Cholesky factor may differ in its last bit
    assert_same(found, plainly[name])
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("around", AROUND)
def test_a_seed_means_the_same_weights_whatever_the_caller_set(around):
    with AROUND[around](): found = fit_mlp(*FLAT, *FLAT, 4, 1)
    expected = fit_mlp(*FLAT, *FLAT, 4, 1)
    for k, v in expected.state_dict().items():
        assert torch.equal(found.state_dict()[k], v)


@pytest.mark.parametrize("name", TRAINERS)
def test_weights_that_no_training_left_are_not_replaced(name, data, tmp_path):
    "Weights beside a log are those of a run killed before its first checkpoint."
    mine = CosmoFlow.from_preset("tiny", NORMALIZER)
    mine.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="model.safetensors is there already: re"):
        work(name, data, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    (tmp_path / "log.csv").touch()
    work(name, data, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_goes_on_with_the_same_simulations_held_out(name, data, whole, tmp_path):
    out = shutil.copytree(whole / name, tmp_path / "run")
    moved = replace(data, numbers=data.numbers[::-1].copy())
    with pytest.raises(ValueError, match="data numbers is '.*' there and '.*' here"):
        work(name, moved, out)

    def older(state):
        del state["run"]["data"]["numbers"]
        return state

    edit(out / "checkpoint.safetensors", state=older)
    work(name, data, out)  # they were dealt as if they began at 0
    with pytest.raises(ValueError, match="data numbers is '.*' there and '.*' here"):
        work(name, moved, out)


def test_a_run_goes_on_with_the_same_weights_frozen(data, tmp_path):
    config = TrainConfig(epochs=1, lr=1e-3, batch_size=60)
    model = CosmoFlow.from_preset("tiny", NORMALIZER)
    model.encoder.requires_grad_(False)
    train(model, data, tmp_path, config)
    assert not any(w.requires_grad for w in model.encoder.parameters())
    train(model, data, tmp_path, config, resume=True)
    with pytest.raises(ValueError, match="frozen is {'encoder': .*} there and No"):
        train(model.requires_grad_(), data, tmp_path, config, resume=True)


def test_a_stopped_training_leaves_no_weight_frozen(data, tmp_path):
    model = CosmoFlow.from_preset("tiny", NORMALIZER)
    config = TrainConfig(epochs=1, lr=1e-3, batch_size=60, freeze_encoder=True)
    with killed_at(1): train(model, data, tmp_path, config)
    assert all(weight.requires_grad for weight in model.parameters())


START = dict(epoch=3, identity={"settings": {"lr": 1e-3}}, history=[{"loss": 0.5}])
OTHERS = {  # what another process may have found, and what is said
    "the same": ({}, None),
    "no checkpoint": (dict(epoch=0, history=[]), "one folder .* epochs 3, 0; choose"),
    "an old copy": (dict(history=[{"loss": 0.4}]), "one folder .* epochs 3, 3; choose"),
    "another rate": (dict(identity={"settings": {"lr": 1e-2}}), "the same run in all"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_all_processes_begin_the_same_run_at_the_same_place(other, tmp_path):
    "An accelerator that gathers what one process says after another."
    said = []
    both = SimpleNamespace(
        device="cpu", gather=lambda here: said.append(here) or torch.cat(said))
    change, message = OTHERS[other]
    begins = lambda **run: training._require_same_start(
        SimpleNamespace(out=tmp_path, **START | run), both)
    begins()
    if message is None: begins(**change)
    else:
        with pytest.raises(ValueError, match=f"expected {message}"): begins(**change)


@pytest.mark.parametrize("name", TRAINERS)
def test_weights_whose_checkpoint_was_removed_are_not_replaced(
        name, data, whole, tmp_path):
    "A checkpoint is thrice as large as the weights; who needs room removes it."
    out = shutil.copytree(whole / name, tmp_path / "run")
    (out / "checkpoint.safetensors").unlink()
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="model.safetensors is there already: re"):
        work(name, data, out)
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_goes_on_where_the_last_digits_of_a_normaliser_differ(
        name, data, whole, tmp_path):
    "It is fitted at each start, and processors with AVX-512 round otherwise."
    out = shutil.copytree(whole / name, tmp_path / "run")
    near = replace(NORMALIZER, std=math.nextafter(NORMALIZER.std, 1))
    work(name, data, out, normalizer=near)

    def older(state):  # which kept every digit
        state["run"]["normalizer"]["std"] = near.std
        return state

    edit(out / "checkpoint.safetensors", state=older)
    work(name, data, out)
    far = replace(NORMALIZER, std=NORMALIZER.std + 1e-7)
    with pytest.raises(ValueError, match="normalizer std is 0.5 there and 0.5000001 "):
        work(name, data, out, normalizer=far)


def all_of(model):
    "What a training may change of a model: all but its identity."
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [weight.requires_grad for weight in model.parameters()]
    modes = [module.training for module in model.modules()]
    return tensors, (dict(model.config), flags, modes, model.device)


@pytest.mark.parametrize("learn", LEARNERS[:3])
def test_a_refused_training_leaves_your_model_as_it_is(learn, data, whole, tmp_path):
    "Its prior, what it knows of its pixels, what learns, where it is."
    name = dict(zip(LEARNERS, TRAINERS))[learn]
    model = fresh(name).eval()
    if name != "vae":
        model.fit_prior(np.array(data.maps[:20]))
        model.config["pixel"] = 0.125
    next(model.parameters()).requires_grad_(False)
    tensors, others = all_of(model)
    out = shutil.copytree(whole / name, tmp_path / "run")

    def refused(error, message):
        asked = dict(epochs=1, lr=0.5)
        with pytest.raises(error, match=message):
            if learn is not train_by: learn(model, data, out, **asked)
            else: train(model, data, out, TrainConfig(**asked, freeze_encoder=True),
                        resume=True)
        after, same = all_of(model)
        assert same == others and after.keys() == tensors.keys()
        assert all(torch.equal(after[k], tensors[k]) for k in tensors)

    refused(ValueError, "of another run")
    with FileLock(out / ".lock", timeout=0):  # which the first refusal has let go
        refused(BlockingIOError, "another training is at work")


FROM_HOME = {  # all that is given a folder: what is called, what is there then
    "save": (lambda out, data: fresh("train").save_pretrained(out), "config.json"),
    "train": (lambda out, data: LEARN["train"][1](fresh("train"), data, out),
              "checkpoint.safetensors"),
    "train_vae": (lambda out, data: LEARN["vae"][1](fresh("vae"), data, out),
                  "checkpoint.safetensors"),
    "distill": (lambda out, data: LEARN["distill"][1](fresh("distill"), data, out),
                "checkpoint.safetensors"),
}


@pytest.mark.skipif(os.name != "posix", reason="HOME is POSIX's")
@pytest.mark.parametrize("kind", FROM_HOME)
def test_a_tilde_is_your_home_as_in_a_shell(kind, data, tmp_path, monkeypatch):
    "Not a folder of this name, which somebody may try to remove: rm -r ~."
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home): folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    call, file = FROM_HOME[kind]
    call("~/my/run", data)
    assert (home / "my" / "run" / file).exists() and not list(here.iterdir())
    with pytest.raises(FileExistsError, match="is there already"):
        require_new("~/my/run")
    model = VAE if kind == "train_vae" else CosmoFlow
    for name in ("~/my/run", Path("~/my/run")):
        assert model.from_pretrained(name, "cpu").config


def test_a_decoder_that_you_froze_is_no_hindrance_to_a_student(data, tmp_path):
    teacher = fresh("distill")
    teacher.unet.requires_grad_(False)
    student = distill(teacher, data, tmp_path / "a", epochs=1, fine=1)
    assert not torch.equal(student.unet.stem.weight, teacher.unet.stem.weight)
    assert not any(weight.requires_grad for weight in teacher.unet.parameters())
    config = TrainConfig(epochs=1, freeze_encoder=True)
    with pytest.raises(ValueError, match="^model: .*found all frozen"):
        train(teacher, data, tmp_path / "b", config)
    assert not (tmp_path / "b").exists()


DEFAULTS = "double precision", "another device"


@pytest.mark.parametrize("around", DEFAULTS)
@pytest.mark.parametrize("timetable", TIMETABLES)
def test_what_the_caller_set_changes_no_map_that_is_drawn(timetable, around):
    model = randomised(timetable=timetable)
    field = torch.randn(2, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    expected = model.decode(field, seed=0)
    with AROUND[around](): found = model.decode(field, seed=0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_what_the_caller_set_changes_no_export():
    pytest.importorskip("onnxruntime")
    model = randomised()
    expected = graphs(model, (16, 16))
    for around in DEFAULTS:
        with AROUND[around](): found = graphs(model, (16, 16))
        for kind, graph in expected.items():
            same = found[kind].SerializeToString() == graph.SerializeToString()
            assert same, (around, kind)


def test_a_run_that_has_seen_more_epochs_than_asked_for_says_so(data, whole, tmp_path):
    out = shutil.copytree(whole / "vae", tmp_path / "run")
    before = kept(out)
    with pytest.raises(ValueError, match="^epochs=1: expected 2 or more, which "):
        work("vae", data, out, epochs=1)
    assert_same(kept(out), before)

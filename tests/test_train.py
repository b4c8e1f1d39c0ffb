"""Training: what a resumed run must keep, and what a checkpoint holds."""
import csv
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from conftest import COSMOFLOW, command, kill_when, randomised
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cosmoflow import CosmoFlow, demo
from cosmoflow.cli import main
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.demo import train_briefly
from cosmoflow.flow import flow_matching_loss
from cosmoflow.train import (Objective, TrainConfig, _check_environment, batch_share,
                             best_precision, check_training, ema_update, epoch_order,
                             fast_bf16, lr_factor, part_of, read_checkpoint,
                             share_statistics, sibling_loss, train,
                             validation_loss)

TINY = ["train", "--preset", "tiny", "--pixels", "32"]
ARGS = [*TINY, "--sims", "0:10", "--epochs", "4",
        "--schedule", "plateau", "--patience", "0", "--lr", "3e-3", "--ema", "0.9",
        "--batch-size", "60"]


@pytest.fixture(scope="module")
def data():
    "The first ten of the shipped simulations, with a sixteenth of their pixels."
    return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


def epochs(out):
    "The rows of a run's log; none before the first epoch."
    if not (out / "log.csv").exists(): return []
    return list(csv.DictReader((out / "log.csv").open(encoding="utf-8")))


def timeless(row): return {k: v for k, v in row.items() if k != "seconds"}


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values())
    return all(torch.equal(x, y) for x, y in pairs)


def test_killed_and_resumed_run_is_the_same_run(tmp_path):
    "Two processes are killed, this one goes on."
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    args = [*ARGS, "--resume", "--out"]
    command(*args, whole)
    for wanted in (1, 2):
        kill_when(lambda: len(epochs(cut)) >= wanted, COSMOFLOW, *args, cut)
    assert 2 <= len(epochs(cut)) < 4
    command(*args, cut)
    a, b = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    for x, y in zip(epochs(whole), epochs(cut), strict=True):
        assert timeless(x) == timeless(y)


def fresh(data):
    torch.manual_seed(0)
    return CosmoFlow.from_preset("tiny", Normalizer.fit(data.split()[0].maps))


def test_run_is_not_overwritten(tmp_path, data):
    config = TrainConfig(epochs=1, lr=1e-3)
    train(fresh(data), data, tmp_path, config)
    with pytest.raises(FileExistsError, match="resume that run"):
        train(fresh(data), data, tmp_path, config)
    assert CosmoFlow.from_pretrained(tmp_path).generate(2, steps=2).shape == (2, 16, 16)


def test_weights_without_a_checkpoint_are_not_overwritten(tmp_path, data):
    "Saved by hand, or their checkpoint was removed to save room."
    fresh(data).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(FileExistsError, match="model.safetensors is there already"):
        train(fresh(data), data, tmp_path, TrainConfig(epochs=1))
    assert weights.read_bytes() == before


def test_a_training_ends_whatever_maps_it_learned_from(tmp_path, data):
    "One map without matter once stopped the prior, after the last epoch, for good."
    first = data.split()[0].numbers[0]
    maps = np.array(data.maps)
    maps[data.maps_per_simulation * first + 1] = 0
    odd = replace(data, maps=maps)
    trained = train(fresh(odd), odd, tmp_path, TrainConfig(epochs=1, batch_size=60))
    assert trained.generate(2, steps=2, seed=0).isfinite().all()


def test_what_a_run_froze_is_free_again_and_what_you_froze_is_not(tmp_path, data):
    config = TrainConfig(epochs=1, lr=3e-3, ema=0.9, freeze_encoder=True)
    model = fresh(data)
    for network in (train(model, data, tmp_path / "a", config), model):
        assert all(weight.requires_grad for weight in network.parameters())
    model = fresh(data)
    mine = next(model.encoder.parameters()).requires_grad_(False)
    start = mine.clone()
    trained = train(model, data, tmp_path / "b", TrainConfig(epochs=1, lr=3e-3))
    assert torch.equal(mine, start) and not mine.requires_grad
    assert sum(not weight.requires_grad for weight in trained.parameters()) == 1


def test_large_maps_are_judged_a_few_at_a_time():
    "Sixty-four maps of 256 pixels through the paper's network take 15 GB."
    asked = []

    class Loader:
        device = torch.device("cpu")
        def __init__(self, side): self.maps = np.empty((70, side, side), np.float32)
        def __len__(self): return len(self.maps)
        def __call__(self, which):
            asked.append(len(which))
            return torch.zeros(len(which), 1, 2, 2)

    still = torch.nn.Module()
    still.forward = lambda x, t, x1: torch.zeros_like(x)
    for side, size, expected in [(256, None, 4), (64, None, 64), (16, None, 64),
                                 (256, 7, 7)]:
        asked.clear()
        validation_loss(still, Loader(side), torch.Generator(), size)
        assert max(asked) == expected and sum(asked) == 70


def test_a_model_that_has_been_trained_goes_on(tmp_path, data):
    "Its prior is no weight: neither a checkpoint nor earlier weights have it."
    model = train(fresh(data), data, tmp_path, TrainConfig(epochs=1, lr=1e-3))
    again = train(model, data, tmp_path, TrainConfig(epochs=1, lr=1e-3), resume=True)
    assert again.prior is not None
    assert "model.prior" not in load_file(tmp_path / "checkpoint.safetensors")


def test_loss_falls_and_maps_are_left_alone(tmp_path, data):
    before = data.maps[:20].copy()
    train(fresh(data), data, tmp_path, TrainConfig(epochs=3, lr=3e-3, batch_size=15))
    log = epochs(tmp_path)
    assert float(log[-1]["train_loss"]) < float(log[0]["train_loss"])
    assert (data.maps[:20] == before).all()


def test_plateau_halves(tmp_path, data):
    """With a rate too small to learn, the loss rests.

    `patience` checks are allowed; one more halves the rate."""
    config = TrainConfig(epochs=4, lr=1e-7, patience=1, batch_size=120, norm_epochs=0)
    train(fresh(data), data, tmp_path, config)
    rates = [float(row["lr"]) for row in epochs(tmp_path)]
    assert rates == pytest.approx([1e-7, 1e-7, 1e-7, 5e-8], abs=0)


def test_bf16_trains(tmp_path, data):
    train(fresh(data), data, tmp_path, TrainConfig(epochs=1, lr=1e-3, precision="bf16"))
    assert 0 < float(epochs(tmp_path)[0]["train_loss"]) < 3
    weights = load_file(tmp_path / "model.safetensors")
    assert all(v.dtype != torch.bfloat16 for v in weights.values())


def test_norm_epochs_fixes_the_running_statistics(tmp_path, data):
    "They stand still after their share of the epochs, while the weights go on."
    def run(out, epochs, norm_epochs):
        config = TrainConfig(epochs=epochs, lr=1e-3, norm_epochs=norm_epochs)
        return dict(train(fresh(data), data, out, config).encoder.state_dict())

    def batches(state):
        return [v.item() for k, v in state.items() if k.endswith("num_batches_tracked")]

    half = batches(run(tmp_path / "a", 2, 0.5))
    whole = batches(run(tmp_path / "b", 2, 1.0))
    assert half and {2 * n for n in half} == set(whole)
    start = fresh(data).encoder.state_dict()
    none = run(tmp_path / "c", 1, 0.0)
    stats = [k for k in none if "running" in k]
    assert stats and all(torch.equal(none[k], start[k]) for k in stats)
    assert not any(torch.equal(none[k], start[k]) for k in none if k.endswith("weight"))


def test_a_frozen_encoder_stays_to_the_last_bit(tmp_path, data):
    """Its weights and statistics stand still, in the averaged model too.

    The whole UNet learns meanwhile; a later run trains both again."""
    model = fresh(data)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    config = TrainConfig(epochs=2, lr=3e-3, ema=0.9, freeze_encoder=True)
    trained = train(model, data, tmp_path / "a", config)
    for name, weight in trained.state_dict().items():
        if name != "prior":
            assert torch.equal(weight, start[name]) == name.startswith("encoder."), name
    train(model, data, tmp_path / "b", TrainConfig(epochs=1, lr=3e-3))
    for name, weight in model.encoder.named_parameters():
        assert not torch.equal(weight, start[f"encoder.{name}"]), name


def test_a_run_with_a_frozen_encoder_goes_on(tmp_path, data):
    "Frozen weights have no moments in the checkpoint, and need none."
    config = TrainConfig(epochs=1, lr=3e-3, ema=0.9, freeze_encoder=True)
    first = train(fresh(data), data, tmp_path, config)
    again = train(fresh(data), data, tmp_path, config, resume=True)
    assert same_weights(first, again)


def test_init_starts_from_a_saved_model(tmp_path, data):
    "With a rate of nothing the model is the one it started from, normaliser included."
    train(fresh(data), data, tmp_path / "first", TrainConfig(epochs=1, lr=3e-3))
    run = [*TINY, "--init", tmp_path / "first", "--epochs", "1"]
    still = ["--sims", "0:20", "--lr", "1e-12", "--norm-epochs", "0"]
    command(*run, *still, "--out", tmp_path / "second")
    first, second = (CosmoFlow.from_pretrained(tmp_path / name)
                     for name in ("first", "second"))
    assert first.normalizer == second.normalizer
    a, b = first.state_dict(), second.state_dict()
    for k in a.keys() - {"prior"}:
        torch.testing.assert_close(a[k], b[k], atol=1e-6, rtol=0)
    frozen = ["--sims", "0:10", "--freeze-encoder", "--lr", "3e-3"]
    command(*run, *frozen, "--out", tmp_path / "third")
    c = CosmoFlow.from_pretrained(tmp_path / "third").state_dict()
    for k in a.keys() - {"prior"}:
        assert torch.equal(a[k], c[k]) == k.startswith("encoder."), k


def test_a_run_that_began_with_weights_goes_on_with_these_alone(
        tmp_path, data, capsys):
    "What a checkpoint says of `--init`, in its file and in the refusal."
    names = "first", "other"
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        model = CosmoFlow.from_preset("tiny", Normalizer.fit(data.maps))
        model.save_pretrained(tmp_path / name)
    first, other = (["--init", str(tmp_path / name)] for name in names)
    file = tmp_path / "run" / "checkpoint.safetensors"

    def go(*init):
        try:
            main([*TINY, "--sims", "0:10", "--epochs", "1", "--resume", "--out",
                  str(file.parent), *init])
        except SystemExit: return capsys.readouterr().err
        return "goes on"

    assert go(*first) == go(*first) == "goes on"
    name = "'[0-9a-f]{12}'"
    assert re.search(f"another run: init weights is {name} there and {name} here",
                     go(*other))
    assert re.search(f"init weights is {name} there and None here", go())
    with safe_open(file, "pt") as f: state = json.loads(f.metadata()["state"])
    del state["run"]["init"]  # as an older version wrote it
    save_file(load_file(file), file, {"state": json.dumps(state)})
    assert go(*other) == "goes on"


def test_objective_is_flow_matching_unless_asked():
    model, x1 = randomised(), torch.randn(6, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(6, generator=generator)
    x0 = torch.randn(x1.shape, generator=generator)
    flow, siblings = Objective(model, False)(x1, t, x0, 0)
    alone = flow_matching_loss(model, x1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(flow, alone)
    assert siblings == 0
    flow_too, siblings = Objective(model, True)(x1, t, x0, 0)
    assert flow_too == flow
    torch.testing.assert_close(siblings, sibling_loss(model.encoder(x1).mean((2, 3))))


def test_pooled_maps_see_only_their_summary():
    model, fields = randomised(), []

    def keep(module, args, field):
        field.retain_grad()
        fields.append(field)

    hook = model.encoder.register_forward_hook(keep)
    x1, x0 = torch.randn(4, 1, 64, 64), torch.randn(4, 1, 64, 64)
    t = torch.full((4,), 0.1)  # every channel is live
    flow, _ = Objective(model, False)(x1, t, x0, 2)
    flow.backward()
    hook.remove()
    field, = fields
    constant = field[:2].mean((-2, -1), keepdim=True).expand(-1, -1, 4, 4)
    pooled = torch.cat([constant, field[2:]])
    velocity = lambda x, t, x1: model.velocity(x, t, pooled)
    with torch.no_grad(): apart = flow_matching_loss(velocity, x1, t=t, x0=x0)
    torch.testing.assert_close(flow, apart, rtol=1e-5, atol=0)
    spread = field.grad.std((-2, -1)) / field.grad.abs().mean((-2, -1))
    # Through the mean, every pixel weighs the same.
    assert spread[:2].max() < 1e-4 < 1e-2 < spread[2:].min()


def test_sibling_loss_against_a_loop():
    g = torch.Generator().manual_seed(0)
    s = torch.randn(10, 3, dtype=torch.float64, generator=g).float()
    a, b = s[0::2], s[1::2]
    loss = 0.0
    for one, other in ((a, b), (b, a)):
        for i in range(5):
            distance = [((one[i] - other[j]) ** 2).sum() for j in range(5)]
            near = torch.exp(-torch.stack(distance))
            loss -= (near[i] / near.sum()).log() / 10
    torch.testing.assert_close(sibling_loss(s), loss, rtol=1e-5, atol=0)


def test_siblings_learn_the_cosmology(tmp_path, data):
    "Training with siblings lets summaries tell held-out simulations apart."
    everything = open_maps("PM", "LH", sims=slice(0, 40), pixels=32)
    held_out = everything.split()[2]
    unseen = torch.arange(len(held_out)).reshape(4, 15)[:, :14].reshape(4, 7, 2)
    pairs = [unseen[:, i].flatten().numpy() for i in range(7)]

    def question(model):
        losses = [sibling_loss(model.summarise(held_out.maps[pair])) for pair in pairs]
        return sum(loss.item() for loss in losses) / 7

    before = question(fresh(everything).eval())
    config = TrainConfig(epochs=4, lr=3e-3, batch_size=32, siblings=1.0)
    model = train(fresh(everything), everything, tmp_path, config)
    assert question(model) < before - 0.1
    log = [float(e["siblings_loss"]) for e in epochs(tmp_path)]
    assert log[-1] < log[0] - 0.1
    with pytest.raises(ValueError, match="even number of maps"):
        config = TrainConfig(batch_size=15, siblings=1.0)
        train(fresh(data), data, tmp_path / "odd", config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_trains_on_gpu_from_a_model_with_a_prior(tmp_path, data):
    model = fresh(data).fit_prior(data.maps[:30])
    config = TrainConfig(epochs=1, lr=1e-3, precision="bf16", siblings=0.1)
    train(model, data, tmp_path, config)
    assert CosmoFlow.from_pretrained(tmp_path).generate(2, steps=2).shape == (2, 16, 16)


def test_checks_of_every_second_epoch_change_nothing_and_resume(
        tmp_path, data, monkeypatch):
    settings, checks = dict(epochs=5, lr=3e-3, batch_size=60, ema=0.9), []

    def killed_at_the_second(*args):
        checks.append(args)
        if len(checks) == 2: raise KeyboardInterrupt
        return validation_loss(*args)

    each_epoch = TrainConfig(**settings)
    every_second = TrainConfig(check_every=2, **settings)
    train(fresh(data), data, tmp_path / "each", each_epoch)
    monkeypatch.setattr("cosmoflow.train.validation_loss", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(data), data, tmp_path / "second", every_second)
    assert [row["epoch"] for row in epochs(tmp_path / "second")] == ["2"]
    monkeypatch.undo()
    train(fresh(data), data, tmp_path / "second", every_second, resume=True)
    each, second = epochs(tmp_path / "each"), epochs(tmp_path / "second")
    assert [row["epoch"] for row in second] == ["2", "4", "5"]
    checked = [each[i]["val_loss"] for i in (1, 3, 4)]
    assert [row["val_loss"] for row in second] == checked
    mean = (float(each[2]["train_loss"]) + float(each[3]["train_loss"])) / 2
    assert float(second[1]["train_loss"]) == pytest.approx(mean)
    a, b = (load_file(tmp_path / name / "model.safetensors")
            for name in ("each", "second"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_epoch_takes_every_map_once():
    order = epoch_order(150, False, torch.Generator())
    assert sorted(order.tolist()) == list(range(150))


def test_the_rate_rises_from_a_fiftieth_and_falls_to_nothing():
    factors = [lr_factor(i, 1000) for i in range(1000)]
    assert max(factors) == 1 and factors[0] == 1 / 50 and factors[-1] < 1e-5


def test_an_average_follows_weights_and_takes_over_what_is_counted():
    a, b = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(b.weight, 3.0)
    b.num_batches_tracked += 5
    ema_update(a, b, 0.75)
    assert a.weight.tolist() == [1.5, 1.5] and a.num_batches_tracked == 5


@pytest.mark.parametrize(("name", "value"), [
    ("schedule", "linear"),
    ("epochs", 0),
    ("check_every", 0),
    ("pooled", 1.5),
    ("lr", 0),
    ("clip", 0),
])
def test_a_setting_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        TrainConfig(**{name: value})
    TrainConfig(clip=float("inf"))  # gradients as they are


def test_the_demo_draws_weights_from_its_seed_alone(data, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "train", lambda model, *_: model)
    torch.manual_seed(3)
    normalizer = Normalizer.fit(data.split()[0].maps)
    expected = CosmoFlow.from_preset("mini", normalizer)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = demo.train_briefly(data, tmp_path, TrainConfig(seed=3))
    assert same_weights(found, expected)
    assert torch.equal(torch.get_rng_state(), before)


LAUNCH = [COSMOFLOW.with_name("accelerate"), "launch", "--multi_gpu",
          "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
          "--dynamo_backend", "no", "--main_process_port", "0"]


def same_losses(one, two):
    "Of one process and of two, whose batches together are as large."
    losses = lambda log, name: [row[name] for row in log]
    # Sums in another order: there really were two processes.
    assert losses(one, "train_loss") != losses(two, "train_loss")
    for name in ("train_loss", "val_loss"):
        expected = pytest.approx([float(loss) for loss in losses(one, name)], rel=1e-4)
        assert [float(loss) for loss in losses(two, name)] == expected, name


def same_schedule_and_model(first, second):
    "What both processes saw: equal rates, weights, statistics and files."
    assert first["weights"] == second["weights"] and "prior" in first["weights"]
    assert first["rates"] == second["rates"]
    assert len(first["rates"]) == 30 and len(set(first["rates"])) > 1
    pooled = [a + b for a, b in zip(first["pooled"], second["pooled"], strict=True)]
    assert pooled == 30 * [3]  # 0.12 of 24; a process alone would round 1.44 to 1
    assert first["files"] == second["files"]
    assert "model.safetensors" in first["files"]


def test_two_processes_train_as_one_and_agree(tmp_path):
    """`accelerate launch` of two on the CPU, which train twice.

    First as one process does with the summed batch. Batch statistics are fixed: each
    process would count them for itself. Then by the paper's schedule, which acts, with
    statistics that move, then rest, and as many maps are pooled as by one."""
    run = [*TINY, "--sims", "0:10", "--epochs", "2", "--batch-size", "40",
           "--norm-epochs", "0", "--pooled", "0.075", "--out"]
    command(*run, tmp_path / "one")
    script = Path(__file__).with_name("two_processes.py")
    call = [script, tmp_path / "run", tmp_path, *run, tmp_path / "two"]
    on_cpu = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*LAUNCH, *call], env=on_cpu, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    same_losses(*(epochs(tmp_path / name) for name in ("one", "two")))
    same_schedule_and_model(*(
        json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        for rank in (0, 1)))


@pytest.mark.parametrize(("batch", "n", "ranks", "pairs"), [
    (32, 4800, 3, False),
    (32, 30, 2, False),
    (30, 4800, 2, True),
    (15, 4800, 1, True),
])
def test_a_batch_that_processes_cannot_share_is_refused(batch, n, ranks, pairs):
    with pytest.raises(ValueError, match=f"^batch_size={batch}: expected"):
        batch_share(batch, n, ranks, 0, pairs)


def test_shares_make_up_the_batch():
    whole = list(range(24))
    for ranks in (1, 2, 4):
        shares = [whole[batch_share(24, 96, ranks, rank, True)]
                  for rank in range(ranks)]
        assert sum(shares, []) == whole
    assert whole[batch_share(64, 24, 1, 0, False)] == whole


class Elsewhere:
    "Another process, in which all is 2."
    num_processes = 2

    def reduce(self, values, how): return (values + 2) / 2 if how == "mean" else None


def test_statistics_become_the_mean_of_all_processes():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2),
                              torch.nn.BatchNorm2d(3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    share_statistics(net, Elsewhere())
    for name, value in net.state_dict().items():
        shared = (before[name] + 2) / 2 if "running" in name else before[name]
        assert torch.equal(value, shared), name


UNITS = [({}, False), ({"avx512_f": True, "avx512_bf16": False}, False),
         ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True),
         ({"bf16": True}, True)]


@pytest.mark.parametrize("units, fast", UNITS)
def test_a_processor_without_the_units_does_not_emulate_them(units, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert fast_bf16(torch.device("cpu")) is fast


GPUS = {(6, 1): "no", (7, 0): "fp16", (7, 5): "fp16", (8, 0): "bf16", (9, 0): "bf16"}


@pytest.mark.parametrize("capability", GPUS)
def test_precision_that_suits_the_gpu(capability, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert best_precision(torch.device("cuda")) == GPUS[capability]


def test_precision_of_what_is_no_gpu_of_nvidia(monkeypatch):
    assert best_precision(torch.device("mps")) == "no"
    for fast, name in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr("cosmoflow.train.fast_bf16", lambda device, fast=fast: fast)
        assert best_precision(torch.device("cpu")) == name


@pytest.fixture(scope="module")
def small(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


def test_auto_takes_the_best_precision(tmp_path, small, monkeypatch):
    "A run with the precision that the device asks for is the run that names it."
    for precision in ("no", "bf16"):
        best = lambda device, precision=precision: precision
        monkeypatch.setattr("cosmoflow.train.best_precision", best)
        named, auto = (
            train(fresh(small), small, tmp_path / precision / name,
                  TrainConfig(epochs=1, lr=1e-3, precision=name))
            for name in (precision, "auto"))
        assert same_weights(named, auto)


STATES = PartialState, AcceleratorState, GradientState


def all_of_accelerate(): return [dict(state._shared_state) for state in STATES]


def test_the_callers_accelerator_stays_as_it_is(tmp_path, small):
    before = all_of_accelerate()
    mine = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=4)
    config = TrainConfig(epochs=1, lr=1e-3)
    try:
        with_mine = all_of_accelerate()
        here = train(fresh(small), small, tmp_path / "a", config)
        assert mine.mixed_precision == "bf16"
        assert mine.gradient_accumulation_steps == 4
        assert all_of_accelerate() == with_mine
        with pytest.raises(FileExistsError):
            train(fresh(small), small, tmp_path / "a", config)
        assert all_of_accelerate() == with_mine
    finally:
        for state, was in zip(STATES, before):
            state._shared_state.clear()
            state._shared_state.update(was)
    alone = train(fresh(small), small, tmp_path / "b", config)
    assert same_weights(here, alone)
    assert all_of_accelerate() == before


LAUNCHED = {  # settings of the launcher that a run refuses
    "GRADIENT_ACCUMULATION_STEPS": "4",
    "MIXED_PRECISION": "bf16",
    "DYNAMO_BACKEND": "INDUCTOR",
    "USE_FSDP": "true",
    "USE_DEEPSPEED": "true",
    "USE_MEGATRON_LM": "true",
    "USE_PARALLELISM_CONFIG": "true",
}
HARMLESS = {  # the values that agree with a run in fp16; of all others, false
    "GRADIENT_ACCUMULATION_STEPS": ["1"],
    "MIXED_PRECISION": ["no", "fp16"],
    "DYNAMO_BACKEND": ["NO", "no"],
}


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_setting_of_the_launcher_is_refused_by_name(
        name, tmp_path, small, monkeypatch):
    "What would change the run, or be ignored; settings that agree go through."
    monkeypatch.setenv(f"ACCELERATE_{name}", LAUNCHED[name])
    message = f"^ACCELERATE_{name}={LAUNCHED[name]}: expected .* leave it out"
    with pytest.raises(ValueError, match=message):
        train(fresh(small), small, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for harmless in HARMLESS.get(name, ["false"]):
        monkeypatch.setenv(f"ACCELERATE_{name}", harmless)
        _check_environment("fp16")


def test_a_second_demo_replaces_the_first(tmp_path, data):
    config = TrainConfig(epochs=1, lr=1e-3, batch_size=60)
    for seed in (0, 1):
        train_briefly(data, tmp_path, replace(config, seed=seed))
    state = read_checkpoint(tmp_path / "checkpoint.safetensors")[0]
    assert state["run"]["settings"]["seed"] == 1


def test_settings_are_a_config(tmp_path, data):
    with pytest.raises(ValueError, match="^config: expected a TrainConfig, found dict"):
        train(fresh(data), data, tmp_path / "new", {"epochs": 1})
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="batch_size=2: expected an even number of ma"):
        TrainConfig(batch_size=2, siblings=0.1)  # one pair has no other to choose from


def test_part_of_a_batch_is_a_map_at_least():
    assert [part_of(0.1, n) for n in (32, 20, 4, 1)] == [3, 2, 1, 1]
    assert part_of(0, 32) == part_of(0.0, 1) == 0 and part_of(1, 7) == 7


@pytest.mark.parametrize("batch, ranks", [(1, 1), (2, 2)])
def test_a_step_without_scatter_is_refused_in_our_words(
        batch, ranks, tmp_path, data, monkeypatch):
    "At 16 pixels a field is one cell, and BatchNorm sees one number a channel."
    few = data.simulations(maps=[0])
    single = TrainConfig(epochs=1, batch_size=batch)
    still = replace(single, norm_epochs=0), replace(single, freeze_encoder=True)
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    with pytest.raises(ValueError, match=f"^batch_size={batch}: .*BatchNorm.*norm_epo"):
        check_training(single, few)
    for config in still: check_training(config, few)
    check_training(single, open_maps("PM", "LH", sims=slice(0, 10), pixels=32))
    monkeypatch.undo()
    if ranks > 1: return
    for i, config in enumerate(still): train(fresh(few), few, tmp_path / str(i), config)


def test_a_precision_that_the_cpu_would_not_keep_is_refused(data, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(ValueError, match="^precision='fp16': expected no, bf16 or"):
        check_training(TrainConfig(precision="fp16"), data)

"""The benchmark times what it says it times, in turns, and its record is whole."""
import json
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cosmoflow.bench import (Timing, Traffic, Way, bench, ladder, network_flops,
                             network_jobs, race, step_traffic, time_decoding,
                             timing_table, untrained)
from cosmoflow.flow import flow_matching_loss
from cosmoflow.results import shown
from cosmoflow.spectra import spectrum_error

CPU = torch.device("cpu")


def test_ways_run_in_turns():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    timings = race("job", "size", ways, items=2, rounds=3)
    assert calls == ["a", "b"] * 4
    assert [t.way for t in timings] == ["a", "b"]
    assert timings[0].ratio == 1 and all(t.seconds > 0 for t in timings)


def test_a_race_tells_the_middle_of_its_rounds_without_the_warm_up(monkeypatch):
    taken = {"a": [1.0, 2, 4, 6, 8, 10], "b": [100.0, 1, 1, 2, 4, 10]}
    monkeypatch.setattr("cosmoflow.bench.seconds",
                        lambda call, device: taken[call()].pop(0))
    ways = {name: lambda name=name: name for name in taken}
    a, b = race("job", "size", ways, items=2)
    assert (a.seconds, a.spread, a.ratio) == (3, 1, 1)  # quartiles at 2 and 4
    assert (b.seconds, b.spread, b.ratio) == (1, 0.75, 2)  # ratios 2, 4, 3, 2, 1
    _, *rows = timing_table([a, b]).splitlines()
    assert [" ".join(row.split()) for row in rows] == [
        "a 3000.00 ms +- 1000.00 1.00 x", "b 1000.00 ms +- 750.00 2.00 x"]


def test_one_round_has_no_spread():
    "A scatter of 0.00 would be a claim."
    ways = {name: lambda: sum(range(1000)) for name in ("a", "b")}
    one, three = (timing_table(race("job", "size", ways, 1, n)) for n in (1, 3))
    assert "+-" not in one and three.count("+-") == 2
    places = [[line.index(" x") for line in table.splitlines()[1:]]
              for table in (one, three)]
    assert places[0] == places[1]  # columns stay where they are


def test_notes_of_decoding_tell_evaluations_and_how_good_the_spectrum_is(monkeypatch):
    "Two ways that are known: three steps of the midpoint rule, and the one step."
    made = {}

    def ways(model, fast, field, seed, tol):
        calls = {"plain": lambda: model.decode(field, 3, "midpoint", seed=seed),
                 "distilled": lambda: fast.decode(field, seed=seed)}
        made.update({name: call() for name, call in calls.items()})
        made["best"] = model.decode(field, 64, seed=seed)
        return calls

    monkeypatch.setattr("cosmoflow.bench.decoding_ways", ways)
    for timing, count in zip(time_decoding(64, CPU, 3), (6, 1), strict=True):
        off = 100 * spectrum_error(made[timing.way], made["best"])
        said = f"{count} evaluations, spectrum within {off:.2g} % to 0.8 of Nyquist"
        assert timing.note == said


def test_rungs_add_one_improvement_each():
    rungs = list(ladder(["mask_at_once", "channels_last"]).values())
    both = Way(mask_at_once=True, channels_last=True)
    assert rungs == [Way(), Way(mask_at_once=True), both]


def test_a_timed_training_step_trains():
    jobs = dict(network_jobs(32, 2, CPU, ("training step",), False, "tiny", 0))
    step = jobs["training step"]["+ fused optimiser"]
    held = [cell.cell_contents for cell in step.__closure__]
    (model,) = [part for part in held if isinstance(part, torch.nn.Module)]
    before = [p.detach().clone() for p in model.parameters()]
    step()
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_flops_of_the_paper_s_networks():
    at64, at128 = network_flops(64), network_flops(128)
    assert 10 < at64["UNet"] < 13.3 and 0.5 < at64["encoder"] < 0.7  # published: 13.3
    # Convolutions grow with the number of pixels, attention with its square.
    assert 4.1 < at128["UNet"] / at64["UNet"] < 4.2


def test_a_training_step_takes_thrice_the_flops_of_a_forward_pass():
    "But for the gradient of the maps themselves, which nobody asks for."
    model, counter = untrained("tiny", CPU), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        flow_matching_loss(model, torch.randn(2, 1, 64, 64)).backward()
    told = network_flops(64, "tiny")["training step"]
    assert 0.95 < counter.get_total_flops() / 2e9 / told <= 1


def test_traffic_of_a_batch_is_that_of_all_its_maps():
    model, x = untrained("tiny", CPU), torch.randn(3, 1, 32, 32)
    with Traffic() as counted: flow_matching_loss(model, x).backward()
    model.zero_grad()
    found = step_traffic(model, 32, half=False, joined=False, batch=3)
    for name, moved in counted.bytes.items():
        assert 3e6 * found[name] == pytest.approx(moved), name


def test_record(tmp_path, capsys):
    jobs = ["velocity", "padding", "power spectra"]
    path = bench(tmp_path, (64,), rounds=1, batch=1, jobs=tuple(jobs), preset="tiny",
                 device=CPU)
    printed = capsys.readouterr().out
    record = json.loads(path.read_text(encoding="utf-8"))
    timings = [Timing(**t) for t in record["timings"]]
    first_ways = "plain", "torch's gradient", "ring by ring"
    plain = [t for t in timings if t.way in first_ways]
    assert [t.job for t in plain] == jobs and all(t.ratio == 1 for t in plain)
    assert timing_table(timings[-2:]) in printed
    assert record["rates"]["float32"] > 0 and "64" in record["gflop"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("change, message", [
    (dict(pixels=(96,)), "multiples of 64"),
    (dict(rounds=0), "rounds=0"),
    (dict(jobs=("sleep",)), "sleep not known: expected some of training step"),
    (dict(jobs=("decoding",), compiled=True), "compiled=True: expected some of"),
    (dict(jobs=("decoding",), batch=32), "batch=32: .* training step, .*, padding$"),
    (dict(jobs=("batches",), particles=128), "particles=128: .* use it: simulation$"),
    (dict(batch=0), "batch=0: expected a whole number"),
    (dict(particles=0), "particles=0: expected 4 or more"),
])
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message): bench(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_told_before_the_first_job(tmp_path, monkeypatch):
    def computed(*_): raise AssertionError("computed")
    monkeypatch.setattr("cosmoflow.bench.machine_rates", computed)
    monkeypatch.setattr("cosmoflow.bench.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"cosmoflow\[sim\].*other jobs: velocity$"):
        bench(tmp_path / "out", (64,), jobs=("velocity", "simulation"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(AssertionError, match="computed"):
        bench(tmp_path, (64,), jobs=("velocity",))


def test_a_single_simulation_has_no_error_bar():
    "The error of its mean is not a number, and nothing to be printed."
    assert shown(0.123456, math.nan) == shown(0.123456) == "0.123"
    assert shown(0.123456, 0.012) == "0.123 ± 0.012"


def test_what_a_step_moves_does_not_depend_on_gradients_that_are_there():
    model = untrained("tiny", torch.device("cpu"))
    moved = step_traffic(model, 32, half=False, joined=False, batch=4)
    assert all(weight.grad is None for weight in model.parameters())
    for weight in model.parameters(): weight.grad = torch.ones_like(weight)
    assert step_traffic(model, 32, half=False, joined=False, batch=4) == moved
    assert all((weight.grad == 1).all() for weight in model.parameters())

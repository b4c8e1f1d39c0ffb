"""Timetables: when each channel is live, when each wave moves, and who must know."""
import csv
import math
from copy import deepcopy

import pytest
import torch
from conftest import randomised

from cosmoflow import CosmoFlow
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.distill import distill
from cosmoflow.flow import (TIMETABLES, Bands, Timetable, channel_mask,
                            flow_matching_loss, integrate, straight_path, wave_bands)
from cosmoflow.train import Objective, TrainConfig, train

NORM = Normalizer(11.0, 0.5, 1e8)
TIMES = torch.tensor([0.0, 0.06, 0.0625, 0.3, 0.43, 0.4375, 0.6, 0.99, 1.0])


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0): return torch.randn(shape, generator=seeded(seed))


def test_the_default_is_the_paper_s_to_the_last_bit():
    "Mask, velocity and loss as they were before there were other timetables."
    model, x1, x0, t = randomised(), draw(3, 1, 32, 32), draw(3, 1, 32, 32), TIMES[1:4]
    assert model.timetable == Timetable("fading", 8)
    assert torch.equal(model.timetable.mask(TIMES, seeded()), channel_mask(TIMES, 8))
    field, s = draw(3, 8, 2, 2), t[:, None, None, None]
    with torch.no_grad():
        expected = model.unet(x0, t, field * channel_mask(t, 8))
        assert torch.equal(model.velocity(x0, t, field), expected)
        found = flow_matching_loss(model, x1, t=t, x0=x0)
        velocity = model((1 - s) * x0 + s * x1, t, x1)
    assert torch.equal(found, (velocity - (x1 - x0)).square().mean())


def test_files_that_do_not_say_are_the_paper_s(tmp_path):
    shipped = CosmoFlow.from_pretrained("mini", device="cpu")
    assert shipped.config["timetable"] == "fading"
    model = CosmoFlow.from_preset("tiny", NORM, timetable="nested")
    model.save_pretrained(tmp_path)
    assert CosmoFlow.from_pretrained(tmp_path).timetable == Timetable("nested", 8)


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_masks_by_hand(channels):
    live = {
        "fading": lambda c, t: c < max(1, channels - math.floor(channels * t)),
        "waking": lambda c, t: c <= channels * t,
        "nested": lambda c, t: True,
        "open": lambda c, t: True,
        "bands": lambda c, t: c == min(channels - 1, math.floor(2 * channels * t))}
    assert set(live) == set(TIMETABLES)
    for name, rule in live.items():
        mask = Timetable(name, channels).mask(TIMES)
        assert mask.shape == (len(TIMES), channels, 1, 1)
        for t, row in zip(TIMES.tolist(), mask[:, :, 0, 0] == 1):
            assert row.tolist() == [rule(c, t) for c in range(channels)], (name, t)


def test_nested_shows_every_number_of_channels_equally_often():
    "In training. At all times alike, and the first ones always."
    t, nested = torch.rand(8000, generator=seeded(1)), Timetable("nested", 5)
    live = nested.mask(t, seeded())[:, :, 0, 0]
    assert torch.equal(live, nested.mask(t, seeded())[:, :, 0, 0])
    assert (live.diff(dim=1) <= 0).all()
    for some in (t < 0.5, t >= 0.5):
        share = live[some].sum(1).int().bincount(minlength=6)[1:] / some.sum()
        assert (share - 0.2).abs().max() < 0.03


@pytest.mark.parametrize("shape, channels", [((64, 64), 8), ((32, 48), 3)])
def test_a_band_has_a_wave_for_each_cell(shape, channels):
    bands = wave_bands((2, 1, *shape), channels)
    cells, (height, width) = shape[0] * shape[1] / 256, shape
    for i in range(height):
        for j in range(width // 2 + 1):
            f = math.hypot(min(i, height - i) / height, j / width)
            band = min(channels - 1, math.floor(math.pi * (16 * f) ** 2))
            assert bands[i, j] == band
    twice = bands[:, 1:-1]
    counts = bands.flatten().bincount() + twice.flatten().bincount()
    assert counts.sum() == height * width
    assert (counts[:-1].float().mean() - cells).abs() < 0.1 * cells


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("name", TIMETABLES)
def test_velocity_is_the_derivative_of_a_path_from_noise_to_map(name, channels):
    path, h = Timetable(name, channels).path, 1e-6
    x0, x1 = draw(2, 1, 32, 48).double(), draw(2, 1, 32, 48, seed=1).double()
    at = lambda t: torch.full((2,), t, dtype=torch.double)
    torch.testing.assert_close(path(x0, x1, at(0.0))[0], x0)
    torch.testing.assert_close(path(x0, x1, at(1.0))[0], x1)
    for t in (0.03, 0.1, 0.47, 0.8):
        before, after = path(x0, x1, at(t - h))[0], path(x0, x1, at(t + h))[0]
        slope = (after - before) / (2 * h)
        torch.testing.assert_close(path(x0, x1, at(t))[1], slope, atol=1e-5, rtol=1e-5)
    if name != "bands":
        assert torch.equal(path(x0, x1, at(0.3))[0], straight_path(x0, x1, at(0.3))[0])


def test_the_loss_follows_the_path_of_its_model():
    "A network that knows the whole way has no loss, whatever the timetable."
    x1, x0, t = draw(6, 1, 32, 32), draw(6, 1, 32, 32, seed=1), TIMES[1:7]
    for name in TIMETABLES:
        model = CosmoFlow.from_preset("tiny", NORM, timetable=name)
        model.unet.register_forward_hook(lambda *_: x1 - x0)
        flow, _ = Objective(model, siblings=False)(x1, t, x0, 0)
        for loss in (flow, flow_matching_loss(model, x1, t=t, x0=x0)):
            assert loss < 1e-6, name


def decoded(model, field, **kwargs):
    "Waves of normalised maps, from one noise."
    return torch.fft.rfft2(NORM(model.decode(field, seed=0, **kwargs))[:, 0])


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_channel_never_moves_a_coarser_band(solver):
    "By construction: these weights are random. With all channels live it moves all."
    model, field = randomised(timetable="bands"), draw(2, 8, 2, 2)
    free = randomised(timetable="open")
    bands = wave_bands((32, 32), 8)
    plain, free_plain = decoded(model, field, solver=solver), decoded(free, field)
    for channel in (1, 6, 7):  # at 32 pixels some bands have no wave
        changed = field.clone()
        changed[:, channel] = draw(2, 2, 2, seed=1)
        moved = (decoded(model, changed, solver=solver) - plain).abs()
        scale = plain.abs().max()
        assert moved[:, bands < channel].max() < 1e-5 * scale
        assert moved[:, bands == channel].max() > 1e-4 * scale
        moved = (decoded(free, changed) - free_plain).abs()
        assert moved[:, bands < channel].max() > 1e-4 * free_plain.abs().max()


def test_bands_ask_for_steps_that_fit():
    x0, x1 = draw(2, 1, 32, 32), draw(2, 1, 32, 32, seed=1)
    for channels, steps in ((8, 16), (3, 6), (3, 42), (8, 48)):
        times = Timetable("bands", channels)
        for solver in ("euler", "midpoint"):
            times.check_sampling(steps, solver)
            velocity = lambda t, x: times.velocity(x1 - x0, t[None])
            found = integrate(velocity, x0, steps, solver)
            torch.testing.assert_close(found, x1, atol=1e-4, rtol=1e-4)
    model = CosmoFlow.from_preset("tiny", NORM, timetable="bands")
    assert model.config["steps"] == 16
    assert CosmoFlow(NORM, 3, 8, 8, 1, steps=7, timetable="bands").config["steps"] == 12
    with pytest.raises(ValueError, match="steps=8: expected a multiple of 16"):
        model.decode(draw(1, 8, 1, 1), steps=8)
    for solver in ("heun", "dopri5"):
        with pytest.raises(ValueError, match=f"solver='{solver}': expected euler or"):
            model.decode(draw(1, 8, 1, 1), solver=solver)
        with pytest.raises(ValueError, match=f"solver='{solver}': expected euler or"):
            CosmoFlow(NORM, solver=solver, timetable="bands")


@pytest.mark.parametrize("parts, early, windows", [
    ((1, 1, 1, 1, 1, 1, 1, 9), 0, [*((c, c + 1) for c in range(7)), (7, 16)]),
    ((2, 2, 2, 18), 1, [(0, 2), (1, 4), (3, 6), (5, 24)]),
    ((4, 3, 9), 2, [(0, 4), (2, 7), (5, 16)])])
def test_bands_may_have_other_times(parts, early, windows):
    "Each band moves in its window, and its channel is live then."
    times = Bands(channels=len(parts), parts=parts, early=early)
    t, total = TIMES.double(), sum(parts)
    progress, speed = times.progress(t), times.speed(t)
    for now, came, moves in zip((total * t).tolist(), progress, speed):
        for c, (begin, end) in enumerate(windows):
            live = begin <= now < end or now == end == total
            share = (min(max(now, begin), end) - begin) / (end - begin)
            assert came[c].item() == pytest.approx(share)
            assert moves[c].item() == pytest.approx(live * total / (end - begin))
    assert torch.equal(times.mask(t)[:, :, 0, 0], (speed > 0).double())
    x0, x1 = draw(2, 1, 32, 32).double(), draw(2, 1, 32, 32, seed=1).double()
    assert times.whole_steps(total - 1) == total
    for solver in ("euler", "midpoint"):
        times.check_sampling(total, solver)
        velocity = lambda t, x: times.velocity(x1 - x0, t[None])
        torch.testing.assert_close(integrate(velocity, x0, total, solver), x1)
    with pytest.raises(ValueError, match=f"expected a multiple of {total} with"):
        times.check_sampling(total + 1, "euler")


def test_the_name_picks_the_class():
    "And the same times, told one by one, give the same to the last bit."
    named, told = Timetable("bands", 5), Bands(channels=5, parts=(1, 1, 1, 1, 6))
    assert type(named) is Bands and named == Bands(channels=5) == deepcopy(named)
    assert type(Timetable("open", 5)) is Timetable
    t, x0, x1 = TIMES[:4], draw(4, 1, 32, 32), draw(4, 1, 32, 32, seed=1)
    assert torch.equal(named.mask(t), told.mask(t))
    for ours, theirs in zip(named.path(x0, x1, t), told.path(x0, x1, t)):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match=r"parts=\(1, 2\): expected 5 of them"):
        Bands(channels=5, parts=(1, 2))
    for wrong in (dict(name="open"), dict(parts=(0, 2)), dict(parts=(-1, 2)),
                  dict(parts=(0.5, 2)), dict(early=-1), dict(early=0.5)):
        with pytest.raises(ValueError, match="expected"):
            Bands(**{"channels": 2} | wrong)


@pytest.fixture(scope="module")
def data(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


@pytest.mark.parametrize("name", ["nested", "bands"])
def test_training_shows_what_the_timetable_says(name, data, tmp_path):
    "What the UNet sees in each step. A run goes on only with its own timetable."
    def run(timetable=name, resume=False):
        torch.manual_seed(0)
        model = CosmoFlow.from_preset("tiny", NORM, timetable=timetable)
        seen = []

        def looked(unet, inputs):
            if torch.is_grad_enabled():
                seen.append((inputs[1], (inputs[2] != 0).any(3).any(2)))

        model.unet.register_forward_pre_hook(looked)
        config = TrainConfig(epochs=2, batch_size=28, lr=1e-3, norm_epochs=0)
        train(model, data, tmp_path, config, resume)
        return [torch.cat(part) for part in zip(*seen)]

    t, live = run()
    if name == "nested":
        assert (live.int().diff(dim=1) <= 0).all()
        assert sorted(set(live.sum(1).tolist())) == list(range(1, 9))
    else:
        assert torch.equal(live, Timetable("bands").mask(t)[:, :, 0, 0] == 1)
    with open(tmp_path / "log.csv", encoding="utf-8") as log:
        assert all(math.isfinite(float(row["val_loss"])) for row in csv.DictReader(log))
    with pytest.raises(ValueError, match=f"model timetable is '{name}' there and 'fad"):
        run("fading", resume=True)


@pytest.mark.parametrize("name, message", [
    ("waking", "steps=1: .* a channel wakes within a step.* expected a multiple of 8"),
    ("bands", "steps=1: expected a multiple of 16")])
def test_a_student_must_see_all_that_it_needs(name, message, data, tmp_path):
    model = CosmoFlow.from_preset("tiny", NORM, timetable=name)
    with pytest.raises(ValueError, match=message): distill(model, data, tmp_path / "no")
    assert not (tmp_path / "no").exists()

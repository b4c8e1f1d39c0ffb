"""Points: counts as by hand, noise that is noise, a network that keeps its rules."""
import csv
import json
import math
from copy import deepcopy
from functools import partial
from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from far import FAR, far_device
from safetensors.numpy import load_file, save_file
from scipy.spatial import cKDTree
from scipy.stats import kstest
from test_door import doors
from torch import Tensor

from cosmoflow import points as module
from cosmoflow.data import MapData, deal_simulations
from cosmoflow.points import (BOX, PARTICLES, RANKS, PointData, PointFlow, PointLayer,
                              couple, look_around, nearest_image, neighbours,
                              open_points, pair_counts, point_loss, simulate_points,
                              spread_summaries, train_points, train_step, walk,
                              wavevectors)

DICE = torch.Generator().manual_seed(0)
POINTS = BOX * torch.rand(2, 150, 3, generator=DICE)
U = torch.tensor([0.3, 0.8])
WAVES = wavevectors(3)


@pytest.fixture(scope="module")
def model():
    "Small, and told something: fresh weights ignore what they are told."
    torch.manual_seed(0)
    model = PointFlow(channels=4, width=12, charges=6, layers=2, reach=3)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        torch.nn.init.normal_(layer.film.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def data(): return open_points()


def every_way(points):
    "All differences of points, by trying all 27 images of the box."
    shifts = BOX * torch.tensor(list(product((-1, 0, 1), repeat=3)))
    ways = points[:, None, :, None] - points[:, :, None, None] + shifts
    nearest = ways.square().sum(-1).argmin(-1)[..., None, None].expand(-1, -1, -1, 1, 3)
    return ways.gather(3, nearest)[:, :, :, 0]


def test_the_nearest_image_is_the_nearest_of_27():
    few = POINTS[:, :30]
    ways = nearest_image(few[:, None] - few[:, :, None])
    torch.testing.assert_close(ways.norm(dim=-1), every_way(few).norm(dim=-1))
    assert (ways.abs() <= BOX / 2).all()


def test_pairs_are_counted_as_by_hand():
    edges = torch.tensor([0.5, 2, 5, 12])
    r = every_way(POINTS).norm(dim=-1)
    bins = zip(edges, edges[1:])
    found = torch.stack([((r > a) & (r <= b)).sum((1, 2)) for a, b in bins])
    shell = 4 / 3 * math.pi * (edges[1:] ** 3 - edges[:-1] ** 3) / BOX**3
    expected = found.T / (150 * 149 * shell)
    torch.testing.assert_close(pair_counts(POINTS, edges).float(), expected)
    moved = (POINTS + torch.tensor([20.0, 3, 11])) % BOX
    torch.testing.assert_close(pair_counts(moved, edges), pair_counts(POINTS, edges),
                               rtol=2e-3, atol=0)


def test_random_points_have_as_many_pairs_as_random_points():
    many = BOX * torch.rand(60, 200, 3, generator=torch.Generator().manual_seed(1))
    counted = pair_counts(many, torch.tensor([1.0, 3, 6, 12.5]))
    error = counted.std(0) / len(many) ** 0.5
    assert ((counted.mean(0) - 1).abs() < 4 * error).all() and (error < 0.03).all()


@pytest.mark.parametrize("edges", ([0.0, 1], [1, 13], [5, 1]))
def test_distances_beyond_half_the_box_are_refused(edges):
    with pytest.raises(ValueError, match="edges: expected distances above 0"):
        pair_counts(POINTS, torch.tensor(edges))


@pytest.mark.parametrize("kind", (np.asarray, Tensor.double, Tensor.requires_grad_))
def test_any_array_is_the_plain_array(kind, model):
    edges = torch.tensor([0.5, 2, 5])
    given = kind(POINTS.clone())
    torch.testing.assert_close(pair_counts(given, edges), pair_counts(POINTS, edges))
    for ask in (model.summarise, model.encode):
        torch.testing.assert_close(ask(given), ask(POINTS))
    assert torch.equal(neighbours(given), neighbours(POINTS))


DOORS = list(doors(module.Points, module.Summaries))
SPOILT = {
    "not a number": (lambda a: a * torch.nan, "finite numbers, found NaN or infinity"),
    "infinite": (lambda a: a + torch.inf, "finite numbers, found NaN or infinity"),
    "one of them": (lambda a: a[0], r"shape .*found .*; give {name}\[None\]"),
    "none": (lambda a: a[:0], "shape .*it is empty"),
    "a list": (list, "an array .*found list; stack"),
    "truths": (lambda a: a > 0, "real numbers, found bool"),
}


def test_points_come_in_here():
    assert [path for _, path, _ in DOORS] == [
        "pair_counts", "neighbours", "PointFlow.encode", "PointFlow.generate",
        "PointFlow.summarise"]


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("function, path, name", DOORS)
def test_what_are_no_points_or_summaries_is_refused(function, path, name, kind, model):
    change, message = SPOILT[kind]
    given = {name: change(POINTS if name == "points" else torch.ones(2, 4))}
    if "." in path: given["self"] = model
    if path == "pair_counts": given["edges"] = torch.tensor([1.0, 2])
    with pytest.raises(ValueError, match=f"^{name}: expected {message}".format(
            name=name)): function(**given)


SNAPSHOT = 1000 * POINTS  # in kpc/h, as CAMELS gives it
FAR_OUT = {
    "pair_counts": lambda m, d, far: pair_counts(far, [1.0, 2.0]),
    "neighbours": lambda m, d, far: neighbours(far),
    "summarise": lambda m, d, far: m.summarise(far.numpy()),
    "encode": lambda m, d, far: m.encode(far),
    "couple, start": lambda m, d, far: couple(far, POINTS),
    "couple, end": lambda m, d, far: couple(POINTS, far),
    "spread_summaries": lambda m, d, far: spread_summaries(m, d, 60),
    "train_points": lambda m, d, far: train_points(d, "out", 1, count=60),
}


@pytest.mark.parametrize("far", (SNAPSHOT, -SNAPSHOT, POINTS + BOX * 1.5),
                         ids=("kpc/h", "below", "beyond"))
@pytest.mark.parametrize("name", FAR_OUT)
def test_places_far_outside_the_box_are_refused(
        name, far, model, data, tmp_path, monkeypatch):
    "Brought back into the box, those in kpc/h are random points."
    monkeypatch.chdir(tmp_path)
    out = changed(data, end=data.end + (far.max() if far.max() > 30 else far.min()))
    with pytest.raises(ValueError, match=r"^(points|start|end): expected places from 0 "
                       "to 25 Mpc/h, or at most one box outside, found .*; divide kpc/h"
                       ", as in snapshots of CAMELS, by 1000"):
        FAR_OUT[name](model, out, far)
    assert not list(tmp_path.iterdir())


def test_places_up_to_one_box_outside_come_back(model):
    for shift in (-BOX, 0.99 * BOX):
        out = POINTS + shift * torch.tensor([1.0, 0, 0])
        torch.testing.assert_close(model.summarise(out), model.summarise(out % BOX),
                                   atol=1e-4, rtol=1e-4)
    large = 4 * POINTS  # in a larger box they are at home
    assert torch.equal(neighbours(large, 4 * BOX), neighbours(POINTS))


def test_a_wild_flow_may_leave_the_box_by_far():
    model = PointFlow(channels=4, width=12, charges=6, layers=2, reach=3)
    with torch.no_grad(): model.gate.bias.fill_(1e5)
    made = model.generate(torch.ones(1, 4), 60, steps=2, seed=0)
    assert ((made >= 0) & (made < BOX)).all()


def in_another_box(model, box):
    "The same weights for a cube of another size."
    other = PointFlow(**model.config | {"box": box})
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("times", (2, 0.5, 40))
def test_a_larger_box_with_its_points_is_the_same_universe(times, model, data):
    larger = in_another_box(model, times * BOX)
    summary = model.encode(POINTS)
    torch.testing.assert_close(larger.encode(times * POINTS), summary)
    torch.testing.assert_close(larger.summarise(times * POINTS),
                               model.summarise(POINTS))
    torch.testing.assert_close(larger.way(times * POINTS, U, summary),
                               times * model.way(POINTS, U, summary),
                               atol=1e-4 * times, rtol=1e-4)
    draw = lambda model: model.generate(summary, 60, steps=2, seed=0, again=0.5)
    off = nearest_image(draw(larger) / times - draw(model))
    assert off.abs().max() < 1e-3
    seen = zip(vars(look_around(times * POINTS, WAVES, times * BOX)).values(),
               vars(look_around(POINTS, WAVES)).values())
    for found, expected in seen:
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("times", (2, 0.5))
def test_a_larger_box_teaches_the_same(times, model, data, tmp_path, monkeypatch):
    scaled = changed(data, start=times * data.start, end=times * data.end)
    losses = []
    for box, some in ((BOX, data), (times * BOX, scaled)):
        learner = in_another_box(model, box)
        optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
        dice = torch.Generator().manual_seed(0)
        losses.append(train_step(learner, few(some), optimizer, dice, count=60))
    torch.testing.assert_close(losses[1], tuple(times**2 * x for x in losses[0]))
    monkeypatch.setattr(module, "PointFlow", partial(PointFlow, 4, 8, 4, 1, 2))
    run = dict(steps=2, count=60, every=2)
    plain = train_points(few(data), tmp_path / "plain", **run)
    larger = train_points(few(scaled), tmp_path / "larger", **run, box=times * BOX)
    assert larger.config["box"] == times * BOX
    for a, b in zip(plain.parameters(), larger.parameters()):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="box=25: expected the side of the cube"):
        train_points(few(scaled), tmp_path / "other", **run)
    with pytest.raises(ValueError, match="data lattice is None there and 32 here"):
        train_points(few(data), tmp_path / "plain", **run, particles=32)


def test_noise_is_uniform_whatever_the_lattice():
    places = torch.arange(4.0) * 2
    start = torch.cartesian_prod(places, places, places)[None].expand(100, -1, -1)
    noise, _ = couple(start, start, 0, box=8, particles=4)
    assert kstest(noise[..., 0].flatten() / 8, "uniform").pvalue > 1e-3
    assert 0.9 < nearest_image(noise - start, 8).abs().max() <= 1.001


def few(data, n=8): return PointData(**{k: v[:n] for k, v in vars(data).items()})


def changed(data, **parts): return PointData(**vars(data) | parts)


SENSELESS = {
    "points: expected more than 48 of each universe, found 40": (
        lambda m, d, out: m.summarise(POINTS[:, :40]),
        lambda m, d, out: neighbours(POINTS[:, :40])),
    "points: expected two of each": (
        lambda m, d, out: pair_counts(POINTS[:, :1], [1.0, 2.0]),),
    "count: expected more than 48 of each universe, found 48": (
        lambda m, d, out: m.generate(torch.zeros(1, 4), 48),
        lambda m, d, out: train_points(d, out, count=48)),
    "count=(0|4096): expected": (
        lambda m, d, out: d.draw([0], 0), lambda m, d, out: d.draw([0], 4096),
        lambda m, d, out: train_points(d, out, count=4096)),
    "batch_size=0: expected": (lambda m, d, out: m.summarise(POINTS, 0),),
    "box=-25.0: expected": (
        lambda m, d, out: train_points(d, out, box=-25.0),
        lambda m, d, out: neighbours(POINTS, -25.0), lambda m, d, out: PointFlow(
            box=-25.0), lambda m, d, out: pair_counts(POINTS, [1.0, 2.0], -25.0)),
    "reach=33: expected": (lambda m, d, out: PointFlow(reach=33),),
    "seed=-1: expected": (lambda m, d, out: train_points(d, out, seed=-1),),
    "lr=(nan|-1|0): expected": (
        lambda m, d, out: train_points(d, out, lr=math.nan),
        lambda m, d, out: train_points(d, out, lr=-1),
        lambda m, d, out: train_points(d, out, lr=0)),
    "data: expected (a PointData|four)": (
        lambda m, d, out: train_points(POINTS, out),
        lambda m, d, out: train_points(few(d, 3), out)),
    "(start|end|params|sims): expected": (
        lambda m, d, out: changed(d, start=d.start[:, :5]),
        lambda m, d, out: changed(d, end=d.end * torch.nan),
        lambda m, d, out: changed(d, params=d.params.numpy()),
        lambda m, d, out: changed(d, params=d.params[:, 0]),
        lambda m, d, out: changed(d, end=d.end.tolist()),
        lambda m, d, out: changed(d, sims=d.sims[1:])),
    "particles=0: expected": (lambda m, d, out: train_points(d, out, particles=0),),
    "data: expected at least half as many universes as the 4 channels": (
        lambda m, d, out: spread_summaries(m, few(d, 1), 60),),
    r"sims=\[0\]: expected a slice": (
        lambda m, d, out: simulate_points(out, sims=[0]),),
    "keep=(0|262145): expected": (
        lambda m, d, out: simulate_points(out, keep=0),
        lambda m, d, out: simulate_points(out, keep=64**3 + 1)),
}


@pytest.mark.parametrize("message", SENSELESS)
def test_what_cannot_be_is_refused_before_anything_is_made(
        message, model, data, tmp_path):
    for ask in SENSELESS[message]:
        with pytest.raises(ValueError, match=f"^{message}"):
            ask(model, data, tmp_path / "out")
    assert not list(tmp_path.iterdir())


OTHERS = {
    "cut": lambda path, part: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path, part: path.write_bytes(b""),
    "lacking": lambda path, part: save_file({"end": part["end"]}, path),
    "of other numbers": lambda path, part: save_file(
        part | {"end": part["end"].astype(np.float32)}, path),
    "of other counts": lambda path, part: save_file(
        part | {"end": part["end"][:, :9].copy()}, path),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_damaged_file_of_points_is_named(kind, tmp_path):
    part = load_file(next((module.files("cosmoflow") / "suite").glob("Points*")))
    for name in "ab": save_file(part, tmp_path / f"Points_PM_LH_{name}.safetensors")
    bad = tmp_path / "Points_PM_LH_b.safetensors"
    OTHERS[kind](bad, part)
    with pytest.raises(ValueError, match=f"^{bad}: expected what simulate_points"):
        open_points(tmp_path)


def spoil(folder, **changes):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model"] |= changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("spoil, error, message", [
    (lambda to: (to / "model.safetensors").unlink(), FileNotFoundError, "no such file"),
    (lambda to: (to / "model.safetensors").write_bytes(b"no"), ValueError, "damaged"),
    (partial(spoil, channels=5), ValueError, "size mismatch"),
    (partial(spoil, box=-1), ValueError, "box=-1"),
    (partial(spoil, pixels=64), ValueError, "pixels")])
def test_a_damaged_model_of_points_is_named(spoil, error, message, model, tmp_path):
    model.save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=f"{tmp_path}.*{message}"):
        PointFlow.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float64))
def test_a_model_in_another_precision(dtype, model):
    other = deepcopy(model).to(dtype)
    found, expected = other.summarise(POINTS), model.summarise(POINTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    made = partial(PointFlow.generate, summary=expected, count=60, steps=2, seed=0)
    found, expected = made(other), made(model)
    assert found.dtype == torch.float32
    assert nearest_image(found - expected).square().mean().sqrt() < 0.1


def test_neighbours_are_those_of_a_sorted_list():
    order = every_way(POINTS).norm(dim=-1).argsort(-1)
    assert torch.equal(neighbours(POINTS), order[:, :, list(RANKS)])


def test_waves_fill_half_a_ball():
    n = wavevectors(5)
    both = {tuple(v) for v in (*n.tolist(), *(-n).tolist())}
    cube = product(range(-5, 6), repeat=3)
    ball = {v for v in cube if 0 < sum(i * i for i in v) <= 25}
    assert both == ball and len(both) == 2 * len(n)


def test_noise_is_uniform_and_knows_nothing_of_the_universe(data):
    generator = torch.Generator().manual_seed(0)
    noise, way = couple(*data.draw(range(len(data)), generator=generator),
                        generator=generator)
    for axis in range(3):
        assert kstest(noise[..., axis].flatten() / BOX, "uniform").pvalue > 1e-3
    fine = noise / (BOX / PARTICLES) + 0.5  # where in its cell
    assert kstest((fine % 1).flatten(), "uniform").pvalue > 1e-3
    counted = pair_counts(noise, torch.tensor([0.5, 2, 6]))
    error = counted.std(0) / len(noise) ** 0.5
    assert ((counted.mean(0) - 1).abs() < 4 * error).all()
    assert 0.5 < way.square().mean().sqrt() < 4 and (way.abs() <= BOX / 2).all()


def test_a_way_ends_where_the_particle_is(data):
    start, end = data.draw([0, 3], 500, seed=1)
    noise, way = couple(start, end, seed=1)
    ones = torch.ones(2)
    off = nearest_image(walk(noise, way, ones) - end)
    assert off.abs().max() < 1e-4
    assert torch.equal(walk(noise, way, 0 * ones), noise)
    off = nearest_image(noise - start).abs()
    assert BOX / PARTICLES * 0.45 < off.max() <= BOX / PARTICLES * 0.501
    half = walk(noise, way, 0.5 * ones) - noise
    torch.testing.assert_close(half, way / 4, atol=1e-5, rtol=1e-4)


def rules():
    "Some of the 48 symmetries of a cube, a shift, and another order."
    turns = product(permutations(range(3)), product((1, -1), repeat=3))
    for axes, signs in list(turns)[::5]:
        turn = torch.eye(3)[list(axes)] * torch.tensor(signs)
        yield lambda x, turn=turn: x @ turn.T
    yield lambda x: x + torch.tensor([3.0, 20, 7]) * (x.abs().max() > 12.5)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    yield lambda x: x[:, order]


@pytest.mark.parametrize("rule", list(rules()))
def test_the_network_keeps_the_rules(rule, model):
    summary = model.encode(POINTS)
    moved = rule(POINTS) % BOX
    torch.testing.assert_close(model.encode(moved), summary, atol=1e-5, rtol=1e-4)
    way = model.way(POINTS, U, summary)
    small = way / way.abs().max()  # an arrow is turned, but not shifted
    found = model.way(moved, U, summary) / way.abs().max()
    torch.testing.assert_close(found, rule(small), atol=1e-4, rtol=1e-3)


def test_every_point_and_number_matters(model):
    summary = model.encode(POINTS)
    other = POINTS.clone()
    other[:, 0] += 3
    assert not torch.allclose(model.encode(other), summary, atol=1e-6)
    way = model.way(POINTS, U, summary)
    assert way.std() > 0 and not torch.allclose(model.way(other, U, summary)[:, 1:],
                                                way[:, 1:], atol=1e-6)


def test_channels_go_dark_on_the_way(model):
    summary = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    last = summary + torch.tensor([0.0, 0, 0, 1])
    for u, live in ((0.1, True), (0.3, False), (1.0, False)):
        times = torch.full((2,), u)
        same = torch.equal(model.way(POINTS, times, summary),
                           model.way(POINTS, times, last))
        assert same != live
    first = summary + torch.tensor([1.0, 0, 0, 0])
    assert not torch.equal(model.way(POINTS, torch.ones(2), summary),
                           model.way(POINTS, torch.ones(2), first))


def test_a_summary_is_the_mean_of_what_points_think(model):
    numbers, _ = model.encoder(POINTS, torch.zeros(2, 1))
    by_hand = torch.stack([model.head(one.sum(0) / 150) for one in numbers])
    torch.testing.assert_close(model.encode(POINTS), by_hand)


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(1)
    return PointLayer(width=5, charges=2, told=3).double().requires_grad_(False)


def test_neighbours_are_summed_as_by_hand(layer):
    points, told = POINTS.double(), torch.randn(2, 3).double()
    charge = torch.randn(2, 150, 2).double()
    around = look_around(points, WAVES)
    found = layer.look_near(charge, around, told)
    law = layer.near(told).view(2, 8, 2)
    bins = torch.linspace(math.log(0.08), math.log(6), 8)
    for b, i in ((0, 0), (1, 77)):
        total = torch.zeros(4, 2).double()
        for rank, j in enumerate(neighbours(points)[b, i]):
            way = nearest_image(points[b, j] - points[b, i])
            soft = (-0.5 * ((way.norm().log() - bins) / 0.6) ** 2).exp().double()
            pull = soft @ law[b] * charge[b, j] * layer.rank[rank]
            total += torch.cat([torch.ones(1), way / way.norm()])[:, None] * pull
        torch.testing.assert_close(found[b, i], total / 4, rtol=1e-5, atol=1e-7)


def test_points_begin_with_the_distances_of_their_neighbours():
    distance = every_way(POINTS).norm(dim=-1).sort(-1).values[:, :, list(RANKS)]
    found = look_around(POINTS, WAVES).log_r
    torch.testing.assert_close(found, distance.log(), rtol=1e-4, atol=1e-4)


def test_a_layer_adds_to_what_points_carry(layer):
    told = torch.ones(2, 3).double()
    numbers = torch.randn(2, 150, 5).double()
    arrows = torch.randn(2, 150, 3, 2).double()
    around = look_around(POINTS.double(), WAVES)
    charges = layer.charge(numbers).split(2, -1)
    near = layer.look_near(charges[0], around, told)
    far = layer.look_far(charges[1], around, WAVES, told)
    turned = arrows + layer.mix(torch.cat([arrows, near[:, :, 1:], far[:, :, 1:]], -1))
    inner = torch.einsum("bnxc,bnxc->bnc", layer.left(turned), layer.right(turned))
    inner = inner / (1 + inner.abs()).sqrt()
    seen = layer.norm(torch.cat([numbers, near[:, :, 0], far[:, :, 0], inner], -1))
    scale, shift = layer.film(told)[:, None].chunk(2, -1)
    thought = layer.out(torch.nn.functional.silu(
        layer.hidden(seen) * (1 + scale) + shift))
    found = layer(numbers, arrows, around, WAVES, told)
    torch.testing.assert_close(found, (numbers + thought, turned))


def test_waves_are_summed_as_by_hand(layer):
    points, told = POINTS.double(), torch.randn(2, 3).double()
    charge = torch.randn(2, 150, 2).double()
    found = layer.look_far(charge, look_around(points, WAVES), WAVES, told)
    i, square = 5, WAVES.square().sum(1).double()
    for b in range(2):
        scale = torch.stack([square.log() / 2, square.sqrt() / 4], 1)
        even, odd = layer.far(torch.cat([scale, told[b].expand(len(WAVES), -1)], 1)
                              ).split(2, 1)
        phase = (points[b, i] - points[b]) @ WAVES.double().T * (2 * math.pi / BOX)
        number = torch.einsum("jm,mc,jc->c", phase.cos(), even, charge[b])
        slope = 4 * WAVES / square[:, None]
        arrow = -torch.einsum("jm,mx,mc,jc->xc", phase.sin(), slope, odd, charge[b])
        expected = torch.cat([number[None], arrow]) / (150 * len(WAVES)) ** 0.5
        torch.testing.assert_close(found[b, i], expected, rtol=1e-5, atol=1e-7)


def test_the_loss_is_the_mean_square_of_what_is_missed(data):
    noise, way = couple(*data.draw([0, 1], 60, seed=0), seed=0)
    seen = {}

    def knows(points, u, summary):
        seen["points"] = points
        return way + torch.tensor([0.0, 0.3, 0])

    loss = point_loss(knows, noise, way, U, torch.zeros(2, 4))
    torch.testing.assert_close(loss, torch.tensor(0.03))
    assert torch.equal(seen["points"], walk(noise, way, U))


def test_a_seed_is_a_generator_and_points_lie_in_the_box(model):
    summary = torch.zeros(2, 4)
    draw = lambda **noise: model.generate(summary, 60, steps=2, **noise)
    three = draw(seed=3)
    assert three.shape == (2, 60, 3) and (three >= 0).all() and (three < BOX).all()
    assert torch.equal(three, draw(generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(three, draw(seed=4))
    path = model.generate(summary, 60, steps=2, seed=3, trajectory=True)
    assert torch.equal(path[-1], three)
    noise = BOX * torch.rand(2, 60, 3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(path[0], noise)


def test_a_network_that_knows_the_way_arrives():
    torch.manual_seed(0)
    model, way = PointFlow(channels=4), torch.tensor([2.0, -1, 0.5])
    model.way = lambda x, u, summary: way.expand_as(x)
    path = model.generate(torch.zeros(1, 4), 60, steps=4, seed=0, trajectory=True,
                          again=0.5)
    off = nearest_image(path - path[0])
    times = [*torch.linspace(0, 1, 5), *torch.linspace(0.5, 1, 3)]
    parts = torch.stack(times)[:, None, None, None] ** 2
    torch.testing.assert_close(off, (parts * way).expand_as(off), atol=1e-4, rtol=1e-4)


def test_the_second_walk_begins_on_the_straight_way_to_the_first_end(model):
    summary = torch.ones(2, 4)
    draw = lambda **more: model.generate(summary, 60, steps=5, seed=3, **more)
    path = draw(trajectory=True, again=0.6)
    once, twice = path[:6], path[6:]
    assert len(twice) == 3 and torch.equal(once[-1], draw())
    torch.testing.assert_close(nearest_image(twice[0] - once[0]),
                               0.36 * nearest_image(once[-1] - once[0]),
                               atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        on = model.walk_on(twice[0], 0.6, summary, 2)
    assert nearest_image(on - twice[-1]).abs().max() < 1e-4
    assert not torch.equal(twice[-1], once[-1])


def test_a_second_walk_has_its_share_of_the_steps(model):
    draw = lambda again: model.generate(torch.ones(1, 4), 60, steps=10, seed=3,
                                        trajectory=True, again=again)
    assert [len(draw(again)) - 11 for again in (0.7, 0.6, 0.65)] == [4, 5, 5]


@pytest.mark.parametrize("trajectory", (False, True))
@pytest.mark.parametrize("again", (None, 0.5))
def test_universes_are_generated_in_batches_and_stay_the_same(
        trajectory, again, model, monkeypatch):
    summary = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    draw = lambda size: model.generate(summary, 60, steps=2, seed=3, again=again,
                                       trajectory=trajectory, batch_size=size)
    whole, walk_on, sizes = draw(5), PointFlow.walk_on, []

    def watched(self, points, *rest):
        sizes.append(len(points))
        return walk_on(self, points, *rest)

    monkeypatch.setattr(PointFlow, "walk_on", watched)
    off = nearest_image(draw(np.int64(2)) - whole)
    assert off.abs().max() < 1e-4
    assert sizes == [n for n in (2, 2, 1) for _ in range(2 if again else 1)]
    with pytest.raises(ValueError, match="^batch_size=0: expected"): draw(0)
    sizes.clear()
    model.generate(summary.repeat(7, 1), 60, steps=1)
    assert sizes == [16, 16, 3]


@pytest.mark.parametrize("wrong", (dict(count=0), dict(steps=0), dict(count=1.5)))
def test_counts_are_one_or_more(wrong, model):
    with pytest.raises(ValueError, match="expected a whole number of 1 or more"):
        model.generate(torch.zeros(1, 4), **wrong)


def test_the_caller_s_default_dtype_changes_nothing(model, data):
    summary = model.summarise(POINTS)
    made = model.generate(summary, 60, steps=1, seed=0)
    still = SimpleNamespace(zero_grad=model.zero_grad, step=lambda: None)
    step = lambda: module.train_step(model, few(data), still,
                                     torch.Generator().manual_seed(0), count=60)
    losses = step()
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in PointFlow(layers=1).parameters()} == {torch.float32}
        assert torch.equal(model.summarise(POINTS), summary)
        assert torch.equal(model.generate(summary, 60, steps=1, seed=0), made)
        assert step() == losses
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_universe_is_in_two_parts(data):
    train, test = data.split()
    assert len(train) and len(test)
    assert not set(train.sims.tolist()) & set(test.sims.tolist())
    assert data.end.min() >= 0 and data.end.max() < BOX
    off = data.start / (BOX / PARTICLES)
    assert torch.equal(off, off.round())


@pytest.mark.parametrize("total", (10, 100, 400, 410, 990, 1000))
def test_points_of_so_many_simulations_are_dealt_as_their_maps(total):
    number = torch.arange(total)
    flat = torch.zeros(total, 1, 3)
    points = PointData(flat, flat, torch.zeros(total, 2), number)
    maps = MapData(np.zeros((total, 8, 8), np.float32), number.numpy()[:, None],
                   ("number",))
    train, _, test = (part.params[:, 0].tolist() for part in maps.split())
    assert [part.sims.tolist() for part in points.split()] == [train, test]


def test_no_held_out_universe_is_in_the_training_maps_of_any_suite():
    number = torch.arange(1000)
    flat = torch.zeros(1000, 1, 3)
    points = PointData(flat, flat, torch.zeros(1000, 2), number)
    held_out = set(points.split()[1].sims.tolist())
    for total in range(15, 1000, 7):
        assert not held_out & set(deal_simulations(total)[0].tolist()), total


def test_parts_are_those_of_the_maps(data):
    from cosmoflow.data import split_simulations
    maps = SimpleNamespace(numbers=np.arange(400), maps_per_simulation=1)
    dealt = split_simulations(maps)
    for part, numbers in zip(data.split(), (dealt[0], dealt[2])):
        assert set(part.sims.tolist()) == set(numbers) & set(data.sims.tolist())
        rows = [data.sims.tolist().index(sim) for sim in part.sims]
        assert torch.equal(part.params, data.params[rows])


def test_own_numbers_and_parameters_are_welcome(data):
    one = data.params[:, :1]
    own = changed(data, sims=data.sims + 2000, params=one.repeat(1, 7))
    for part, other in zip(own.split(), data.split()):
        assert torch.equal(part.sims - 2000, other.sims) and part.params.shape[1] == 7
    assert changed(data, params=one).params.shape[1] == 1


def test_what_is_drawn_belongs_together(data):
    start, end = data.draw([4, 1], 300, seed=0)
    for row, universe in enumerate((4, 1)):
        whole = torch.cat([data.start[universe], data.end[universe]], 1)
        kept = {tuple(place) for place in whole.tolist()}
        some = torch.cat([start[row], end[row]], 1).tolist()
        assert len({tuple(place) for place in some}) == 300 <= len(kept)
        assert kept >= {tuple(place) for place in some}


@pytest.mark.parametrize("place", (24, -25, 99))
def test_universes_that_are_not_there_are_refused(data, place):
    message = f"^which: expected places from 0 to 23 among .* found {place}$"
    with pytest.raises(ValueError, match=message): data.draw([0, place], 60)


def test_noise_is_drawn_where_its_generator_is(model, data, monkeypatch):
    "A GPU's, say. Torch refuses a generator that is not where the numbers are to be."
    class Far(torch.Generator):
        device = torch.device("meta")

    def rand(*size, generator=None, device="cpu", **how):
        there = torch.device("cpu") if generator is None else generator.device
        if torch.device(device) != there: raise RuntimeError("Expected a 'meta' device")
        asked.append(there.type)
        return draw(*size, generator=generator, **how)

    draw, asked = torch.rand, []
    start, end = data.draw([0, 1], 60, seed=0)
    for ask in (lambda dice: data.draw([0, 1], 60, generator=dice)[1],
                lambda dice: couple(start, end, generator=dice)[0],
                lambda dice: model.generate(torch.zeros(1, 4), 60, 1, generator=dice)):
        expected = ask(torch.Generator().manual_seed(5))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", rand)
            assert torch.equal(ask(Far().manual_seed(5)), expected)
    assert asked == ["meta"] * 3


def test_half_as_many_universes_as_channels_spread_them(data):
    spread_summaries(PointFlow(8, 8, 4, 1, 2), few(data, 4), 60)
    with pytest.raises(ValueError, match="half as many universes as the 8 .*found 3"):
        spread_summaries(PointFlow(8, 8, 4, 1, 2), few(data, 3), 60)


def test_spread_summaries_are_principal_components(data):
    torch.manual_seed(0)
    model = PointFlow(4, 8, 4, 1, 2)
    few = data.draw(range(len(data)), 150, seed=0)[1]
    assert model.summarise(few).std(0).max() < 0.1
    spread_summaries(model, data, 150)
    seen = [data.draw(range(len(data)), 150, seed=seed)[1] for seed in (0, 1)]
    found = torch.cat([model.summarise(points) for points in seen])
    assert found.mean(0).abs().max() < 0.02
    covariance = found.mT @ found / len(found)
    size = covariance.diag()
    assert size[0] == pytest.approx(1, rel=0.05) and (size < 1.05).all()
    assert (size.diff() < 0.05).all()
    assert (covariance - size.diag()).abs().max() < 0.05


def home(data, points):
    "The universe to which each set of points belongs."
    return [[i for i, end in enumerate(data.end) if (end == one[0]).all(1).any()]
            for one in points]


def test_a_step_pairs_summaries_with_other_points_of_the_same_universe(
        data, monkeypatch):
    model, seen = PointFlow(4, 8, 4, 1, 2), []

    def look(way, noise, ways, u, summary):
        seen.append((noise, ways, u))
        return loss(way, noise, ways, u, summary)

    def hear(points):
        told.append(points)
        return encode(points)

    loss, encode, told = module.point_loss, model.encode, []
    monkeypatch.setattr(module, "point_loss", look)
    model.encode = hear
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    ends = []
    draw = PointData.draw
    monkeypatch.setattr(PointData, "draw", lambda self, *a, **k: ends.append(
        draw(self, *a, **k)) or ends[-1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        train_step(model, data, optimizer, generator, count=60)
    for (noise, ways, _), others, (_, moved) in zip(seen[:3], told, ends[::2]):
        arrived = nearest_image(noise + ways - moved)
        assert arrived.abs().max() < 1e-4
        assert home(data, moved) == home(data, others) and len(home(data, moved)) == 2
        assert not torch.equal(moved, others)
    u = torch.stack([u for _, _, u in seen])
    assert ((u >= 0) & (u <= 1)).all() and u.std(0).min() > 0.1


def test_the_rate_climbs_and_falls():
    assert module._rate(0, 1000) == pytest.approx(0.02)
    assert module._rate(49, 1000) == pytest.approx(0.951)
    assert module._rate(500, 1000) == pytest.approx(0.5)
    assert module._rate(999, 1000) == pytest.approx(0.01)


def test_all_weights_learn_and_those_of_the_encoder_slowly(model):
    fast, slow = module._groups(model)
    assert (fast["scale"], slow["scale"]) == (1, 0.1)
    slower = {id(p) for part in (model.encoder, model.head) for p in part.parameters()}
    assert {id(p) for p in slow["params"]} == slower
    every = [id(p) for group in (fast, slow) for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


def test_a_stopped_training_goes_on_to_the_same_weights(data, tmp_path, monkeypatch):
    some = few(data)
    monkeypatch.setattr(module, "PointFlow", partial(PointFlow, 4, 8, 4, 1, 2))
    run = dict(steps=5, count=60, every=2)
    whole = train_points(some, tmp_path / "whole", **run)
    save = module.save_checkpoint

    def stop(path, models, optimizer, state):
        save(path, models, optimizer, state)
        if len(state["history"]) == 2: raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt): train_points(some, tmp_path / "two", **run)
    monkeypatch.setattr(module, "save_checkpoint", save)
    before = torch.random.get_rng_state()
    again = train_points(some, tmp_path / "two", **run)
    assert torch.equal(torch.random.get_rng_state(), before)  # torch's own dice
    with pytest.raises(ValueError, match="seed is 0 there and 1 here"):
        train_points(some, tmp_path / "two", **run, seed=1)
    with pytest.raises(ValueError, match="parameters is"):
        train_points(few(data, 7), tmp_path / "two", **run)
    moved = changed(some, end=some.end.flip(1))
    with pytest.raises(ValueError, match="particles is"):
        train_points(moved, tmp_path / "two", **run)
    for a, b in zip(whole.parameters(), again.parameters()): assert torch.equal(a, b)
    for name in ("whole", "two"):
        log = (tmp_path / name / "log.csv").read_text(encoding="utf-8")
        assert len(log.splitlines()) == 4


def test_the_log_tells_the_means_of_its_steps(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PointFlow", partial(PointFlow, 4, 8, 4, 1, 2))
    steps = []

    def noted(*given, **more):
        steps.append(train_step(*given, **more))
        return steps[-1]

    monkeypatch.setattr(module, "train_step", noted)
    train_points(few(data), tmp_path, steps=4, count=60, every=2)
    with (tmp_path / "log.csv").open(encoding="utf-8") as f: log = [*csv.DictReader(f)]
    told = [[float(row["loss"]), float(row["still"])] for row in log]
    means = np.reshape(steps, (2, 2, 2)).mean(1)
    np.testing.assert_allclose(told, means, rtol=0, atol=1e-4)
    assert np.abs(means[:, 0] - means[:, 1]).min() > 1e-3


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    path, run = tmp_path / "checkpoint.safetensors", {"run": {}, "history": []}
    small, wide = PointFlow(4, 8, 4, 1, 2), PointFlow(4, 16, 4, 1, 2)
    adam = lambda model: torch.optim.AdamW(model.parameters())
    module.save_checkpoint(path, {"model": small}, adam(small), run)
    with pytest.raises(ValueError, match=f"^{path}: .* tensors do not fit"):
        module._resume(path, wide, adam(wide), {})


def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = PointFlow.from_pretrained(tmp_path)
    assert torch.equal(again.summarise(POINTS), model.summarise(POINTS))
    assert not again.training


def test_a_folder_without_points_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="that simulate_points wrote"):
        open_points(tmp_path)


def test_parts_come_back(tmp_path):
    from cosmoflow.simulate import simulation_table
    end = np.random.default_rng(0).uniform(0, BOX, (PARTICLES**3, 3)).astype(np.float32)
    end[5] = 25.0 - 1e-6  # rounds to the other side
    kept, table = np.array([5, 70_000]), simulation_table("LH")
    for i in (3, 12):
        part = module._part(i, kept, end, table.params[[i]])
        save_file(part, tmp_path / f"Points_PM_LH_{i:04d}.safetensors")
    data = open_points(tmp_path)
    assert data.sims.tolist() == [3, 12]
    np.testing.assert_array_equal(data.params, table.params[[3, 12]])
    cell = BOX / PARTICLES
    expected = torch.tensor([[0, 0, 5], [17, 5, 48]]) * cell
    torch.testing.assert_close(data.start[0], expected)
    off = nearest_image(data.end[0] - torch.from_numpy(end[kept]))
    assert off.abs().max() < 2e-4 and data.end.max() < BOX


def test_weights_that_no_training_left_are_not_replaced(data, tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="model.safetensors is there already"):
        train_points(data, tmp_path, steps=1, count=64)
    assert weights.read_bytes() == b"mine"


def test_generated_points_lie_below_the_far_face(model, monkeypatch):
    "The remainder of -1e-9 and 25 is 25 in single precision: scipy's tree refused it."
    def walk_on(self, points, since, summary, steps, solver, trajectory):
        end = torch.full_like(points, -1e-9)
        return torch.stack([points, end]) if trajectory else end
    monkeypatch.setattr(PointFlow, "walk_on", walk_on)
    for made in (model.generate(torch.zeros(1, 4), 60, 1, seed=0),
                 model.generate(torch.zeros(1, 4), 60, 1, seed=0, trajectory=True)[-1]):
        assert (made == 0).all()
        cKDTree(made[0].numpy(), boxsize=BOX)
    start, dice = torch.zeros(1, 60, 3), torch.full((1, 60, 3), 0.5 - 2e-8)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: dice)
    noise, way = couple(start, start, seed=0)
    assert noise.max() < BOX and way.abs().max() < 1e-6


def test_edges_of_bins_may_lie_elsewhere():
    edges = torch.tensor([0.5, 1, 2])
    expected = pair_counts(POINTS, edges)
    with far_device():
        found = pair_counts(POINTS.to(FAR), edges.to(FAR))
        assert torch.equal(found, expected)


def test_a_folder_of_points_goes_on_with_as_many_particles(tmp_path, monkeypatch):
    "Else hours of simulation ended in a folder that `open_points` refuses."
    kept, end = np.array([5, 70_000]), np.zeros((PARTICLES**3, 3), np.float32)
    path = tmp_path / "Points_PM_LH_0003.safetensors"
    save_file(module._part(3, kept, end, np.ones((1, 2))), path)
    asked = []
    mesh = SimpleNamespace(places=lambda *universe: asked.append(universe) or end)
    monkeypatch.setattr("cosmoflow.simulate.particle_mesh", lambda particles: mesh)
    for sims in (slice(0, 1), slice(3, 4)):
        with pytest.raises(ValueError, match=f"^keep=3: expected 2, .*{path}"):
            simulate_points(tmp_path, sims, keep=3)
    assert not asked
    simulate_points(tmp_path, slice(3, 5), keep=2)
    assert len(asked) == 1 and open_points(tmp_path).sims.tolist() == [3, 4]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=f"^{path}: expected what simulate_points"):
        simulate_points(tmp_path, slice(0, 1), keep=2)
    assert len(asked) == 1 and len(list(tmp_path.iterdir())) == 2


def test_points_that_are_encoded_keep_their_gradient(model):
    points = POINTS.double().requires_grad_()
    model.encode(points).sum().backward()
    assert points.grad.abs().amax((1, 2)).min() > 0


@pytest.mark.parametrize("which", (
    3, [], [0.0], [[0, 1]], torch.tensor([True, False]), torch.tensor(3)), ids=str)
def test_universes_are_chosen_by_whole_numbers(data, which):
    with pytest.raises(ValueError, match="^which: expected a list of whole numbers"):
        data.draw(which, 10)
    for some in ([0, 1], range(2), np.arange(2), torch.arange(2, dtype=torch.int32)):
        assert torch.equal(data.draw(some, 10, seed=0)[1],
                           data.draw(torch.tensor([0, 1]), 10, seed=0)[1])

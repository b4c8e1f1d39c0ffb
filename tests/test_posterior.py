"""Posteriors: right where the answer is known, whole on disk, the same from a shell."""
import csv
import inspect
import json
import math
import shutil
import sys
from copy import deepcopy
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from far import FAR, far_device
from safetensors.torch import load_file, save_file
from scipy.stats import f as f_law
from scipy.stats import kstest, multivariate_t
from test_door import Single

from cosmoflow import CosmoFlow, cli
from cosmoflow.data import open_maps
from cosmoflow.inference import spectrum_features
from cosmoflow.model import find_model
from cosmoflow.posterior import (
    Inferred, MapCheck, Posterior, build_flow, corner, covered, draw_bell, fit_bell,
    fit_flow, infer, log_bell, log_slope, pool, ranks, squash, stretch, tarp)

pytest.importorskip("sbi")
CV = open_maps("PM", "CV")
FILES = "posterior.json", "posterior.safetensors"


@pytest.fixture(scope="module")
def base(): return CosmoFlow.from_pretrained("base", "cpu")


@pytest.fixture(scope="module")
def shipped(): return Posterior.from_pretrained("base")


@pytest.fixture
def folder(tmp_path):
    "The shipped posterior, to be damaged."
    for name in FILES: shutil.copy(find_model("base") / name, tmp_path)
    return tmp_path


def known(n, m, seed):
    "Simulations whose posterior is known: m noisy readings of where theta lies."
    draw = torch.Generator().manual_seed(seed)
    u = torch.randn(n, 2, generator=draw)
    return squash(u), u[:, None] + torch.randn(n, m, 2, generator=draw)


@pytest.fixture(scope="module")
def taught():
    (theta, x), (theta_val, x_val) = known(1000, 3, 0), known(500, 3, 1)
    found = Posterior(features=2, bins=1, hidden=16, transforms=1)
    return found.fit(x, theta, x_val, theta_val, epochs=25).widen(x_val, theta_val)


@pytest.mark.parametrize("m", [1, 3])
def test_it_learns_the_posterior_of_readings_with_known_noise(taught, m):
    theta, x = known(400, m, 2)
    variance = 1 / (1 + m)  # prior and each reading have scatter 1
    mean = x.sum(1) * variance
    bell = torch.distributions.Normal(mean, variance**0.5)
    exact = bell.log_prob(stretch(theta)).sum(-1) + log_slope(theta)
    assert abs((exact - taught.log_prob(theta, x)).mean()) < 0.12
    drawn = stretch(taught.sample(x, 500))
    error = (drawn.mean(0) - mean).square().mean().sqrt()
    assert error < 0.3 * variance**0.5
    assert abs(drawn.std(0).mean() / variance**0.5 - 1) < 0.12
    assert (taught.width[:3] - 1).abs().max() < 0.15


SMALL = dict(features=2, bins=1, hidden=4, transforms=1)


def small(given, around):
    "A small posterior after one epoch, all parts changed in the same way."
    (theta, x), (theta_val, x_val) = known(40, 3, 0), known(20, 3, 1)
    parts = [given(part) for part in (x, theta, x_val, theta_val)]
    found = Posterior(**SMALL)
    with around: found.fit(*parts, epochs=1)
    return found.widen(*parts[2:]).state_dict()


@pytest.mark.parametrize("given", (np.asarray, torch.Tensor.double, torch.Tensor.cpu))
@pytest.mark.parametrize("around", (torch.inference_mode(),
                                    torch.autocast("cpu", torch.bfloat16)))
def test_it_learns_the_same_from_any_array_whatever_surrounds_it(given, around):
    found, expected = small(given, around), small(torch.clone, torch.enable_grad())
    for name, part in expected.items(): assert torch.equal(found[name], part), name


def test_any_array_is_read(taught):
    theta, x = known(4, 3, 2)
    samples = taught.sample(x, 20)
    assert torch.equal(taught.sample(x.numpy(), 20), samples)
    for one, other in ((taught.log_prob(theta.numpy(), x.numpy()),
                        taught.log_prob(theta, x)),
                       (ranks(samples, theta.double().numpy()), ranks(samples, theta)),
                       (tarp(samples.numpy(), theta.numpy()), tarp(samples, theta))):
        torch.testing.assert_close(one, other)
    assert corner(samples.numpy(), theta.numpy()).axes


def test_a_number_that_never_varies_does_no_harm():
    (theta, x), (theta_val, x_val) = known(40, 3, 0), known(20, 3, 1)
    dead = torch.tensor([1.0, 0])
    found = Posterior(**SMALL).fit(dead * x, theta, dead * x_val, theta_val, epochs=1)
    assert found.sample(dead * x, 5).isfinite().all()


ONE_EACH = torch.ones(9, 3, 2), torch.full((9, 2), 0.4) + torch.tensor([0, 0.4])
UNREAD = {  # a change of summaries or parameters, and what is said of it
    "fewer truths": (1, lambda part: part[:8], r"expected shape \(9, 2\), found \(8"),
    "more truths": (1, lambda part: part.repeat(2, 1), r"expected shape \(9, 2\)"),
    "seven parameters": (1, lambda part: part.repeat(1, 4)[:, :7], r"expected shape"),
    "one parameter": (1, lambda part: part[:, :1], "expected shape"),
    "another universe": (1, lambda part: part + 1, "expected Omega_m from 0.1 to 0.5"),
    "other numbers": (0, lambda part: part.repeat(1, 1, 2), r"expected .*, 2\), found"),
    "not a number": (0, lambda part: part * math.nan, "expected finite numbers"),
    "sixteen maps": (0, lambda part: part.repeat(1, 6, 1)[:, :16], "expected 1 to 15"),
}


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("both", (0, 2))
def test_what_cannot_be_learned_from_is_refused_before_anything_changes(kind, both):
    which, change, message = UNREAD[kind]
    parts = [*ONE_EACH, *ONE_EACH]
    parts[both + which] = change(parts[both + which])
    found = Posterior(**SMALL)
    before = {name: part.clone() for name, part in found.state_dict().items()}
    name = ("x", "theta", "x_val", "theta_val")[both + which]
    if message.startswith("expected Omega_m"): name = "theta"  # as `stretch` has it
    with pytest.raises(ValueError, match=f"^{name}: {message}"): found.fit(*parts)
    ask = (found.widen, lambda x, theta: found.log_prob(theta, x))
    for one in ask if both else ():
        with pytest.raises(ValueError, match=f": {message}"): one(*parts[2:])
    for name, part in found.state_dict().items(): assert torch.equal(part, before[name])


@pytest.mark.parametrize("wrong", ({"epochs": 0}, {"lr": 0}, {"seed": -1}), ids=str)
def test_settings_that_teach_nothing_are_refused_before_anything_changes(wrong):
    found = Posterior(**SMALL)
    before = {name: part.clone() for name, part in found.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{[*wrong][0]}="):
        found.fit(*ONE_EACH, *ONE_EACH, **wrong)
    for name, part in found.state_dict().items(): assert torch.equal(part, before[name])


def test_a_flow_alone_takes_any_number_of_maps_and_no_odd_rate():
    x, theta = ONE_EACH
    assert math.isfinite(fit_flow(build_flow(3, 4, 1), x.repeat(1, 6, 1), theta, x,
                                  theta, epochs=1))
    for lr in (-1, math.nan):
        with pytest.raises(ValueError, match="^lr=.*: expected a finite number"):
            fit_flow(build_flow(3, 4, 1), x, theta, x, theta, lr=lr)


@pytest.mark.parametrize("ask", (ranks, tarp, corner))
def test_truths_of_other_universes_are_refused(ask):
    samples, theta = torch.rand(5, 3, 2), torch.rand(1, 2)
    with pytest.raises(ValueError, match=r"expected shape \(3, 2\), found \(1, 2\)"):
        ask(samples, theta)
    with pytest.raises(ValueError, match="^samples: expected shape"):
        ask(samples[0], theta)


def test_width_is_what_the_held_out_truth_scatters_by(taught):
    theta, x = known(500, 3, 3)
    wrong = Posterior(features=2, bins=1, hidden=16, transforms=1)
    wrong.load_state_dict(taught.state_dict())
    middle = x.sum(1) / 4
    far = squash(1.5 * (stretch(theta) - middle) + middle)
    wrong.widen(x, far)
    assert 1.35 < wrong.width[2] / taught.width[2] < 1.6
    assert wrong.width[2] == wrong.width[14]  # beyond what was measured
    ratio = wrong.sample(x, 400).std(0).mean() / taught.sample(x, 400).std(0).mean()
    assert 1.2 < ratio < 1.6
    theta = squash(torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0)))
    for found in (taught, wrong):  # densities over the same bell add up to one
        bell = torch.distributions.Normal(0.0, 1.0).log_prob(stretch(theta)).sum(-1)
        density = found.log_prob(theta, x[:1].expand(len(theta), -1, -1))
        share = (density - bell - log_slope(theta)).exp().mean()
        assert abs(share - 1) < 0.03


def test_noise_with_heavy_tails_is_drawn_weighed_and_found_again():
    width, freedom = torch.tensor([0.8, 1.5]), torch.tensor([3.0, 12.0])
    z = draw_bell(20_000, width, freedom, torch.Generator().manual_seed(0))
    for i, (w, f) in enumerate(zip(width.tolist(), freedom.tolist())):
        exact = multivariate_t(shape=w**2 * np.eye(2), df=f).logpdf(z[:, i].numpy())
        found = log_bell(z[:, i], width[i], freedom[i])
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
        radius = kstest(z[:, i].norm(dim=1) ** 2 / (2 * w**2), f_law(2, f).cdf)
        angle = kstest(torch.atan2(*z[:, i].T) / (2 * math.pi) + 0.5, "uniform")
        assert min(radius.pvalue, angle.pvalue) > 0.001
        wide, free = fit_bell(z[:, i])
        assert abs(wide / w - 1) < 0.03 and abs(free / f - 1) < 0.2


def test_pooling_is_the_mean_of_as_many_different_maps():
    x = torch.arange(30.0).reshape(2, 15, 1).square()
    some = pool(x, torch.tensor([15, 4]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(some[0, 0], x[0].mean())
    torch.testing.assert_close(some[:, 1], torch.tensor([15.0, 4.0]).log())
    ones = pool(torch.ones_like(x), torch.tensor([15, 4]), torch.Generator())
    torch.testing.assert_close(ones[:, 0], torch.ones(2))
    fours = x[1, :, 0].unique()
    assert (4 * some[1, 0]).round() != 4 * x[1, :4].mean()  # not the first ones
    assert fours.min() <= some[1, 0] <= fours.max()


def test_the_prior_is_the_bell_curve_of_the_flow():
    theta = torch.tensor([[0.3, 0.8], [0.1, 1.0]])
    assert stretch(theta)[0].abs().max() < 1e-6 and stretch(theta).isfinite().all()
    flat = torch.distributions.Normal(0.0, 1.0).log_prob(stretch(theta[:1])).sum(-1)
    density = flat + log_slope(theta[:1])
    torch.testing.assert_close(density, torch.tensor([-math.log(0.4 * 0.4)]))
    with pytest.raises(ValueError, match="Omega_m from 0.1 to 0.5"):
        stretch(torch.tensor([[0.6, 0.8]]))


def test_shipped_posterior_reads_held_out_universes(base, shipped):
    test = open_maps("PM", "LH").split()[2]
    maps = test.maps[::5]
    theta = torch.as_tensor(test.params, dtype=torch.float32)
    x = base.summarise(maps).reshape(-1, 3, 8)
    three = shipped.log_prob(theta, x).mean()
    one = shipped.log_prob(theta, x[:, :1]).mean()
    assert 4 < one < three < 7.5 and three > one + 0.5
    found = infer(base, shipped, maps, together=3)
    torch.testing.assert_close(found.samples, shipped.sample(x))
    assert (found.mean - theta).abs().mean(0).max() < 0.03
    assert found.unlike.float().mean() < 0.06


def test_ranks_coverage_and_tarp_notice_a_wrong_width():
    draw = torch.Generator().manual_seed(0)
    centre = torch.tensor([0.3, 0.8]) + 0.05 * torch.randn(2000, 2, generator=draw)
    noise = 0.02 * torch.randn(401, 2000, 2, generator=draw)
    truth = centre + noise[0]
    for factor, low, high in ((1.0, 0.65, 0.71), (0.6, 0.4, 0.5), (2.0, 0.9, 1.0)):
        samples = centre + factor * noise[1:]
        assert low < covered(ranks(samples, truth), 0.68).mean() < high
        middle = covered(tarp(samples, truth), 0.68).mean()
        assert abs(middle - 0.68) < 0.03 if factor == 1 else abs(middle - 0.68) > 0.05
    assert covered(torch.tensor([0.2, 0.1, 0.84, 0.5]), 0.68).tolist() == [1, 0, 1, 1]


def test_check_keeps_its_rate_and_sees_what_does_not_fit():
    draw = torch.Generator().manual_seed(0)
    normal = lambda *size: torch.randn(*size, generator=draw)
    def maps(n):
        x = 3 + normal(n, 3) @ torch.diag(torch.tensor([1.0, 2, 5]))
        power = x[:, :1] * x[:, 1:2] + x[:, 2:] ** 2 + normal(n, 4)
        return x, power
    check = MapCheck(3, 4).learn(*maps(3000), *maps(3000))
    x, power = maps(3000)
    assert 0.004 < check(x, power).float().mean() < 0.018
    assert check(x, power + 6).float().mean() > 0.9  # spectrum that does not fit
    assert check(x + 30, power).all()


def test_a_check_from_disk_knows_how_many_maps_a_simulation_has(shipped, tmp_path):
    draw = torch.Generator().manual_seed(0)
    numbers = [torch.randn(100, n, generator=draw) for n in (3, 4)]
    learned = MapCheck(3, 4, each=5).learn(*numbers, *numbers)
    loaded = MapCheck(3, 4, each=5)
    loaded.load_state_dict(learned.state_dict())
    for check in (learned, loaded):
        assert len(check.whole(*numbers)) == 20
        with pytest.raises(ValueError, match="^fingerprint: expected 5 of each simula"):
            check.whole(numbers[0][:98], numbers[1][:98])
    shipped.save_pretrained(tmp_path)
    for found in (shipped, Posterior.from_pretrained(tmp_path)):
        with pytest.raises(ValueError, match="^together=5: expected 1, or 15, the map"):
            found.check.expected.surprise(torch.ones(20, 8), torch.ones(20, 34), 5)


@pytest.mark.parametrize(("n", "refused"), [(9, True), (26, True), (28, False)])
def test_limits_from_too_few_maps_are_refused(n, refused):
    "Three simulations once gave limits of 2e11 and 3e9: nothing was unlike."
    draw = torch.Generator().manual_seed(0)
    numbers = [torch.randn(n, columns, generator=draw) for columns in (3, 4)]
    check = MapCheck(3, 4, each=1)
    before = {name: part.clone() for name, part in check.state_dict().items()}
    if not refused:
        assert (check.learn(*numbers, *numbers).limits < 1e3).all()
        return
    with pytest.raises(ValueError, match="^x: expected 28 maps or more, twice the 10 "
                       f"terms of a parabola and the 4 bins .*, found {n}$"):
        check.learn(*numbers, *numbers)
    for name, part in check.state_dict().items(): assert torch.equal(part, before[name])


def test_a_new_fit_forgets_the_check_of_other_summaries():
    "Else every one of its own training maps was unlike the training maps."
    (theta, x), (theta_val, x_val) = known(40, 3, 0), known(20, 3, 1)
    found, power = Posterior(**SMALL), torch.zeros(120, 1)
    power += torch.randn(120, 1, generator=torch.Generator().manual_seed(0))
    found.fit(x, theta, x_val, theta_val, epochs=1)
    for shift in (0, 100):
        flat = shift + x.flatten(0, 1)
        found.check.learn(flat, power, flat, power)
        assert not found.check(flat, power).all()
        assert found.check(flat + 50, power).all()
        found.fit(50 + shift + x, theta, 50 + shift + x_val, theta_val, epochs=1)
        assert not found.check(flat + 50, power).any()
    assert all(part.dtype == torch.float64 for part in found.check.state_dict().values()
               if part.is_floating_point())


def test_a_rate_that_is_too_high_can_be_lowered_as_the_message_says():
    parts = *known(40, 3, 0)[::-1], *known(20, 3, 1)[::-1]
    with pytest.raises(FloatingPointError, match=r"try a lower lr than 1e\+30"):
        Posterior(**SMALL).fit(*parts, epochs=2, lr=1e30)
    Posterior(**SMALL).fit(*parts, epochs=2, lr=1e-3)


def test_warm_maps_are_told_apart_and_cold_ones_pass(base, shipped):
    cold = infer(base, shipped, CV.maps[::5], draws=10)
    assert cold.unlike.float().mean() < 0.08
    warm = open_maps("PM", "WDM")
    warmest = 15 * int(np.argmin(warm.params[:, 2]))
    with pytest.warns(UserWarning, match="3 of 3 maps are not like the training maps"):
        infer(base, shipped, warm.maps[warmest:warmest + 3], draws=10)


def test_fifteen_maps_find_a_stranger_that_one_map_may_not_be(base, shipped):
    warm = open_maps("PM", "WDM")
    heaviest = 15 * int(np.argmax(warm.params[:, 2]))
    maps = warm.maps[heaviest:heaviest + 15]
    alone = infer(base, shipped, maps, draws=10).unlike
    assert alone.float().mean() < 0.7
    with pytest.warns(UserWarning, match="15 of 15 maps .*a few good maps look so too, "
                                         "alone or with their whole simulation"):
        assert infer(base, shipped, maps, 15, draws=10).unlike.all()
    assert not infer(base, shipped, CV.maps[:15], 15, draws=10).unlike.all()


def test_it_comes_back_from_disk(shipped, folder, tmp_path):
    shipped.save_pretrained(tmp_path / "new")
    again = Posterior.from_pretrained(tmp_path / "new")
    x = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.sample(x, 50), shipped.sample(x, 50))
    assert sum((tmp_path / "new" / name).stat().st_size for name in FILES) < 100_000


@pytest.mark.parametrize("around", (
    torch.inference_mode, lambda: torch.device("meta"), torch.no_grad),
    ids=("inference mode", "another device", "no gradients"))
def test_it_loads_whatever_surrounds_it_and_moves_no_random_numbers(shipped, around):
    before = torch.get_rng_state()
    with around(): found = Posterior.from_pretrained("base")
    assert torch.equal(torch.get_rng_state(), before)
    for name, part in shipped.state_dict().items():
        assert torch.equal(found.state_dict()[name], part), name
    theta, x = known(4, 3, 0)
    found.flow.loss(stretch(theta), found.tell(x.repeat(1, 1, 4))).mean().backward()
    assert all(w.grad is not None for w in found.flow.parameters() if w.requires_grad)


def test_it_comes_from_the_same_revision_of_the_hub_as_its_model(monkeypatch):
    asked = []
    def hub(name, allow_patterns, **given):
        asked.append(given)
        return find_model("base")
    monkeypatch.setattr("cosmoflow.model.snapshot_download", hub)
    given = {"revision": "v1", "token": "secret", "cache_dir": "elsewhere",
             "local_files_only": True, "force_download": True}
    for kind in (CosmoFlow, Posterior):
        kind.from_pretrained("user/model", **given)
        kind.from_pretrained("hub:user/model")
    assert asked[:2] == asked[2:] and asked[0] == given
    takes = [{p.name: p.default for p in inspect.signature(f).parameters.values()
              if p.kind is p.KEYWORD_ONLY}
             for f in (CosmoFlow.from_pretrained, Posterior.from_pretrained)]
    assert takes[0] == takes[1]


def test_a_posterior_refuses_the_summaries_of_another_encoder(base, shipped, tmp_path):
    maps = CV.maps[:2]
    mini = CosmoFlow.from_pretrained("mini", "cpu")
    wrong = deepcopy(base)
    wrong.normalizer = replace(base.normalizer, std=1.01 * base.normalizer.std)
    for model in (mini, wrong):
        with pytest.raises(ValueError, match=r"^model: its encoder is (?!b6d24b005ce0)"
                           r"\w{12}, but .* of b6d24b005ce0; give the model"):
            infer(model, shipped, maps, draws=10)
    decoder = deepcopy(base)  # may learn: it makes no summaries
    with torch.no_grad(): next(decoder.unet.parameters()).zero_()
    base.save_pretrained(tmp_path, dtype=torch.float16)  # a file of half the size
    for model in (decoder, CosmoFlow.from_pretrained(tmp_path, "cpu")):
        infer(model, shipped, maps, draws=10)


def test_an_old_posterior_beside_new_weights_is_refused(shipped, base, tmp_path):
    mini = CosmoFlow.from_pretrained("mini", "cpu")
    mini.save_pretrained(tmp_path)
    shipped.save_pretrained(tmp_path)
    old = Posterior.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="fit a new posterior"):
        infer(mini, old, CV.maps[:2])
    (theta, x), (theta_val, x_val) = known(40, 3, 0), known(20, 3, 1)
    parts = [x.repeat(1, 1, 4), theta, x_val.repeat(1, 1, 4), theta_val]
    old.fit(*parts, epochs=1, model=mini).save_pretrained(tmp_path)
    infer(mini, Posterior.from_pretrained(tmp_path), CV.maps[:2], draws=10)
    with pytest.raises(ValueError, match="fit a new posterior"):
        infer(base, old, CV.maps[:2])
    assert old.fit(*parts, epochs=1).encoder is None  # nobody said whose these are
    old.save_pretrained(tmp_path)
    infer(base, Posterior.from_pretrained(tmp_path), CV.maps[:2], draws=10)
    with pytest.raises(ValueError, match="^model: expected a CosmoFlow, found str"):
        old.fit(*parts, model="mini")


def cut(path): path.write_bytes(path.read_bytes()[:-100])
def no_json(path): path.with_suffix(".json").write_text("{", encoding="utf-8")
def other(path): path.with_suffix(".json").write_text('{"hidden": 8}', encoding="utf-8")
def strange(path): path.with_suffix(".json").write_text('{"a": 8}', encoding="utf-8")
def lost(path):
    tensors = load_file(path)
    del tensors["width"]
    save_file(tensors, path)


def said(**settings):
    "Other settings in the JSON than those of the weights."
    def change(path):
        text = path.with_suffix(".json").read_text(encoding="utf-8")
        text = json.dumps(json.loads(text) | settings)
        path.with_suffix(".json").write_text(text, encoding="utf-8")
    return change


def filled(part, value):
    "Weights of which one tensor is this number throughout."
    def change(path):
        tensors = load_file(path)
        name = next(name for name, value in tensors.items()
                    if part in name and value.is_floating_point())
        save_file(tensors | {name: torch.full_like(tensors[name], value)}, path)
    return change


HUGE = 10**9
DAMAGE = {
    "cut": cut, "no JSON": no_json, "other": other, "strange": strange, "lost": lost,
    "hidden huge": said(hidden=HUGE), "transforms huge": said(transforms=HUGE),
    "bins huge": said(bins=HUGE), "pixels 0": said(pixels=0),
    "pixels huge": said(pixels=HUGE), "features text": said(features="8"),
    "hidden NaN": said(hidden=float("nan")), "encoder huge": said(encoder=HUGE),
    "width 0": filled("width", 0.0), "width below": filled("width", -1.0),
    "width NaN": filled("width", float("nan")), "scatter 0": filled("std", 0.0),
    "flow NaN": filled("flow", float("nan")), "check NaN": filled("check", math.inf),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused_and_named(folder, damage):
    damage(folder / FILES[1])
    with pytest.raises(ValueError, match=str(folder)):
        Posterior.from_pretrained(folder)


def test_nothing_is_unpickled(folder):
    torch.save({"width": torch.ones(15)}, folder / FILES[1])
    with pytest.raises(ValueError, match="do not make a posterior"):
        Posterior.from_pretrained(folder)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sbi.neural_nets.net_builders", None)
    with pytest.raises(ImportError, match=r'pip install "cosmoflow\[posterior\]"'):
        Posterior.from_pretrained("base")


@pytest.mark.parametrize("given, message", [
    (dict(together=4), "together=4: expected a divisor"),
    (dict(together=16), "together=16: expected a whole number from 1 to 15"),
    (dict(draws=0), "draws=0"),
    (dict(draws=10**9), "draws=1000000000: .* whole number from 1 to 1000000"),
    (dict(maps=np.log10(CV.maps[:6])), "are they log10 maps"),
    (dict(maps=CV.maps[:1, :32, :32]), "expected shape"),
])
def test_what_cannot_be_inferred_is_refused(base, shipped, given, message):
    with pytest.raises(ValueError, match=message):
        infer(base, shipped, **(dict(maps=CV.maps[:6]) | given))
    with pytest.raises(ValueError, match="1 to 15 maps"):
        shipped.sample(torch.zeros(1, 16, 8))


def test_too_many_draws_are_refused_before_any_map_is_encoded(
        base, shipped, monkeypatch):
    encoded = []
    monkeypatch.setattr(CosmoFlow, "summarise", lambda *a, **k: encoded.append(a))
    for ask in (lambda: infer(base, shipped, CV.maps[:2], draws=1_000_001),
                lambda: shipped.sample(torch.zeros(1, 1, 8), 1_000_001)):
        with pytest.raises(ValueError, match="^draws=1000001: .* 1 to 1000000$"): ask()
    assert not encoded


@pytest.mark.parametrize(("posterior_at", "summaries_at"), [
    ("cpu", FAR), (FAR, "cpu"), (FAR, FAR)], ids=str)
def test_answers_lie_where_the_summaries_lay_and_do_not_depend_on_the_device(
        shipped, posterior_at, summaries_at):
    theta, x = known(6, 3, 0)
    x = x.repeat(1, 1, 4)
    expected = shipped.log_prob(theta, x), shipped.sample(x, 20, 3)
    with far_device():
        moved, x = deepcopy(shipped).to(posterior_at), x.to(summaries_at)
        for at in ("cpu", FAR):
            found = moved.log_prob(theta.to(at), x), moved.sample(x, 20, 3)
            for one, other in zip(found, expected):
                assert one.device == torch.device(summaries_at)
                torch.testing.assert_close(one.cpu(), other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("posterior_at", "maps_at"), [
    ("cpu", FAR), (FAR, "cpu"), (FAR, FAR)], ids=str)
def test_maps_and_posterior_may_be_apart(base, shipped, posterior_at, maps_at):
    maps = torch.from_numpy(np.array(CV.maps[:15]))
    expected = infer(base, shipped, maps, 15, draws=20)
    with far_device():
        found = infer(base, deepcopy(shipped).to(posterior_at), maps.to(maps_at), 15,
                      draws=20)
        assert found.samples.device == found.unlike.device == torch.device(maps_at)
        torch.testing.assert_close(found.samples.cpu(), expected.samples, atol=1e-3,
                                   rtol=1e-3)
        assert torch.equal(found.unlike.cpu(), expected.unlike)


def learned(posterior_at, parts_at):
    "A small posterior that has learned all it can, there from what lies there."
    (theta, x), (theta_val, x_val) = known(40, 3, 0), known(20, 3, 1)
    x, theta, x_val, theta_val = (p.to(parts_at) for p in (x, theta, x_val, theta_val))
    found = Posterior(**SMALL).to(posterior_at)
    found.fit(x, theta, x_val, theta_val, epochs=1).widen(x_val, theta_val)
    found.check = MapCheck(2, 1, each=3).double().to(posterior_at)
    flat, held = x.flatten(0, 1), x_val.flatten(0, 1)
    found.check.learn(flat, flat[:, :1] ** 2, held, held[:, :1] ** 2)
    return found.state_dict()


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")  # of the emulation
@pytest.mark.parametrize(("posterior_at", "parts_at"), [
    ("cpu", FAR), (FAR, "cpu"), (FAR, FAR)], ids=str)
def test_it_learns_the_same_on_every_device(posterior_at, parts_at):
    expected = learned("cpu", "cpu")
    with far_device():
        for name, part in learned(posterior_at, parts_at).items():
            assert part.device == torch.device(posterior_at), name
            torch.testing.assert_close(part.cpu(), expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ask", (ranks, tarp))
def test_draws_and_truths_may_be_apart(ask):
    samples = torch.tensor([0.1, 0.6]) + 0.4 * torch.rand(50, 4, 2)
    theta = samples[0].clone()
    expected = ask(samples, theta)
    with far_device():
        for at, truths_at in (("cpu", FAR), (FAR, "cpu"), (FAR, FAR)):
            found = ask(samples.to(at), theta.to(truths_at))
            assert found.device == torch.device(at)
            torch.testing.assert_close(found.cpu(), expected)


def test_parameters_are_stretched_where_they_are():
    theta, x = known(5, 3, 0)
    with far_device():
        there = theta.to(FAR)
        for found, expected in ((squash(stretch(there)), theta),
                                (log_slope(there), log_slope(theta))):
            assert found.device == FAR
            torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
        dice = lambda: torch.Generator().manual_seed(0)
        count = torch.tensor([1, 2, 3, 2, 1])
        torch.testing.assert_close(pool(x.to(FAR), count, dice()).cpu(),
                                   pool(x, count, dice()))


def test_the_command_says_what_the_package_says(
        tmp_path, monkeypatch, capsys, base, shipped):
    monkeypatch.chdir(tmp_path)
    np.save("maps.npy", CV.maps[:6])
    cli.main("infer maps.npy --together 3 --draws 300 --seed 5 --out x.csv "
             "--corner x.png".split())
    said = capsys.readouterr().out.splitlines()
    found = infer(base, shipped, CV.maps[:6], 3, 300, 5)
    low, high = found.interval()
    with open("x.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [row["maps"] for row in rows] == ["0 to 2", "3 to 5"]
    for b, row in enumerate(rows):
        for p, name in enumerate(("Omega_m", "sigma_8")):
            numbers = found.mean[b, p], low[b, p], high[b, p]
            for end, number in zip(("mean", "low", "high"), numbers):
                assert abs(float(row[f"{name}_{end}"]) - number) < 6e-5
                assert f"{float(row[f'{name}_{end}']):.3f}" in said[b + 1]
    assert said[-2:] == ["x.csv: 2 rows", "x.png"]
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_maps_that_cannot_be_right_pass_if_told_so(base, shipped):
    with pytest.warns(UserWarning, match="3 of 3 maps are not like"):
        found = infer(base, shipped, np.log10(CV.maps[:3]), draws=10, check=False)
    assert found.samples.shape == (10, 3, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_in_another_precision_infers(shipped, dtype):
    single = infer(CosmoFlow.from_pretrained("base"), shipped, CV.maps[:2], draws=200)
    other = infer(CosmoFlow.from_pretrained("base").to(dtype), shipped, CV.maps[:2],
                  draws=200)
    assert (other.mean - single.mean).abs().max() < 0.02


def test_intervals_of_more_universes_than_torch_sorts_at_once():
    n = 2_200_000
    samples = torch.rand(4, n, 2, generator=torch.Generator().manual_seed(0))
    low, high = Inferred(samples, torch.zeros(n, 1, dtype=torch.bool)).interval()
    torch.testing.assert_close(low[-3:], samples[:, -3:].quantile(0.16, 0))
    assert high.shape == (n, 2)


def test_corner_draws_what_it_is_given():
    samples = torch.rand(50, 7, 2, generator=torch.Generator().manual_seed(0))
    plane = corner(samples, samples[0], most=3).axes[2]
    drawn = [line.get_xydata() for line in plane.lines]
    clouds = [line for line in drawn if len(line) == 50]
    np.testing.assert_allclose(clouds, samples[:, :3].transpose(0, 1))
    assert len(drawn) == 6


def test_spectra_that_the_check_reads_are_the_usual_ones(shipped):
    assert spectrum_features(CV.maps[:2]).shape[1] == shipped.settings["bins"]
    said = json.loads((find_model("base") / FILES[0]).read_bytes())
    assert said == shipped.settings | {"encoder": shipped.encoder}


def test_a_posterior_that_was_given_no_limits_is_saved_too(tmp_path):
    fresh = Posterior()
    fresh.save_pretrained(tmp_path)
    again = Posterior.from_pretrained(tmp_path).state_dict()
    for name, part in fresh.state_dict().items(): assert torch.equal(part, again[name])


@pytest.mark.parametrize("bad", (math.nan, math.inf))
def test_what_is_no_number_is_refused_and_never_called_like(shipped, bad):
    x, theta = torch.full((1, 1, 8), bad), torch.tensor([[0.3, 0.8]])
    for ask in (lambda: shipped.sample(x, 5), lambda: shipped.log_prob(theta, x)):
        with pytest.raises(ValueError, match="^x: expected finite numbers"): ask()
    with pytest.raises(ValueError, match="^theta: expected Omega_m from"):
        shipped.log_prob(bad * theta, torch.zeros(1, 1, 8))
    assert shipped.check(x[0], torch.zeros(1, 34)).all()
    assert shipped.check.whole(x[0].expand(15, -1), torch.zeros(15, 34)).all()
    with pytest.raises(ValueError, match="^mass="):
        Inferred(torch.zeros(5, 1, 2), x[0] > 0).interval(bad)


def test_numbers_in_another_precision_are_read(shipped):
    "Tables of parameters have float64, and counts may be NumPy's."
    theta, x = torch.tensor([[0.3, 0.8]]), torch.zeros(1, 1, 8)
    found = shipped.log_prob(theta.double(), x.double())
    assert torch.equal(found, shipped.log_prob(theta, x))
    drawn = shipped.sample(x.double(), np.int64(5), np.int64(1))
    assert torch.equal(drawn, shipped.sample(x, 5, 1))


def without_double(t):
    "Moves a tensor as to an Apple GPU."
    if t.dtype == torch.float64: raise TypeError("the MPS framework has no float64")
    return t.clone()


def test_a_posterior_goes_where_there_is_no_double_precision(base, shipped):
    expected = infer(base, shipped, CV.maps[:15], 15, draws=10)
    moved = deepcopy(shipped)._apply(without_double)
    assert {part.dtype for part in moved.check.state_dict().values()} == {torch.float64}
    found = infer(base, moved, CV.maps[:15], 15, draws=10)
    torch.testing.assert_close(found.samples, expected.samples)
    assert torch.equal(found.unlike, expected.unlike)
    flat, power = torch.randn(2, 60, 1, generator=torch.Generator().manual_seed(0))
    learned = [MapCheck(1, 1, each=5).learn(*kind, *kind).state_dict() for kind in (
        (flat, power), (flat.as_subclass(Single), power.as_subclass(Single)))]
    for one, other in zip(*(state.values() for state in learned)):
        torch.testing.assert_close(one, other)


def test_a_curve_is_fitted_to_noise_from_any_device():
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    for one, other in zip(fit_bell(z), fit_bell(z.as_subclass(Single))):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("bad", (math.nan, math.inf))
def test_what_is_no_number_gets_no_verdict(bad):
    "NaN is below nothing, so it had a rank of 0, and its interval missed the truth."
    figures, samples = plt.get_fignums(), 0.3 + 0.1 * torch.rand(50, 4, 2)
    theta = samples[0].clone()
    spoilt = samples.clone()
    spoilt[7, 1, 0] = bad
    for ask in (ranks, tarp, corner):
        with pytest.raises(ValueError, match="^samples: expected finite numbers"):
            ask(spoilt, theta)
    for ask in (ranks, tarp):
        with pytest.raises(ValueError, match="^theta: expected finite numbers"):
            ask(samples, spoilt[7])
    with pytest.raises(ValueError, match="^rank: expected finite numbers"):
        covered(torch.tensor([0.5, bad]), 0.68)
    assert plt.get_fignums() == figures


@pytest.mark.parametrize("mass", (68, -0.1, math.nan, "0.68"))
def test_the_share_of_an_interval_is_no_percentage(mass):
    "Within 68 all ranks lie, so intervals seemed to hold every truth."
    found = Inferred(torch.rand(5, 1, 2), torch.zeros(1, 1))
    words = f"={mass!r}: expected a share from 0 to 1"
    for ask in (lambda: covered(torch.rand(9), mass), lambda: found.interval(mass)):
        with pytest.raises(ValueError, match=f"^mass{words}"): ask()
    with pytest.raises(ValueError, match=f"^rate{words}"):
        MapCheck(1, 1).learn(*torch.rand(4, 60, 1), rate=mass)


@pytest.mark.parametrize("n, refused", [(1, True), (9, True), (10, False)])
def test_no_width_is_learned_from_a_handful_of_simulations(n, refused):
    "One simulation made its posterior less than half as wide, and all others wrong."
    found, (theta, x) = Posterior(**SMALL), known(10, 3, 0)
    before = {name: part.clone() for name, part in found.state_dict().items()}
    if not refused:
        assert (found.widen(x, theta).width != 1).all()
        return
    with pytest.raises(ValueError, match=f"^x: expected ten held-out .*, found {n}$"):
        found.widen(x[:n], theta[:n])
    for name, part in found.state_dict().items(): assert torch.equal(part, before[name])

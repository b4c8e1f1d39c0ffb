"""Numbers by hand: painting, spectra in other boxes, layers, masks, priors, costs."""
import ast
import inspect
import math
import re
import statistics
from dataclasses import fields, is_dataclass
from importlib import import_module
from itertools import permutations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, randomised

from cosmoflow import bench, core, encoder, inference, layers, model, unet
from cosmoflow.anomaly import Expectation
from cosmoflow.core import BOX, evaluating, standard_error
from cosmoflow.data import Normalizer, lower_resolution, open_maps
from cosmoflow.encoder import EncoderBlock, fold, summary
from cosmoflow.flow import channel_mask
from cosmoflow.inference import Scaler, fit_regressor, spectrum_features
from cosmoflow.layers import PeriodicUp, periodic_pad, upsample
from cosmoflow.model import draw_fields, field_prior
from cosmoflow.scales import (ChannelOrder, ChannelScales, best_order, draw_rest,
                              exact_p, halvings, known_cost, mixture_cost, saving,
                              selectivity, sorting_score, spearman, swap_changes,
                              unknown_cost)
from cosmoflow.simulate import (paint_slabs, round_mantissa, simulation_table,
                                wdm_transfer)
from cosmoflow.spectra import (cross_correlation, log_values, pdf_distance,
                               power_spectrum, spectrum_error)
from cosmoflow.unet import AdaGN, SelfAttention, time_embedding

CELL = 25 / 16  # of a map of 16 pixels, Mpc/h


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def paint(*where, count=1.0):
    "Maps of particles at these places, in cells: (3 axes, 5 slabs, 16, 16)."
    pytest.importorskip("pmpp")
    import jax.numpy as jnp
    places = CELL * jnp.asarray(where, jnp.float32)
    return np.asarray(paint_slabs(places, 16, BOX, count)).reshape(3, 5, 16, 16)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("offset, split", [
    ((0, 0), {(0, 0): 1}),
    ((0.25, 0), {(0, 0): 0.75, (1, 0): 0.25}),
    ((-0.25, 0), {(0, 0): 0.75, (-1, 0): 0.25}),
    ((0, 0.25), {(0, 0): 0.75, (0, 1): 0.25}),
    ((0.5, -0.25), {(0, 0): 0.375, (1, 0): 0.375, (0, -1): 0.125, (1, -1): 0.125})])
def test_a_particle_paints_the_cells_that_it_is_in(axis, offset, split):
    "A cell's centre is half a cell from its edge; beyond the last cell is the first."
    for row, column in ((3, 11), (15, 0)):
        place = [row + 0.5 + offset[0], column + 0.5 + offset[1]]
        place.insert(axis, 7.0)  # slab 7 / 3.2 = 2
        expected = np.zeros((5, 16, 16))
        for (i, j), share in split.items():
            expected[2, (row + i) % 16, (column + j) % 16] = share
        np.testing.assert_allclose(paint(place)[axis], expected, atol=1e-5)


def test_a_map_s_centre_of_mass_is_the_particles():
    places = np.random.default_rng(0).uniform(2, 14, (9, 3))
    maps = paint(*places)
    np.testing.assert_allclose(maps.sum((1, 2, 3)), 9, rtol=1e-5)
    centre = np.arange(16) + 0.5
    for axis, plane in enumerate(maps.sum(1)):
        rows, columns = np.delete(places, axis, 1).mean(0)
        assert (plane.sum(1) * centre).sum() / 9 == pytest.approx(rows, rel=1e-4)
        assert (plane.sum(0) * centre).sum() / 9 == pytest.approx(columns, rel=1e-4)
        slabs = np.bincount((places[:, axis] // 3.2).astype(int), minlength=5)
        np.testing.assert_allclose(maps[axis].sum((1, 2)), slabs, rtol=1e-5)


def test_empty_room_on_a_device_paints_nothing():
    count = np.array([0.0, 1.0], np.float32)
    maps = paint((3.5, 3.5, 3.5), (8.5, 8.5, 8.5), count=count)
    assert maps.sum() == 3 and maps[0, 1, 3, 3] == 0 and maps[0, 2, 8, 8] == 1


def test_warm_matter_is_suppressed_by_the_formula():
    k, mass, omega_m = 5.0, 0.5, 0.3
    alpha = 0.048 * (1 / mass) ** 1.15
    alpha *= ((omega_m - 0.049) / 0.4) ** 0.15 * (0.6711 / 0.65) ** 1.3
    expected = (1 + (alpha * k) ** (2 * 1.2)) ** (-5 / 1.2)
    assert wdm_transfer(k, mass, omega_m) == pytest.approx(expected)
    assert wdm_transfer(k, np.inf, omega_m) == 1


def test_rounding_takes_the_nearest_and_of_two_the_even():
    x = np.array([1 + 1 / 16, 1 + 3 / 16, 1 + 1.1 / 16, 1 + 0.9 / 16], np.float32)
    expected = [1, 1 + 2 / 8, 1 + 1 / 8, 1]  # three bits: eighths
    np.testing.assert_array_equal(round_mantissa(x, 3), np.array(expected, np.float32))


def test_the_sets_span_what_they_say():
    lh, mass = simulation_table("LH").params, simulation_table("WDM").params[:, 2]
    for i, (low, high) in enumerate(((0.1, 0.5), (0.6, 1.0))):
        assert lh[:, i].mean() == pytest.approx((low + high) / 2, rel=1e-3)
        assert lh[:, i].std() == pytest.approx((high - low) / 12**0.5, rel=1e-2)
    assert np.log(mass).mean() == pytest.approx(np.log(0.25) / 2, abs=0.1)


def test_lower_resolution_is_the_mean_of_blocks():
    maps = np.random.default_rng(0).random((2, 6, 6), np.float32)
    for pixels in (1, 2, 3):
        f = 6 // pixels
        low = lower_resolution(maps, pixels)
        for i in range(pixels):
            for j in range(pixels):
                block = maps[:, i * f:(i + 1) * f, j * f:(j + 1) * f]
                np.testing.assert_allclose(low[:, i, j], block.mean((1, 2)), rtol=1e-6)


def test_a_normaliser_by_hand():
    norm = Normalizer(11.0, 0.5, 1e9)
    maps = torch.tensor([[[1e11, 1e12], [1e9, 0.0]]])
    expected = torch.tensor([[[[0.0, 2.0], [-4.0, -4.0]]]])  # 0 is below the floor
    torch.testing.assert_close(norm(maps), expected)
    back = torch.tensor([[[1e11, 1e12], [1e9, 1e9]]])
    torch.testing.assert_close(norm.inverse(expected), back, rtol=1e-4, atol=0)


def test_a_larger_box_has_longer_waves_and_more_power():
    maps = 10 ** (11 + 0.3 * torch.randn(2, 16, 16, generator=seeded()))
    for of in ("density", "log"):
        (k, power), (k_2, power_2) = (power_spectrum(maps, b, of) for b in (25.0, 50.0))
        torch.testing.assert_close(k_2, k / 2)
        torch.testing.assert_close(power_2, 4 * power)
    assert k[0].item() == pytest.approx(2 * math.pi / 25 * (4 + 4 * 2**0.5) / 8)


@pytest.mark.parametrize("mode, found", [(6, 0.21), (12, 0.21), (15, 0.0)])
def test_a_spectrum_is_judged_to_0_8_of_nyquist(mode, found):
    "One ring of modes with 1.1 times its amplitude; Nyquist is mode 16."
    log = torch.randn(2, 32, 32, dtype=torch.double, generator=seeded())
    f = torch.fft.fftfreq(32, 1 / 32)
    ring = torch.hypot(f[:, None], f[None, :17]).round() == mode
    changed = torch.fft.irfft2(torch.fft.rfft2(log) * (1 + 0.1 * ring), s=(32, 32))
    maps = (10 ** (11 + 0.1 * m) for m in (changed, log))
    assert spectrum_error(*maps) == pytest.approx(found, abs=1e-6)


def test_distributions_know_no_places():
    a = 10 ** (11 + torch.rand(2, 8, 8, generator=seeded()))
    b = 10 ** (11 + torch.rand(2, 8, 8, generator=seeded(1)))
    logs = [sorted(math.log10(v) for v in m[0].flatten().tolist()) for m in (a, b)]
    expected = statistics.fmean(abs(x - y) for x, y in zip(*logs))
    assert pdf_distance(a, b)[0].item() == pytest.approx(expected, rel=1e-4)
    for unit in (1e-3, 1e-13, 1e-20):  # maps of another field may lie below 1
        torch.testing.assert_close(pdf_distance(unit * a, unit * b), pdf_distance(a, b))
    mixed = a.flatten(1)[:, torch.randperm(64, generator=seeded())].view_as(a)
    assert pdf_distance(a, mixed).max() == 0


def test_padding_has_torch_s_value_and_gradient():
    x = torch.randn(2, 3, 4, 6, dtype=torch.double, generator=seeded())
    x.requires_grad_()
    for width in (1, 2, 4):
        ours, theirs = periodic_pad(x, width), F.pad(x, (width,) * 4, mode="circular")
        weight = torch.randn(ours.shape, dtype=torch.double, generator=seeded(1))
        grads = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs)]
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_upsampling_keeps_every_pixel_in_its_place(factor):
    "A bright pixel becomes a bump around the middle of its block."
    for i, j in ((2, 3), (0, 5)):
        x = torch.zeros(1, 1, 4, 6)
        x[0, 0, i, j] = 1
        bump = upsample(x, factor)[0, 0]
        assert bump.sum().item() == pytest.approx(factor**2)
        centred = bump.roll((factor * (1 - i), factor * (1 - j)), (0, 1))
        for side, axis in ((4, 1), (6, 0)):
            centre = (centred.sum(axis) * torch.arange(side * factor)).sum() / factor**2
            assert centre.item() == pytest.approx(factor + (factor - 1) / 2)


def test_a_transposed_convolution_puts_pixel_i_at_2_i():
    up, x = PeriodicUp(1, 1), torch.randn(1, 1, 4, 6, generator=seeded())
    torch.nn.init.zeros_(up.bias)
    for tap in (-2, -1, 0, 1, 2):
        torch.nn.init.zeros_(up.weight)
        up.weight.data[0, 0, 2 + tap, 2] = 1
        expected = torch.zeros(1, 1, 8, 12)
        expected[..., ::2, ::2] = x
        torch.testing.assert_close(up(x).detach(), expected.roll(tap, -2))


def test_a_block_adds_to_what_comes_in():
    block = EncoderBlock(4, 4).eval()
    torch.nn.init.zeros_(block.residual[-1].weight)  # nothing to add
    x = torch.randn(2, 4, 8, 8, generator=seeded())
    torch.testing.assert_close(block(x), x.clamp_min(0))


def test_a_summary_is_a_mean():
    field = torch.randn(2, 3, 4, 5, generator=seeded())
    expected = [[statistics.fmean(c.flatten().tolist()) for c in one] for one in field]
    torch.testing.assert_close(summary(field), torch.tensor(expected))


def test_the_unet_s_parts_by_their_formulas():
    torch.manual_seed(0)
    norm, h = AdaGN(16, 5), torch.randn(2, 16, 4, 4)
    t, z = torch.randn(2, 2, 5)
    for p in norm.parameters(): torch.nn.init.normal_(p)
    column = lambda layer, x: layer(x)[:, :, None, None].chunk(2, 1)
    (t_s, t_b), (z_s, z_b) = column(norm.from_t, t), column(norm.from_z, z)
    expected = (1 + z_s) * ((1 + t_s) * norm.norm(h) + t_b) + z_b
    torch.testing.assert_close(norm(h, t, z), expected)
    found = time_embedding(torch.tensor([0.25]), 8)[0]
    angles = [0.25 * 10.0 ** power for power in range(4)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_attention_by_loops():
    torch.manual_seed(0)
    layer, h = SelfAttention(8, 2), torch.randn(1, 8, 2, 3)
    for p in layer.parameters(): torch.nn.init.normal_(p)
    tokens = layer.norm(h)[0].flatten(1).T
    q, k, v = (x.view(6, 2, 4) for x in layer.qkv(tokens).chunk(3, 1))
    heads = []
    for head in range(2):
        weight = (q[:, head] @ k[:, head].T / 2).softmax(1)  # root of 4
        heads.append(weight @ v[:, head])
    expected = h + layer.out(torch.cat(heads, 1)).T.view(1, 8, 2, 3)
    torch.testing.assert_close(layer(h), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_the_mask_counts_down(channels):
    "Channel 0 lives to the end, at t = 1 too; the last one goes first."
    times = [0.0, 0.1, 0.124, 0.125, 0.5, 0.874, 0.875, 0.99, 1.0]
    mask = channel_mask(torch.tensor(times), channels)[:, :, 0, 0]
    for t, row in zip(times, mask):
        live = max(1, channels - math.floor(channels * t))
        assert row.tolist() == [1.0] * live + [0.0] * (channels - live)


def test_the_velocity_sees_live_channels_alone():
    model, x = randomised(), torch.randn(1, 1, 16, 16, generator=seeded())
    field = torch.randn(1, 8, 1, 1, generator=seeded())
    velocity = lambda field: model.velocity(x, torch.tensor([0.4]), field)
    for channel in range(8):  # 8 - 3 are live
        changed = field.clone()
        changed[:, channel] += 1
        same = torch.equal(velocity(changed), velocity(field))
        assert same == (channel >= 5), channel


def test_every_mode_of_a_network_comes_back():
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    net[0].eval()
    with evaluating(net): assert not any(m.training for m in net.modules())
    assert [m.training for m in net.modules()] == [True, False, True]


def test_a_prior_holds_means_and_cross_spectra():
    "Two channels, the second a shift of the first: their cross-spectrum is complex."
    first = torch.randn(400, 1, 4, 4, generator=seeded())
    noise = 0.1 * torch.randn(400, 1, 4, 4, generator=seeded(1))
    field = torch.cat([first + 3, 2 * first.roll(1, 3) + noise - 5], 1)
    centred = field.numpy() - field.mean((0, 2, 3)).numpy()[:, None, None]
    modes = np.fft.fft2(centred) / 4
    expected = np.einsum("nchw,ndhw->hwcd", modes, modes.conj()) / 400
    assert np.abs(expected[0, 1, 0, 1].imag) > 1
    prior = field_prior(field)
    complex_prior = torch.view_as_complex(prior).numpy()
    mean, factor = complex_prior[:, :, 0], complex_prior[:, :, 1:]
    np.testing.assert_allclose(mean - [3, -5], 0, atol=0.1)
    product = factor @ factor.conj().swapaxes(2, 3)
    np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-4)
    drawn = draw_fields(prior, 4000, seeded(2)).numpy()
    np.testing.assert_allclose(drawn.mean((0, 2, 3)), field.mean((0, 2, 3)), atol=0.1)
    modes = np.fft.fft2(drawn - drawn.mean((0, 2, 3))[:, None, None]) / 4
    found = np.einsum("nchw,ndhw->hwcd", modes, modes.conj()) / 4000
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_the_rest_of_a_field_is_drawn_given_its_first_channels():
    "The second channel is a shift of the first, but for noise and another mean."
    first = torch.randn(400, 1, 4, 4, generator=seeded())
    noise = 0.1 * torch.randn(400, 1, 4, 4, generator=seeded(1))
    field = torch.cat([first + 3, 2 * first.roll(1, 3) + noise - 5], 1)
    whole = draw_rest(field_prior(field), field[:, :1], seeded(2))
    assert torch.equal(whole[:, :1], field[:, :1])
    off = whole[:, 1:] - (2 * first.roll(1, 3) - 5)
    assert abs(off.mean()) < 0.02 and abs(off.std() - 0.1) < 0.01
    assert (off - noise).std() > 0.1  # drawn, not remembered


def test_columns_are_scaled_on_their_own():
    x = torch.tensor([[1.0, 100.0], [3.0, 300.0], [5.0, 800.0]])
    scaler = Scaler.fit(x)
    for i in range(2):
        column = x[:, i].tolist()
        assert scaler.mean[i].item() == pytest.approx(statistics.fmean(column))
        assert scaler.std[i].item() == pytest.approx(statistics.stdev(column))
    torch.testing.assert_close(scaler(x), (x - scaler.mean) / scaler.std)
    torch.testing.assert_close(scaler.inverse(scaler(x)), x)


@pytest.mark.parametrize("value", (0.0, 0.1, 1.7, -11.03))
@pytest.mark.parametrize("n", (2, 100, 1000))
def test_a_column_that_never_varies_is_only_shifted(n, value):
    "In float32 its mean is a little off; over a tiny scatter, 1.7 became 596,046."
    x = torch.cat([torch.full((n, 1), value), torch.randn(n, 1, generator=seeded())], 1)
    scaler = Scaler.fit(x)
    assert scaler(x)[:, 0].abs().max() < 1e-5
    alone = x[:, :1].contiguous()  # is summed in another order
    assert Scaler.fit(alone)(alone).abs().max() < 1e-5
    torch.testing.assert_close(scaler(x + 1)[:, 0], torch.ones(n))
    torch.testing.assert_close(scaler.inverse(scaler(x)), x)
    expected = Expectation.fit(x[:, :0], x, 1)
    assert expected.scaled(x)[:, 0].abs().max() < 1e-5


@pytest.mark.parametrize("value", (0.3, 1.7, -11.03, 1e11))
@pytest.mark.parametrize("kind", (torch.float32, torch.float64))
def test_rounding_is_no_scatter(value, kind):
    "Divided by a scatter of 1e-9, what is off by a millionth was off by a thousand."
    near = value * (1 + 1e-9 * torch.randn(200, 1, generator=seeded(), dtype=kind))
    steps = torch.full((200, 1), value)  # in float32, from one number to the next
    steps[::3] = steps[::3].nextafter(torch.tensor(math.inf))
    truly = value * (1 + 1e-5 * torch.randn(200, 1, generator=seeded(), dtype=kind))
    x = torch.cat([near, steps.to(kind), truly], 1)
    scaler = Scaler.fit(x)
    assert Scaler.varies(x).tolist() == [False, False, True]
    assert torch.equal(scaler.std[:2], torch.ones(2, dtype=kind))
    assert torch.equal(scaler.std[2], x.std(0)[2])
    off = x + 1e-6 * abs(value)
    torch.testing.assert_close((scaler(off) - scaler(x))[:, :2], (off - x)[:, :2])
    expected = Expectation.fit(x[:, :0], x, 1)
    assert expected.scaled(x)[:, :2].abs().max() <= 1e-6 * abs(value)


def test_features_of_a_spectrum_know_no_unit():
    maps = 10 ** (11 + 0.3 * torch.randn(3, 8, 8, generator=seeded()))
    shift = spectrum_features(1e-13 * maps) - spectrum_features(maps)
    expected = torch.tensor([0, 0, 0, 0, -13.0, 0]).expand(3, 6)
    torch.testing.assert_close(shift, expected, rtol=0, atol=1e-4)


def test_an_empty_pixel_counts_as_one_or_less():
    maps = torch.tensor([[[0.0, 1e11], [2e11, 1e11]], [[0.0, 4e-3], [2e-3, 2e-3]]])
    found = log_values(maps)
    empty = torch.tensor([0.0, math.log10(2e-6)])
    torch.testing.assert_close(found[:, 0, 0], empty)
    torch.testing.assert_close(found[1, 0, 1].item(), math.log10(4e-3))
    below = log_values(maps[1:], like=maps[:1])  # the reference's floor
    assert below.eq(0).all()


def test_features_of_a_spectrum_are_these():
    maps = 10 ** (11 + 0.3 * torch.randn(3, 8, 8, generator=seeded()))
    log, found = maps.log10(), spectrum_features(maps, 50.0)
    power = power_spectrum(maps, 50.0, "log")[1]
    torch.testing.assert_close(found[:, :4], power.log10())
    for i in range(3):
        values = log[i].flatten().tolist()
        assert found[i, 4].item() == pytest.approx(statistics.fmean(values))
        assert found[i, 5].item() == pytest.approx(statistics.stdev(values), rel=1e-4)


def test_the_epoch_that_does_best_is_kept():
    "What is learnt is wrong for the validation part: an early epoch does best there."
    torch.manual_seed(0)
    x, net, outputs = torch.randn(64, 3), torch.nn.Linear(3, 1), []
    y = x.sum(1, keepdim=True) + 5
    hook = lambda m, _, out: None if m.training else outputs.append(out)
    net.register_forward_hook(hook)
    fit = fit_regressor(net, x, y, x, 10 - y, Scaler.fit(x), 4, 0.1, 0.0)
    losses = [F.mse_loss(out, fit.y_scaler(10 - y)).item() for out in outputs]
    best = int(np.argmin(losses))
    assert len(losses) == 4 and best < 3
    torch.testing.assert_close(fit.predict(x), fit.y_scaler.inverse(outputs[best]))


POWER = torch.tensor([0.2, 1.0, 7.0], dtype=torch.double)
TIMES = (torch.arange(2000, dtype=torch.double) + 0.5) / 2000


def left(power, t, told=()):
    """Variance of x1 - x0 given (1 - t) x0 + t x1 and whatever else is told of x1.

    A Gaussian condition by linear algebra; x0 has power 1, and each that is told tells
    x1 with noise of that variance.
    """
    rows = [[1 - t, t], *([0, 1] for _ in told)]
    prior, noise = np.diag([1, power]), np.diag([0, *told])
    seen = np.array(rows)
    gain = prior @ seen.T @ np.linalg.inv(seen @ prior @ seen.T + noise)
    covariance = prior - gain @ seen @ prior
    return np.array([-1, 1]) @ covariance @ np.array([-1, 1])


def test_what_a_wave_costs_is_its_conditional_variance():
    for power in POWER.tolist():
        for t in (0.1, 0.5, 0.9):
            args = torch.tensor(power), torch.tensor(t)
            assert unknown_cost(*args).item() == pytest.approx(left(power, t), rel=1e-5)
    live = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.double)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.double)
    for noise in (0.0, 0.5):
        cost = known_cost(POWER, t, noise, live)
        for c in range(2):
            for w, power in enumerate(POWER.tolist()):
                told = [[(noise**2 + 1e-12) * power] if on else [] for on in live[:, c]]
                parts = [left(power, s, more) for s, more in zip(t.tolist(), told)]
                expected = statistics.fmean(parts)
                assert cost[c, w].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_what_is_saved_is_the_integral_of_the_cost():
    for until in (0.3, 0.8):
        t = TIMES * until
        expected = unknown_cost(POWER[:, None], t).mean(1) * until
        torch.testing.assert_close(saving(POWER, torch.tensor(until)), expected,
                                   rtol=1e-4, atol=0)


def test_a_mixture_of_one_wave_each_costs_what_the_waves_cost():
    live = channel_mask(TIMES, 3)[:, :, 0, 0]
    alone = known_cost(POWER, TIMES, 0.4, live)
    for order in permutations(range(3)):
        weights = torch.zeros(3, 3, dtype=torch.double)
        for channel, wave in enumerate(order): weights[channel, wave] = 2.0 + channel
        expected = sum(alone[channel, wave] for channel, wave in enumerate(order))
        found = mixture_cost(weights, POWER, TIMES, 0.4, live)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_the_best_order_is_that_of_least_cost():
    cost = torch.rand(4, 4, generator=seeded())
    total = lambda order: sum(cost[c, w].item() for c, w in enumerate(order))
    assert best_order(cost) == list(min(permutations(range(4)), key=total))


def test_ranks_correlate():
    a, b = torch.randn(2, 9, generator=seeded())
    ranks = [v.argsort().argsort().numpy() for v in (a, b)]
    assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert spearman(a, a.exp()) == 1 and spearman(a, -a) == -1
    with pytest.raises(ValueError, match="^a: expected two values"):
        spearman(a[:1], b[:1])


def test_selectivity_is_the_part_that_must_move():
    same = torch.tensor([1.0, 2, 4])
    assert selectivity(torch.stack([same, 3 * same])) == pytest.approx(0, abs=1e-6)
    apart = torch.tensor([[0.5, 0, 0], [0, 2, 0], [0, 0, 3]])
    assert selectivity(apart) == pytest.approx(1)
    # two channels of equal weight: each is a quarter from the mean, of at most one half
    mixed = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    assert selectivity(mixed) == pytest.approx(0.5)


def test_sorting_score_turns_round_with_the_groups():
    k, random = torch.arange(1.0, 33), torch.rand(2, 7, 32, generator=seeded()) + 0.1
    score, back = sorting_score(k, *random), sorting_score(k, *random.flip(0))
    torch.testing.assert_close(score + back, torch.ones(7))
    inside = torch.tensor([1.0] * 5 + [3.0] * 27)  # the middle lies between 5 and 6
    assert sorting_score(k, inside, 1 / inside) == pytest.approx(0.75)
    assert sorting_score(k, inside, 9 * inside) == pytest.approx(0.5)


def test_sorting_score_is_one_for_scales_exchanged_in_fourier_space():
    white = 0.3 * torch.randn(2, 6, 64, 64, generator=seeded())
    f = torch.fft.fftfreq(64, 1 / 64)
    low = torch.hypot(f[:, None], f[None, :33]).round() < 5.6
    a, b = torch.fft.rfft2(white)
    swap = lambda side: 10 ** torch.fft.irfft2(torch.where(side, b, a), s=(64, 64))
    change = lambda m: 1 - cross_correlation(m, 10 ** white[0], of="log")
    k = torch.arange(1.0, 33)
    found = sorting_score(k, change(swap(~low)), change(swap(low)))
    torch.testing.assert_close(found, torch.ones(6), atol=1e-3, rtol=0)


def test_all_halvings_score_one_half_and_the_rarest_is_one_of_seventy_each_way():
    halves, k = halvings(8), torch.arange(1.0, 33)
    assert len(set(halves)) == 70 and halves[0] == (0, 1, 2, 3)
    change = torch.rand(8, 32, generator=seeded())
    sets = [torch.tensor([c in half for c in range(8)]) for half in halves]
    scores = torch.stack([sorting_score(k, change[s].sum(0), change[~s].sum(0))
                          for s in sets])
    assert scores.mean() == pytest.approx(0.5)
    assert exact_p(scores, int(scores.argmax())) == pytest.approx(2 / 70)
    assert exact_p(scores, int((scores - 0.5).abs().argmin())) == 1
    with pytest.raises(ValueError, match="even"): halvings(7)


def test_moments_of_a_channel_s_change():
    k = torch.tensor([1.0, 2.0, 8.0])
    found = ChannelScales.measure(k, torch.tensor([[1.0, 0.0, 1.0], [0.0, 3.0, 0.0]]))
    torch.testing.assert_close(found.centre, torch.tensor([8**0.5, 2.0]))
    torch.testing.assert_close(found.width, torch.tensor([math.log(8) / 2, 0.0]))


def test_idle_channels_have_no_rank_and_rings_count_as_their_width():
    k, flat = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.full((4,), 1e-9)
    one = lambda ring, size: flat + size * torch.eye(4)[ring]
    found = ChannelOrder.measure(k, torch.stack([one(0, 1), one(2, 1), one(1, 0.1)]))
    assert found.busy.tolist() == [True, True, True] and found.rank == 0.5
    found = ChannelOrder.measure(k, torch.stack([one(0, 1), one(2, 1), one(1, 0.05)]))
    assert found.busy.tolist() == [True, True, False] and found.rank == 1
    lonely = ChannelOrder.measure(k, torch.stack([one(0, 1), one(1, 1e-3)]))
    assert lonely.rank is None
    # Alike in each ring, so relative to the mean channel; in ln k a ring is 1 / k wide.
    alike = ChannelOrder.measure(k, torch.tensor([[1.0], [2.0]]) * k.square())
    centre = ((k.log() / k).sum() / (1 / k).sum()).exp()
    torch.testing.assert_close(alike.scales.centre, centre.expand(2))
    assert abs(alike.selectivity) < 1e-6
    assert alike.rank in (None, -1, 1)  # equal, or apart by a rounding


def test_one_channel_or_a_group_is_swapped_at_a_time():
    model = randomised(channels=3)
    maps, others = (open_maps("PM", "CV", pixels=16).maps[i:i + 2] for i in (0, 30))
    k, changes = swap_changes(model, maps, others, seed=4)
    field, other = model.encode(maps), model.encode(others)
    plain = model.decode(field, seed=4)
    assert len(k) == 8 and len(changes) == 3
    for c in range(3):
        mixed = torch.cat([field[:, :c], other[:, c:c + 1], field[:, c + 1:]], 1)
        r = cross_correlation(model.decode(mixed, seed=4), plain, of="log")
        torch.testing.assert_close(changes[c], 1 - r.mean(0), rtol=1e-2, atol=1e-4)
    pair, alone = swap_changes(model, maps, others, [[0, 2], [1]], seed=4)[1]
    mixed = torch.stack([other[:, 0], field[:, 1], other[:, 2]], 1)
    r = cross_correlation(model.decode(mixed, seed=4), plain, of="log")
    torch.testing.assert_close(pair, 1 - r.mean(0), rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(alone, changes[1])
    rough = swap_changes(model, maps, others, steps=2, solver="midpoint", seed=4)[1]
    decode = lambda field: model.decode(field, 2, "midpoint", seed=4)
    mixed = torch.cat([other[:, :1], field[:, 1:]], 1)
    r = cross_correlation(decode(mixed), decode(field), of="log")
    torch.testing.assert_close(rough[0], 1 - r.mean(0), rtol=1e-2, atol=1e-4)
    for group in ([3], [-1], []):
        with pytest.raises(ValueError, match="groups: .*expected lists of .* 0 to 2"):
            swap_changes(model, maps, others, [[0], group])
    wider, same = swap_changes(model, maps, others, seed=4, box=50.0)
    torch.testing.assert_close(wider, k / 2)
    torch.testing.assert_close(same, changes)


def test_ratios_of_a_race_are_times_as_fast(monkeypatch):
    taken = {"plain": 4.0, "fast": 1.0}
    monkeypatch.setattr(bench, "seconds", lambda call, device: taken[call()])
    ways = {name: lambda name=name: name for name in taken}
    plain, fast = bench.race("job", "size", ways, items=2)
    assert (plain.seconds, fast.seconds) == (2.0, 0.5)
    assert (plain.ratio, fast.ratio) == (1.0, 4.0)


@pytest.mark.parametrize("sides", ((40, 40), (32, 40), (8, 8)))
def test_a_map_that_cannot_be_folded_is_refused(sides):
    with pytest.raises(ValueError, match="x: expected sides that are multiples of 16"):
        fold(torch.zeros(1, 1, *sides), 3)


@pytest.mark.parametrize("steps", (2.5, 0, "4"))
def test_steps_that_are_no_whole_number_are_refused(steps):
    field = torch.zeros(1, 3, 1, 1)
    with pytest.raises(ValueError, match="steps="):
        randomised(channels=3).decode(field, steps=steps)


EXAMPLES = dict(  # of arguments without a default
    normalizer=Normalizer(11.0, 0.5, 1e8), x=torch.zeros(1, 1, 32, 32), h=2, w=2,
    c_in=4, c_out=4, channels=2, prior=torch.ones(2, 2, 3, 2, 2), n=2, n_params=2,
    width=4, emb_dim=4, depth=1, dim=4, t=torch.zeros(1))


def counts(function):
    "The arguments of a function that are whole numbers."
    told = inspect.signature(function).parameters.values()
    return [p.name for p in told if p.annotation is int and p.kind is not p.VAR_KEYWORD]


UNCOUNTED = layers.periodic_pad, layers.upsample, layers.between  # a ring may be empty
BUILDERS = [(function, name) for module in (encoder, layers, model, unet)
            for function in map(vars(module).get, module.__all__)
            if callable(function) and function not in UNCOUNTED
            for name in counts(function)] + [(inference.resnet18, "n_params")]


@pytest.mark.parametrize("wrong", (0, -1, True, 2.0, "2"), ids=repr)
@pytest.mark.parametrize("function, name", BUILDERS,
                         ids=[f"{f.__name__} {name}" for f, name in BUILDERS])
def test_a_network_of_no_whole_number_of_anything_is_refused(function, name, wrong):
    told = inspect.signature(function).parameters.values()
    given = {p.name: EXAMPLES[p.name] for p in told if p.name in EXAMPLES}
    function(**given)
    with pytest.raises(ValueError, match=f"^{name}={wrong!r}: expected .*whole number"):
        function(**given | {name: wrong})


def test_a_network_from_a_seed_is_one_for_all_who_ask():
    torch.manual_seed(4)
    expected = torch.nn.Linear(3, 2).weight
    torch.manual_seed(9)
    before = torch.get_rng_state()
    for ask in (core.seeded, inference.seeded):  # pages import it from either
        assert torch.equal(ask(lambda: torch.nn.Linear(3, 2), 4).weight, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_generator_is_another_after_a_network_from_a_seed(monkeypatch):
    "Those of GPUs would all start anew, and so would the noise of the next map."
    def anew(*_): raise AssertionError("a GPU's generator was seeded")
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, anew)
    monkeypatch.setattr(torch.mps, "manual_seed", anew)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    before = torch.get_rng_state()
    core.seeded(lambda: torch.nn.Linear(3, 2), 4)
    def fails(): return torch.nn.Linear(3, int(torch.rand(1) - 2))
    with pytest.raises(RuntimeError): core.seeded(fails, 4)
    assert torch.equal(torch.get_rng_state(), before)
    if not torch.cuda.is_available(): return
    on_gpu = torch.cuda.get_rng_state()
    core.seeded(lambda: torch.nn.Linear(3, 2), 4)
    assert torch.equal(torch.cuda.get_rng_state(), on_gpu)


@pytest.mark.parametrize("name", ("inference", "anomaly", "posterior", "points"))
def test_what_holds_arrays_can_be_compared(name):
    "Arrays answer == number by number: whether two results are equal was an error."
    found = [kind for kind in vars(import_module(f"cosmoflow.{name}")).values()
             if is_dataclass(kind) and kind.__module__ == f"cosmoflow.{name}"]
    assert found
    for kind in found:
        one, same = object.__new__(kind), object.__new__(kind)
        for thing, field in product((one, same), fields(kind)):
            object.__setattr__(thing, field.name, torch.ones(3))
        assert one == one and one != same and len({one, same}) == 2, kind


def test_a_part_of_a_simulation_names_the_argument_that_decides():
    with pytest.raises(ValueError, match="expected 15 a simulation, found 8; .*each="):
        standard_error(np.zeros(8))


@pytest.mark.parametrize("name", ("core", "data", "encoder", "model", "train",
                                  "inference", "evaluate"))
def test_a_public_function_says_that_it_raises(name):
    path = ROOT / "cosmoflow" / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
              and not node.name.startswith("_") and ast.get_docstring(node)]
    silent = [node.name for node in public
              if any(isinstance(part, ast.Raise) and part.exc
                     for part in ast.walk(node))
              and not re.search(r"[Rr]aises|Error`", ast.get_docstring(node))]
    assert not silent

"""Error bars, against a loop over simulations, the textbook and the bootstrap."""
import statistics

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cosmoflow.core import standard_error
from cosmoflow.data import open_maps
from cosmoflow.evaluate import Reconstruction, compare, report
from cosmoflow.inference import relative_error
from cosmoflow.plot import figure
from cosmoflow.results import Result, digits, headlines, results_table
from cosmoflow.spectra import (cross_correlation, pdf_distance, power_spectrum,
                               stacked_ratio)

SIMS = 40


@pytest.fixture(scope="module")
def spectra():
    "Spectra of maps and a reference that share their simulations' scatter; (600, 2)."
    rng = np.random.default_rng(0)
    shared = rng.lognormal(0, 0.4, (SIMS, 1, 2))
    power, reference = (
        level * shared * rng.lognormal(0, scatter, (SIMS, 1, 2))
        * rng.lognormal(0, 0.5, (SIMS, 15, 2))
        for level, scatter in ((0.6, 0.1), (1.0, 0.2)))
    return [torch.from_numpy(p.reshape(-1, 2)) for p in (power, reference)]


def by_hand(values, each=15):
    "Standard error of the mean of one number a map: one mean a simulation."
    means = [statistics.fmean(values[i:i + each]) for i in range(0, len(values), each)]
    return statistics.stdev(means) / len(means) ** 0.5


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("sims", [2, 3, 40])
def test_standard_error_is_that_of_means_over_simulations(kind, sims):
    values = np.random.default_rng(1).normal(size=(15 * sims, 2, 3))
    values += np.random.default_rng(2).normal(size=(sims, 2, 3)).repeat(15, 0)
    expected = [[by_hand(values[:, i, j].tolist()) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(standard_error(kind(values)), expected)
    np.testing.assert_allclose(standard_error(kind(values[:, 0, 0])), expected[0][0])


@pytest.mark.parametrize("each", [1, 4])
def test_error_bars_follow_the_number_of_maps_a_simulation(maps, each):
    true, rec = (m[:8] for m in maps)
    found = compare(true, rec, each=each)
    r, pdf = cross_correlation(rec, true, of="log"), pdf_distance(rec, true)
    spectra = [power_spectrum(m, of="log")[1] for m in (rec, true)]
    np.testing.assert_allclose(found.ratio_error, stacked_ratio(*spectra, each)[1])
    off = (spectra[0] - torch.tensor(found.ratio) * spectra[1]) / spectra[1].mean(0)
    for i in (0, 15, 31):
        expected = by_hand(off[:, i].tolist(), each)
        assert found.ratio_error[i] == pytest.approx(expected, rel=1e-3)
        expected = by_hand(r[:, i].tolist(), each)
        assert found.r_error[i] == pytest.approx(expected, rel=0.01)  # r is near 1
    assert found.pdf_error == pytest.approx(by_hand(pdf.tolist(), each), rel=1e-4)
    guess = relative_error(1.1 * true[:, 0, :2] + 1e9, true[:, 0, :2], each)
    error = (0.1 + 1e9 / true[:, 0, 0]).tolist()
    assert guess.standard_error[0] == pytest.approx(by_hand(error, each), rel=1e-3)
    with pytest.raises(ValueError, match="values: expected 3 a simulation, found 8"):
        compare(true, rec, each=3)


def test_error_of_a_ratio_is_the_textbook_s_and_the_bootstrap_s(spectra):
    "Ratio 0.6, far from 1, and two spectra that vary together."
    power, reference = spectra
    ratio, error = stacked_ratio(power, reference)
    p, q = (m.view(SIMS, 15, 2).mean(1).numpy() for m in spectra)
    mean = p.mean(0) / q.mean(0)
    np.testing.assert_allclose(ratio, mean)
    for i in range(2):
        c = np.cov(p[:, i], q[:, i]) / SIMS
        a, b = p[:, i].mean(), q[:, i].mean()
        variance = c[0, 0] / a**2 + c[1, 1] / b**2 - 2 * c[0, 1] / (a * b)
        np.testing.assert_allclose(error[i], mean[i] * variance**0.5)
    draws = np.random.default_rng(3).integers(SIMS, size=(4000, SIMS))
    bootstrap = (p[draws].mean(1) / q[draws].mean(1)).std(0)
    np.testing.assert_allclose(error, bootstrap, rtol=0.1)


def test_relative_error_is_relative_to_the_truth():
    generator = torch.Generator().manual_seed(0)
    true = (0.3 + 0.4 * torch.rand(6, 2, generator=generator)).repeat_interleave(15, 0)
    predicted = true + 0.1 * torch.randn(90, 2, generator=generator)
    found = relative_error(predicted, true)
    for i in range(2):
        pairs = zip(predicted[:, i].tolist(), true[:, i].tolist())
        errors = [abs(guess - truth) / truth for guess, truth in pairs]
        assert found.mean[i] == pytest.approx(statistics.fmean(errors), rel=1e-5)
        assert found.standard_error[i] == pytest.approx(by_hand(errors), rel=1e-5)


@pytest.fixture(scope="module")
def maps():
    "Three simulations, and the same maps with more contrast and some noise."
    true = torch.tensor(open_maps("PM", "CV").maps[:45])
    log = true.clamp_min(1e9).log10()
    mean = log.mean((1, 2), keepdim=True)
    noise = torch.randn(log.shape, generator=torch.Generator().manual_seed(0))
    return true, 10 ** (mean + 1.2 * (log - mean) + 0.1 * noise)


def test_a_comparison_is_of_the_second_with_the_first(maps):
    true, rec = maps
    found = compare(true, rec, box=50.0)
    k, p_true = power_spectrum(true, 50.0, of="log")
    p_rec = power_spectrum(rec, 50.0, of="log")[1]
    r, pdf = cross_correlation(rec, true, of="log"), pdf_distance(rec, true)
    assert found.n_maps == 45 and (found.ratio > 1.2).all()
    np.testing.assert_allclose(found.k, k)
    np.testing.assert_allclose(found.ratio, p_rec.mean(0) / p_true.mean(0))
    np.testing.assert_allclose(found.ratio_error, stacked_ratio(p_rec, p_true)[1])
    np.testing.assert_allclose(found.r, r.mean(0), rtol=1e-6)
    for i in (0, 15, 31):
        assert found.r_error[i] == pytest.approx(by_hand(r[:, i].tolist()), rel=1e-3)
    assert found.pdf == pytest.approx(pdf.mean().item())
    assert found.pdf_error == pytest.approx(by_hand(pdf.tolist()), rel=1e-4)


def test_the_worst_bin_is_sought_to_0_8_of_nyquist():
    k, off, none = np.arange(1.0, 33), np.zeros(32), np.zeros(32)
    off[[10, 24, 25, 31]] = 0.1, -0.2, 0.3, 0.9  # 0.8 of 32 is 25.6: bins 0 to 24
    found = Reconstruction(k, 1 + off, none, none, none, 0.0, 0.0, 15)
    assert found.worst_bin() == 24


def test_the_band_of_the_figure_is_one_error_wide(maps):
    true, rec = maps
    fig = figure(true, {"CosmoFlow": rec}, show=2)
    middle = next(ax for ax in fig.findobj(plt.Axes) if ax.get_ylabel() == "ratio")
    (band,) = (c for c in middle.collections if len(c.get_paths()[0].vertices) > 60)
    corners = band.get_paths()[0].vertices
    ratio, error = (a.numpy() for a in stacked_ratio(
        power_spectrum(rec, of="log")[1], power_spectrum(true, of="log")[1]))
    k = power_spectrum(true, of="log")[0].numpy()
    for edge in (ratio - error, ratio + error):
        far = np.abs(corners[:, None] - np.stack([k, edge], 1)).max(2)
        assert far.min(0).max() < 1e-5
    plt.close(fig)


@pytest.mark.parametrize("error, decimals", [
    (0.0123, 3), (0.1, 2), (0.99, 2), (1.2, 1), (12.0, 0), (345.0, 0), (1e-9, 4),
    (0, 4)])
def test_an_error_has_two_figures(error, decimals): assert digits(error) == decimals


def test_report_and_table_put_each_number_where_it_belongs():
    k, names = list(range(1, 33)), ("summaries", "raw maps")
    e = [{"mean": [0.1, 0.2], "standard_error": [0.01, 0.02]},
         {"mean": [0.05, 0.05], "standard_error": [0.03, 0.04]}]
    ratio = [1 + (n == 7) / 4 for n in k]
    reconstruction = {
        "k": k, "ratio": ratio, "ratio_error": [n / 100 for n in k],
        "r": [1 - n / 100 for n in k], "r_error": [n / 1000 for n in k],
        "pdf": 0.5, "pdf_error": 0.05, "n_maps": 30}
    found = headlines({"reconstruction": reconstruction, "simulations": {"test": 2},
                       "inference": dict(zip(names, e))}, "ours")
    numbers = [(r.value, r.error, r.paper) for r in found]
    said = report({"reconstruction": reconstruction, "simulations": {"test": 2},
                   "suite": "PM", "set": "LH", "inference": dict(zip(names, e))})
    assert said.splitlines()[1:4] == [
        "stacked spectrum of the log maps, reconstruction / truth: worst bin to 0.8 of "
        "Nyquist 1.250 +- 0.070 at k = 7.00 h/Mpc",
        "cross-correlation r at modes 1 to 4: 0.990 +- 0.001, 0.980 +- 0.002, "
        "0.970 +- 0.003, 0.960 +- 0.004",
        "distance of one-point distributions: 0.5000 +- 0.0500 dex"]
    rows = [line.split() for line in said.splitlines()[5:]]
    assert rows == ["summaries 10.00 +- 1.00 20.00 +- 2.00".split(),
                    "raw maps 5.00 +- 3.00 5.00 +- 4.00".split()]
    expected = [
        (1.25, 0.07, None), (0.99, 0.001, None), (0.96, 0.004, None), (0.5, 0.05, None),
        (10, 1, None), (5, 3, None), (2, None, 1.06),
        (20, 2, None), (5, 4, None), (4, None, 1.37)]
    for one, other in zip(numbers, expected, strict=True):
        assert one == pytest.approx(other), (one, other)
    assert ["sigma_8" in r.quantity for r in found[4:]] == 3 * [False] + 3 * [True]
    record = {"experiment": "x", "data": "PM", "pixels": 64, "seed": 0}
    row = vars(Result("q", "m", 1.2345, 0.0123, 7))
    record |= {"hardware": "CPU", "results": [row]}
    assert "| q | m | 1.234 ± 0.012 | 7 |" in results_table([record])

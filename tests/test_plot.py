"""Figures: maps of other sizes beside each other, and names that mean one thing."""
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from cosmoflow.plot import figure, plot_spectra
from cosmoflow.spectra import power_spectrum

MAPS = np.random.default_rng(0).lognormal(25, 1, (10, 32, 32)).astype(np.float32)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("first", ("fine", "coarse"))
def test_spectra_of_fewer_pixels_are_compared_where_both_have_waves(first):
    blocks = MAPS.reshape(10, 16, 2, 16, 2).mean((2, 4))
    maps = {"fine": MAPS, "coarse": blocks}
    maps = {first: maps[first]} | maps
    top, bottom = plot_spectra(maps).axes
    waves = [len(line.get_xdata()) for line in top.lines]
    assert sorted(waves) == [8, 16]
    power = [torch.as_tensor(np.asarray(line.get_ydata())) for line in top.lines]
    for line, own in zip(bottom.lines, power):
        expected = own[:len(power[0])] / power[0][:len(own)]
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)


def test_the_band_around_a_spectrum_holds_68_percent_of_the_maps():
    top, _ = plot_spectra({"maps": MAPS}).axes
    (band,) = top.collections
    corners = band.get_paths()[0].vertices
    k, power = (a.numpy() for a in power_spectrum(MAPS, of="log"))
    for share in (0.16, 0.84):
        edge = np.stack([k, np.quantile(power, share, 0)], 1)
        far = np.abs(corners[:, None] / edge - 1).max(2)
        assert far.min(0).max() < 1e-4


def test_no_reconstruction_takes_the_place_of_the_truth():
    with pytest.raises(ValueError, match="^recs: expected other names than truth"):
        figure(MAPS, {"truth": MAPS[::-1]}, each=5)


def test_a_figure_needs_whole_simulations():
    with pytest.raises(ValueError, match="^true: expected 15 maps of each simulation"):
        figure(MAPS, {"model": MAPS})
    assert figure(MAPS, {"model": MAPS}, show=2, each=5).axes

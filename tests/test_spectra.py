"""Spectra against an independent float64 NumPy reference, and against theory."""
import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import cosmoflow
from cosmoflow.data import open_maps
from cosmoflow.spectra import (cross_correlation, one_point_pdf, power_spectrum,
                               transfer_ratio)


def reference(maps, box, log=False):
    "Full complex transform, every mode on its own."
    maps = maps.astype(np.float64)
    values = np.log10(maps) if log else maps
    mean = values.mean((1, 2), keepdims=True)
    delta = values - mean if log else values / mean - 1
    n = maps.shape[-1]
    f = np.fft.fftfreq(n, 1 / n)
    length = np.hypot(f[:, None], f[None])
    power = np.abs(np.fft.fft2(delta)) ** 2 * box**2 / n**4
    rings = [length.round() == i for i in range(1, n // 2 + 1)]
    k = np.array([length[ring].mean() for ring in rings]) * 2 * np.pi / box
    return k, np.stack([power[:, ring].mean(1) for ring in rings], 1)


@pytest.mark.parametrize("of", ["density", "log"])
@pytest.mark.parametrize("side", [64, 32, 33])
def test_against_numpy(of, side):
    maps = open_maps("PM", "CV").maps[:8, :side, :side].copy()
    k, power = power_spectrum(maps, 25.0, of)
    k_ref, power_ref = reference(maps, 25.0, of == "log")
    np.testing.assert_allclose(k, k_ref, rtol=1e-5)
    np.testing.assert_allclose(power, power_ref, rtol=1e-5)


def test_cross_correlation_and_transfer():
    contrast = 1e11 * (1 + 0.01 * torch.randn(6, 64, 64))
    inverted, doubled = 2e11 - contrast, 1e11 + 2 * (contrast - 1e11)
    r, t = cross_correlation(contrast, inverted), transfer_ratio(doubled, contrast)
    assert torch.allclose(r, -torch.ones(6, 32), atol=1e-3)
    assert torch.allclose(t, torch.full((6, 32), 2.0), rtol=1e-2)


def test_one_point():
    noise = torch.randn(2, 256, 256, dtype=torch.float64,
                        generator=torch.Generator().manual_seed(0))
    maps = 10 ** (11 + 0.3 * noise)
    values, density = one_point_pdf(maps)
    width = values[1] - values[0]
    torch.testing.assert_close(density.sum(1) * width, torch.ones(2), rtol=1e-4, atol=0)
    gauss = torch.exp(-((values - 11) ** 2) / 2 / 0.09) / (0.3 * (2 * np.pi) ** 0.5)
    assert (density - gauss).abs().max() < 0.05


def test_errors():
    with pytest.raises(ValueError, match=r"shape \(B, H, H\)"):
        power_spectrum(torch.ones(3, 4, 5))
    with pytest.raises(ValueError, match="density or log"):
        power_spectrum(torch.ones(1, 4, 4), of="x")
    with pytest.raises(ValueError, match="positive mean"):
        power_spectrum(torch.zeros(1, 4, 4))


MODULES = sorted(p for p in Path(cosmoflow.__file__).parent.glob("[a-z]*.py")
                 if p.stem != "bench")  # which compares times, not spectra
MEASURES = {"wavenumbers", "power_spectrum", "cross_correlation", "transfer_ratio",
            "spectrum_features", "compare", "swap_changes"}


def test_whoever_measures_says_how_wide_the_maps_are():
    calls = [(path.stem, ast.unparse(node)) for path in MODULES
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and ast.unparse(node.func) in MEASURES]
    assert len(calls) > 10
    assert [call for call in calls if "box" not in call[1]] == []

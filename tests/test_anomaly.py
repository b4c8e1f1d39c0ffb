"""Anomalies: chi-squares against theory, and alarms as often as promised."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ncx2
from test_door import Single

from cosmoflow.anomaly import (HEIGHTS, Detector, Expectation, chi_square, count_peaks,
                               fingerprint, held_out_surprise, parabola)
from cosmoflow.bench import untrained
from cosmoflow.data import MapData
from cosmoflow.simulate import round_mantissa

SIDE = 32
BINS = SIDE // 2 + 3 + len(HEIGHTS)


def draw(sims, seed, each=15):
    """Summaries of 3 numbers, and 6 numbers that a parabola in them makes, with noise.

    Half of the noise is shared by the maps of a simulation."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(size, generator=g, dtype=torch.float64)
    summary = normal(sims * each, 3)
    fixed = torch.Generator().manual_seed(99)
    weights, mix = (torch.randn(size, generator=fixed, dtype=torch.float64)
                    for size in ((10, 6), (6, 6)))
    own, shared = normal(sims * each, 6), normal(sims, 6).repeat_interleave(each, 0)
    noise = (own + shared) / 2**0.5 @ mix.T
    return summary, parabola(summary) @ weights + noise, mix @ mix.T


def test_an_alarm_has_the_power_that_theory_gives_it():
    "Noncentral chi-square, for a map and for a simulation whose maps share noise."
    summary, prints, covariance = draw(4000, 0)
    expected = Expectation.fit(summary, prints)
    shift = torch.tensor([1.5, -1, 0, 0.5, 0, 1]).double()
    new, theirs, _ = draw(4000, 1)
    shared = 0.5 + 0.5 / 15  # of the variance is left in a mean of 15
    for together, scale in ((1, 1.0), (15, shared)):
        strange = expected.surprise(new, theirs + shift, together)
        plain = expected.surprise(new, theirs, together)
        added = chi_square(shift[None], scale * covariance).item()
        alarm = chi2.ppf(0.95, 6)
        assert abs(plain.mean() - 6) < 0.25
        assert abs((plain > alarm).double().mean() - 0.05) < 0.012
        power = ncx2.sf(alarm, 6, added)
        assert 0.2 < power < 0.99
        assert abs((strange > alarm).double().mean() - power) < 0.03


def test_the_expectation_knows_a_parabola():
    summary, prints, _ = draw(40, 2)
    a, b, c = summary.T
    exact = torch.stack([a * b, a * c, b * c, c**2, b**2 - a, 1 + c], 1)
    expected = Expectation.fit(summary, exact)
    assert expected.residual(*draw(4, 3)[:2]).abs().max() > 0.1
    assert expected.residual(summary, exact).abs().max() < 1e-9


def test_scores_come_from_fits_that_did_not_see_the_simulation():
    "Each simulation keeps its row, and a fit that saw it would find it less strange."
    summary, prints, _ = draw(30, 4)
    one, together = held_out_surprise(summary, prints, folds=5)
    for fold in range(5):
        out = torch.arange(30) % 5 == fold
        maps = out.repeat_interleave(15)
        known = Expectation.fit(summary[~maps], prints[~maps])
        torch.testing.assert_close(
            one[maps], known.surprise(summary[maps], prints[maps]))
        torch.testing.assert_close(
            together[out], known.surprise(summary[maps], prints[maps], 15))
    seen = Expectation.fit(summary, prints)
    assert together.mean() > 1.2 * seen.surprise(summary, prints, 15).mean()


def shares(sims, seed, each=3):
    "P-values of new Gaussian numbers, of single maps and of simulations."
    g = torch.Generator().manual_seed(seed)
    draw = lambda n: [torch.randn(n * each, k, generator=g).double() for k in (2, 20)]
    cold, new = draw(sims), draw(100)
    known = Expectation.fit(*cold, each)
    for scores, together in zip(held_out_surprise(*cold, each), (1, each)):
        scores, asked = scores.sort().values, known.surprise(*new, together)
        below = torch.searchsorted(scores, asked)
        yield (1 + len(scores) - below).double() / (1 + len(scores))


def test_p_values_of_cold_maps_are_spread_evenly():
    "With five folds one in 50 maps raised an alarm where one in 20 may, and one in 80."
    drawn = [list(shares(40, seed)) for seed in range(40)]
    for p in map(torch.stack, zip(*drawn)):
        assert 0.026 < (p <= 0.05).double().mean() < 0.06
        assert 0.2 < (p <= 0.25).double().mean() < 0.27
        assert abs(p.mean() - 0.5) < 0.06


@pytest.mark.parametrize("sims, folds", [(30, 20), (8, 8)])
def test_twenty_folds_or_one_for_each_simulation(sims, folds):
    rows = draw(sims, 4)[:2]
    for a, b in zip(held_out_surprise(*rows), held_out_surprise(*rows, folds=folds)):
        torch.testing.assert_close(a, b)


def test_any_array_is_fitted_and_asked():
    summary, prints, _ = draw(20, 4, each=5)
    known, other = (Expectation.fit(*given, 5) for given in (
        (summary, prints), (summary.numpy(), prints.numpy())))
    for a, b in zip(known.state_dict().values(), other.state_dict().values()):
        torch.testing.assert_close(a, b)
    for together in (1, 5):
        assert torch.equal(known.surprise(summary.numpy(), prints.numpy(), together),
                           known.surprise(summary, prints, together))
    for a, b in zip(held_out_surprise(summary.numpy(), prints.numpy(), 5),
                    held_out_surprise(summary, prints, 5)):
        torch.testing.assert_close(a, b)


MIXED = {  # changes of summaries and fingerprints of 20 maps, and what is said
    "one summary": (lambda s, f: (s[:1], f), r"^summary: .*\(20, .*found \(1, 3\)"),
    "fewer prints": (lambda s, f: (s, f[:15]), r"^summary: expected shape \(15, "),
    "none": (lambda s, f: (s[:0], f[:0]), "^fingerprint: .*is empty"),
    "a row": (lambda s, f: (s, f[:, 0]), r"^fingerprint: expected shape \(n, "),
    "a list": (lambda s, f: (s, f.tolist()), "^fingerprint: .*found list"),
}


@pytest.mark.parametrize("kind", MIXED)
def test_numbers_of_other_maps_are_refused(kind):
    summary, prints, _ = draw(4, 4, each=5)
    known, (change, message) = Expectation.fit(summary, prints, 5), MIXED[kind]
    for ask in (known.residual, known.surprise, Expectation.fit, held_out_surprise):
        with pytest.raises(ValueError, match=message): ask(*change(summary, prints))
    for ask in (known.residual, known.surprise):
        with pytest.raises(ValueError, match=r"^summary: expected shape \(20, 3\)"):
            ask(summary[:, :2], prints)
        with pytest.raises(ValueError, match=r"^fingerprint: expected shape \(n, 6\)"):
            ask(summary, prints[:, :1])
    for ask in (Expectation.fit, held_out_surprise):
        with pytest.raises(ValueError, match="^fingerprint: expected 7 of each .* 20$"):
            ask(summary, prints, 7)
    with pytest.raises(ValueError, match="^fingerprint: expected 5 of each .* 18$"):
        known.surprise(summary[:18], prints[:18], 5)


@pytest.mark.parametrize("fill", (0, -1))
def test_a_map_of_nothing_has_no_peaks_to_count(fill):
    with pytest.raises(ValueError, match="^maps: expected a mean above 0 in each"):
        count_peaks(np.full((2, 16, 16), fill, np.float32))


@pytest.mark.parametrize("bits", (23, 1))
def test_peaks_are_counted_by_their_heights(bits):
    "Few bits leave many neighbours equal: those at the top share a peak."
    rng = np.random.default_rng(0)
    maps = round_mantissa(rng.lognormal(0, 1.5, (3, 17, 17)).astype(np.float32), bits)
    counts = np.zeros((3, len(HEIGHTS) + 1))
    edges = [-np.inf, *HEIGHTS, np.inf]
    for i, log in enumerate(np.log10(maps / maps.mean((1, 2), keepdims=True))):
        for y in range(17):
            for x in range(17):
                around = [log[(y + a) % 17, (x + b) % 17] for a in (-1, 0, 1)
                          for b in (-1, 0, 1)]
                if log[y, x] == max(around):
                    share = 1 / around.count(log[y, x])
                    counts[i] += share * np.histogram(log[y, x], edges)[0]
    assert (counts.sum() % 1 == 0) == (bits == 23)
    np.testing.assert_allclose(count_peaks(maps), counts, rtol=1e-5)
    np.testing.assert_allclose(count_peaks(2.0**37 * maps), counts, rtol=1e-5)
    np.testing.assert_allclose(fingerprint(maps)[:, -9:], counts**0.5, rtol=1e-6)


def maps_of(sims, seed, power=-1.0):
    "Lognormal maps whose waves fall off with this power, 15 a simulation."
    rng = np.random.default_rng(seed)
    f = np.fft.fftfreq(SIDE)
    weight = np.maximum(np.hypot(f[:, None], f), 1 / SIDE) ** power
    noise = np.fft.fft2(rng.standard_normal((15 * sims, SIDE, SIDE)))
    waves = np.fft.ifft2(noise * weight).real
    amplitude = np.repeat(rng.uniform(0.3, 0.6, sims), 15)[:, None, None]
    maps = 10 ** (11 + amplitude * waves / waves.std()).astype(np.float32)
    return MapData(maps, np.zeros((sims, 2), np.float32))


@pytest.mark.parametrize("bits", (7, 6, 5, 4))
def test_rounding_neither_makes_nor_loses_peaks(bits):
    "At 6 bits, 4 % more if both of two equal pixels counted, 2 % less if flats did."
    maps = maps_of(20, 3, power=-1.5).maps
    exact, rounded = (count_peaks(m).double().sum(1)
                      for m in (maps, round_mantissa(maps, bits)))
    off = rounded - exact
    assert abs(off.mean()) < 3 * off.std() / len(off) ** 0.5


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return Detector.fit(untrained("tiny", torch.device("cpu")), maps_of(80, 0))


def test_the_alarm_keeps_its_promise_and_finds_a_stranger(detector):
    p = detector.p_value(maps_of(40, 1).maps)
    for level in (0.05, 0.3, 0.7):
        assert abs((p <= level).float().mean() - level) < 0.06
    whole = detector.p_value(maps_of(40, 1).maps, together=True)
    assert (whole <= 0.05).sum() <= 7 and abs(whole.mean() - 0.5) < 0.15
    strange = maps_of(20, 2, power=-1.15).maps
    assert (detector.p_value(strange, together=True) <= 0.05).float().mean() > 0.9
    alone = (detector.p_value(strange) <= 0.05).float().mean()
    assert 0.08 < alone < 0.9
    assert detector.p_value(strange).min() >= 1 / 1201


def test_p_values_count_cold_scores_that_are_as_large(detector):
    cold = torch.tensor([1.0, 2.0, 3.0, 3.0]).double()
    fixed = replace(detector, cold=(cold, cold))
    object.__setattr__(fixed, "score", lambda maps, *_: torch.tensor(maps))
    assert fixed.p_value([0.5, 1.0, 2.5, 3.0, 4.0]).tolist() == pytest.approx(
        [1, 1, 0.6, 0.6, 0.2])


@pytest.mark.parametrize("change", [np.log10, lambda maps: maps * 1e10])
def test_maps_that_cannot_be_right_are_strangers_if_told_so(detector, change):
    maps = change(maps_of(2, 1).maps)
    for ask in (detector.score, detector.p_value):
        with pytest.raises(ValueError, match="check=False"): ask(maps)
    p = detector.p_value(maps, check=False)
    assert torch.allclose(p, torch.tensor(1 / 1201).double())
    assert detector.score(maps, True, check=False).min() > detector.cold[1].max()


def test_what_cannot_be_judged_is_refused(detector):
    with pytest.raises(ValueError, match=f"expected {2 * BINS} simulations or more for "
                       f"the {BINS} numbers of a fingerprint, found 5"):
        Detector.fit(detector.model, maps_of(5, 0))
    maps = maps_of(1, 0).maps
    with pytest.raises(ValueError, match="expected 15 of each simulation, found 14"):
        replace(detector, model=None).score(maps[:14], together=True)  # at the door
    with pytest.raises(ValueError, match=r"shape \(n, 32, 32\)"):
        detector.p_value(maps[0])
    with pytest.raises(ValueError, match=r"shape \(n, 32, 32\), found \(15, 16, 16\)"):
        detector.score(maps[:, :16, :16])


def test_maps_are_judged_by_as_many_as_their_expectation_was_fitted_to():
    summary, prints, _ = draw(20, 4, each=5)
    fitted, loaded = Expectation.fit(summary, prints, 5), Expectation(3, 6, 5)
    loaded.load_state_dict(fitted.state_dict())
    message = "^together=10: expected 1, or 5, the maps of each simulation"
    for known in (fitted, loaded):
        with pytest.raises(ValueError, match=message):
            known.surprise(summary, prints, 10)
        assert len(known.surprise(summary, prints, 5)) == 20
    with pytest.raises(ValueError, match="^together=5: expected 1, or 15, the maps"):
        Expectation(3, 6).surprise(summary, prints, 5)
    for each in (0, 1.5):
        with pytest.raises(ValueError, match=f"^each={each}: expected a whole number"):
            Expectation(3, 6, each)


FEW = {  # simulations, maps of each, and how many maps would do
    "as many maps as terms": (10, 1, 16),
    "one less than terms and numbers": (15, 1, 16),
    "one simulation": (1, 40, 80),
}


@pytest.mark.parametrize("kind", FEW)
def test_too_few_maps_to_learn_from_are_refused(kind):
    "Ten maps met a parabola of ten terms exactly, and each new one was a stranger."
    sims, each, least = FEW[kind]
    summary, prints, _ = draw(sims, 4, each)
    message = f"^fingerprint: expected {least} maps or more .*, found {sims * each}$"
    with pytest.raises(ValueError, match=message):
        Expectation.fit(summary, prints, each)
    summary, prints, _ = draw(least // each, 4, each)
    still = torch.full((len(prints), 3), 1.7)  # needs no map: it has no residual
    for seen in (prints, torch.cat([prints, still], 1)):
        known = Expectation.fit(summary, seen, each)
        for together in {1, each}:
            assert known.surprise(summary, seen, together).max() < len(prints)


@pytest.mark.parametrize("sims, folds", [(16, None), (31, 2), (23, 3)])
def test_what_is_left_beside_a_fold_must_be_enough(sims, folds):
    message = "^fingerprint: expected 16 maps or more to learn from, .* found 15$"
    with pytest.raises(ValueError, match=message):
        held_out_surprise(*draw(sims, 4, 1)[:2], 1, folds)
    for scores in held_out_surprise(*draw(sims + 1, 4, 1)[:2], 1, folds):
        assert scores.isfinite().all()


def without_double(t):
    "Moves a tensor as to an Apple GPU."
    if t.dtype == torch.float64: raise TypeError("the MPS framework has no float64")
    return t.clone()


def test_what_needs_double_precision_stays_where_there_is_some():
    summary, prints, _ = draw(20, 4, each=5)
    known = Expectation.fit(summary, prints, 5)
    expected = known.surprise(summary, prints, 5)
    for moved in (known._apply(without_double), known.float(), known.half()):
        assert {part.dtype for part in moved.state_dict().values()} == {torch.float64}
        assert torch.equal(moved.surprise(summary, prints, 5), expected)
    assert known.to("meta").scatter.is_meta  # elsewhere it follows


def test_maps_may_have_been_measured_where_there_is_no_double_precision():
    summary, prints = (part.float() for part in draw(20, 4, each=5)[:2])
    there = [part.as_subclass(Single) for part in (summary, prints)]
    known, found = (Expectation.fit(*given, 5) for given in ((summary, prints), there))
    for one, other in zip(known.state_dict().values(), found.state_dict().values()):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(known.surprise(*there, 5),
                               known.surprise(summary, prints, 5))
    for one, other in zip(held_out_surprise(*there, 5),
                          held_out_surprise(summary, prints, 5)):
        torch.testing.assert_close(one, other)
    one, other = (Expectation.fit(nothing, prints, 5).scatter
                  for nothing in (summary[:, :0], summary.numpy()[:, :0]))
    torch.testing.assert_close(one, other)


def test_together_is_yes_or_no(detector):
    "The text \"no\" would judge whole simulations."
    maps = maps_of(1, 1).maps
    for ask in (detector.score, detector.p_value):
        with pytest.raises(ValueError, match="^together='no': expected True or False"):
            ask(maps, together="no")

"""What no map is in, but may be wrong all the same: seeds, counts, names, tables."""
import inspect
import math
import re
from functools import partial
from importlib import import_module

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import randomised

from cosmoflow.anomaly import Detector, Expectation, held_out_surprise
from cosmoflow.core import new_generator, noise_source, standard_error
from cosmoflow.codec import to_symbols, train_for_rate
from cosmoflow.data import (MapData, deal_simulations, download, open_maps,
                            split_simulations)
from cosmoflow.distill import distill
from cosmoflow.evaluate import compare, evaluate
from cosmoflow.export import halved_safely
from cosmoflow.inference import Scaler, fit_mlp, fit_regressor, relative_error
from cosmoflow.plot import figure, plot_spectra
from cosmoflow.points import open_points, train_points
from cosmoflow.posterior import Posterior, fit_flow, tarp
from cosmoflow.releases import fetch_weights, find_released, released_folder
from cosmoflow.spectra import one_point_pdf, stacked_ratio
from cosmoflow.scales import swap_changes
from cosmoflow.train import TrainConfig
from cosmoflow.vae import VAE, train_vae

MAPS = open_maps("PM", "CV", sims=slice(0, 10), pixels=16).maps
DATA = MapData(MAPS, np.random.default_rng(0).random((10, 2)))
ROWS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))

SEEDED = {
    "deal_simulations": lambda seed: deal_simulations(10, seed=seed),
    "split_simulations": lambda seed: split_simulations(DATA, seed=seed),
    "MapData.split": lambda seed: [part.params for part in DATA.split(seed=seed)],
    "new_generator": lambda seed: torch.rand(3, generator=new_generator(seed)),
    "noise_source": lambda seed: torch.rand(3, generator=noise_source(None, seed)),
    "tarp": lambda seed: tarp(ROWS[:, None, :2], ROWS[:1, :2], seed),
}


@pytest.mark.parametrize("function", SEEDED)
def test_what_is_no_seed_is_refused_and_numpy_s_is_one(function):
    "None would draw another split each time: tests would see what was trained on."
    ask = SEEDED[function]
    for one, other in zip(ask(3), ask(np.int64(3)), strict=True):
        np.testing.assert_array_equal(one, other)
    wrong = -1, 2**63, 0.5, "0", None
    for seed in wrong if function != "noise_source" else wrong[:-1]:
        with pytest.raises(ValueError, match=f"^seed={seed!r}: expected a whole"):
            ask(seed)


def test_the_check_of_float16_takes_a_seed_alone():
    with pytest.raises(ValueError, match="^seed=-1: expected a whole number"):
        halved_safely({}, ROWS, 1.0, seed=-1)


SHARES = (None, 0.8, (0.5, 0.5), (0.8, 0.3, -0.1), (0.8, 0.1, 0.2), ("a", "b", "c"),
          (0.8, math.nan, math.nan), (math.inf, -math.inf, 1.0), (0.8, 0.1, None))


@pytest.mark.parametrize("fractions", SHARES, ids=str)
def test_what_are_no_shares_of_a_whole_is_refused(fractions):
    for split in (lambda f: deal_simulations(10, f), DATA.split,
                  lambda f: split_simulations(DATA, f)):
        with pytest.raises(ValueError, match="^fractions=.*three numbers of 0 or more"):
            split(fractions)


COUNTED = {
    "standard_error": lambda each: standard_error(ROWS, each),
    "stacked_ratio": lambda each: stacked_ratio(ROWS, ROWS, each),
    "relative_error": lambda each: relative_error(ROWS, ROWS, each),
    "compare": lambda each: compare(MAPS, MAPS, each=each),
    "figure": lambda each: figure(MAPS, {"a": MAPS}, each=each),
    "Expectation.fit": lambda each: Expectation.fit(ROWS, ROWS, each),
    "held_out_surprise": lambda each: held_out_surprise(ROWS, ROWS, each),
}


@pytest.mark.parametrize("each", (0, -15, 1.5, "15", None))
@pytest.mark.parametrize("function", COUNTED)
def test_maps_a_simulation_are_one_or_more(function, each):
    with pytest.raises(ValueError, match=f"^each={each!r}: expected a whole number"):
        COUNTED[function](each)
    plt.close("all")


@pytest.mark.parametrize("n, each", [(0, 15), (8, 15), (60, 7)])
def test_an_error_bar_needs_whole_simulations(n, each):
    with pytest.raises(ValueError, match=f"expected {each} a simulation, found {n}"):
        standard_error(ROWS[:n], each)


@pytest.mark.parametrize("folds", (0, 1, 5, -2, 2.5))
def test_a_surprise_is_held_out_from_some_simulations(folds):
    with pytest.raises(ValueError, match=f"^folds={folds}: expected"):
        held_out_surprise(ROWS, ROWS, folds=folds)


@pytest.mark.parametrize("value", (math.nan, math.inf))
@pytest.mark.parametrize("name", ("summary", "fingerprint"))
def test_nothing_is_learned_from_what_is_no_number(name, value):
    given = {"summary": ROWS.clone(), "fingerprint": ROWS.clone()}
    given[name][7, 1] = value
    with pytest.raises(ValueError, match=f"^{name}: expected finite numbers"):
        Expectation.fit(**given)


BINS = ((13.5, 9.5, 80), (9.5, 9.5, 80), (math.nan, 13.5, 80), (9.5, math.inf, 80),
        (9.5, 13.5, 0), (9.5, 13.5, 1.5))


@pytest.mark.parametrize("bins", BINS)
def test_a_histogram_needs_bins(bins):
    with pytest.raises(ValueError, match="^bins="): one_point_pdf(MAPS, bins)


@pytest.mark.parametrize("name", (None, 5, ["PM"], "pm", b"PM"))
def test_what_is_no_name_of_cmd_is_refused(name, tmp_path):
    for given in ("suite", "set", "field"):
        if given == "field" and name is None: continue  # the usual one
        for function, there in ((open_maps, {"suite": "PM"}),
                                (download, {"suite": "Astrid"})):
            names = {"set": "LH", "root": tmp_path} | there | {given: name}
            with pytest.raises(ValueError, match=f"^{given}=.* is unknown: expected"):
                function(**names)


@pytest.mark.parametrize("name", (None, 5, ["mini-128"], "mini", "../weights"))
@pytest.mark.parametrize("function", (released_folder, find_released, fetch_weights))
def test_what_is_no_name_of_a_release_is_refused(function, name, tmp_path):
    with pytest.raises(ValueError, match="no release has a model of this name; expect"):
        function(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_home_the_cache_must_be_named(tmp_path, monkeypatch):
    "As for a number of a user that no table of users has, in a container."
    for name in ("XDG_CACHE_HOME", "COSMOFLOW_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    for function in (released_folder, find_released, fetch_weights):
        with pytest.raises(FileNotFoundError, match="name a cache by COSMOFLOW_CACHE"):
            function("mini-128")
    assert not list(tmp_path.iterdir())
    assert released_folder("mini-128", tmp_path).parts[:-2] == tmp_path.parts
    monkeypatch.setenv("COSMOFLOW_CACHE", str(tmp_path))
    assert released_folder("mini-128").parts[:-2] == tmp_path.parts


@pytest.mark.parametrize("i", (slice(0, 5), [1, 2], 1.5, "a", None), ids=str)
def test_data_gives_one_map_at_a_time(i):
    with pytest.raises(ValueError, match=r"^data\[.*expected the number of one map; "):
        DATA[i]
    with pytest.raises(IndexError): DATA[150]
    for three in (3, np.int64(3), torch.tensor(3), -147):
        assert (DATA[three][0] == MAPS[3]).all()


KINDS = {"a list": lambda p: p.tolist(), "a tensor": torch.tensor,
         "whole numbers": lambda p: np.ones_like(p, int)}


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_own_maps_are_an_array_whatever_they_were(kind):
    params = KINDS[kind](DATA.params)
    data, expected = MapData(MAPS, params), np.asarray(params)
    assert type(data.params) is type(data.targets) is np.ndarray
    np.testing.assert_array_equal(data.targets, expected.repeat(15, 0))
    for part, dealt in zip(data.split(), deal_simulations(10)):
        np.testing.assert_array_equal(part.params, expected[dealt])


@pytest.mark.parametrize("value", (math.nan, math.inf, "0.3"))
def test_parameters_of_own_maps_are_numbers(value):
    params = DATA.params.tolist()
    params[4][1] = value
    with pytest.raises(ValueError, match="^params: expected finite numbers"):
        MapData(MAPS, params)


@pytest.mark.parametrize("function, name", [(plot_spectra, "maps"), (figure, "recs")])
@pytest.mark.parametrize("given, found", [(MAPS, "ndarray"), ([MAPS], "list"),
                                          ({}, "none"), (None, "NoneType")])
def test_maps_to_compare_have_names(function, name, given, found):
    more = {"true": MAPS} if "true" in inspect.signature(function).parameters else {}
    with pytest.raises(ValueError, match=f"^{name}: expected maps by .* found {found}"):
        function(**more, **{name: given})
    assert not plt.get_fignums()


def test_a_figure_compares_as_many_maps_of_one_size():
    for others, found in ((MAPS[:15], "15, 16, 16"), (MAPS[:, :8, :8], "150, 8, 8")):
        message = rf"^other: expected shape \(150, 16, 16\), found \({found}\)"
        with pytest.raises(ValueError, match=message): figure(MAPS, {"other": others})
    for show in (0, 1.5):
        with pytest.raises(ValueError, match=f"^show={show}: expected a whole number"):
            figure(MAPS, {"other": MAPS}, show=show)
    assert not plt.get_fignums()


MODEL = randomised(channels=2, steps=1)
ODD = open_maps("PM", "LH", sims=slice(0, 40), pixels=16)
ODD = MapData(1e10 * ODD.maps[:], ODD.params)  # in units that no model was trained for
NOISE = torch.zeros(40, 2), torch.randn(40, 19)
DETECTOR = Detector(MODEL, Expectation.fit(*NOISE, 5), 2 * (torch.ones(9),), pixels=16)
ADVISED = {  # what refuses these maps, or a part of a simulation
    "Detector.fit": partial(Detector.fit, MODEL, ODD),
    "Detector.score": partial(DETECTOR.score, ODD.maps),
    "Detector.p_value": partial(DETECTOR.p_value, ODD.maps[:7], together=True),
    "encode": partial(MODEL.encode, ODD.maps),
    "summarise": partial(MODEL.summarise, ODD.maps),
    "reconstruct": partial(MODEL.reconstruct, ODD.maps),
    "fit_prior": partial(MODEL.fit_prior, ODD.maps),
    "swap_changes": partial(swap_changes, MODEL, ODD.maps, ODD.maps),
    "evaluate": partial(evaluate, MODEL, ODD, steps=1),
    "standard_error": partial(standard_error, ROWS[:7]),
    "stacked_ratio": partial(stacked_ratio, ROWS[:7], ROWS[:7]),
    "relative_error": partial(relative_error, ROWS[:7], ROWS[:7]),
    "compare": partial(compare, MAPS[:7], MAPS[:7]),
    "figure": partial(figure, MAPS[:8], {"a": MAPS[:8]}),
    "decode": partial(MODEL.decode, ROWS[:7, :2, None, None], generator=3),
}


@pytest.mark.parametrize("function", ADVISED)
def test_an_error_advises_no_argument_that_the_function_does_not_have(function):
    ask = ADVISED[function]
    with pytest.raises(ValueError) as refused: ask()
    advice = str(refused.value).partition(";")[2]
    advised = {a or b for a, b in re.findall(r"\b(\w+)=|set (\w+)$", advice)}
    assert advised and advised <= set(inspect.signature(ask.func).parameters)
    plt.close("all")


def test_a_detector_of_odd_maps_is_made_as_the_error_says():
    found = Detector.fit(MODEL, ODD, check=False)
    assert (found.p_value(ODD.maps[:15], True, check=False) > 0.1).all()


X, Y = (ROWS[:20, :n] for n in (3, 2))
LEARNERS = {  # every function that takes a rate of learning
    "TrainConfig": lambda out: TrainConfig,
    "train_vae": lambda out: partial(
        train_vae, VAE(MODEL.normalizer, 16, width=8), DATA, out, 1),
    "distill": lambda out: partial(distill, MODEL, DATA, out, epochs=1, fine=1),
    "train_for_rate": lambda out: partial(train_for_rate, MODEL, DATA, out, epochs=1),
    "train_points": lambda out: partial(train_points, open_points(), out, 1, count=60),
    "fit_flow": lambda out: partial(fit_flow, torch.nn.Linear(3, 2), X[:, None],
                                    0.4 + 0 * Y, X[:, None], 0.4 + 0 * Y, 1),
    "fit_regressor": lambda out: partial(
        fit_regressor, torch.nn.Linear(3, 2), X, Y, X, Y, Scaler.fit(X), 1,
        weight_decay=0.0),
    "fit_mlp": lambda out: partial(fit_mlp, X, Y, X, Y, 8, 1),
}


@pytest.mark.parametrize("lr", (0, 0.0, -1e-3, math.nan, math.inf, "1e-3", None))
@pytest.mark.parametrize("learner", LEARNERS)
def test_with_a_rate_of_zero_nothing_would_be_learnt(learner, lr, tmp_path):
    learn = LEARNERS[learner](tmp_path / "out")
    with pytest.raises(ValueError, match=f"^lr={lr!r}: expected a finite number above"):
        learn(lr=lr)
    assert not list(tmp_path.iterdir())


def test_every_rate_of_learning_is_asked_for():
    modules = (import_module(f"cosmoflow.{name}") for name in (
        "train", "vae", "distill", "codec", "points", "posterior", "inference"))
    public = {name: vars(module)[name] for module in modules for name in module.__all__}
    assert {name for name, found in public.items() if callable(found)
            and "lr" in inspect.signature(found).parameters} == LEARNERS.keys()
    assert "lr" in inspect.signature(Posterior.fit).parameters  # hands it to fit_flow


@pytest.mark.parametrize("call, message", [
    (lambda: DETECTOR.p_value(ODD.maps, together=15), "together=15: expected True or"),
    (lambda: swap_changes(MODEL, ODD.maps[:1], ODD.maps[1:2], groups=[0, 1]),
     "groups: 0; expected lists of channels from 0 to"),
    (lambda: stacked_ratio(torch.ones(30, 4), torch.ones(1, 4)),
     r"reference: expected the spectra of as many maps, \(30, 4\), found \(1, 4\)"),
    (lambda: to_symbols(MODEL, "codec", ODD.maps),
     "codec: expected a Codec, found str")])
def test_an_argument_of_another_kind_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"): call()

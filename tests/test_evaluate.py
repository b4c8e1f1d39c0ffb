"""What an evaluation refuses, before it decodes, and which parameters it infers."""
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import randomised

from cosmoflow import CosmoFlow, evaluate as evaluation
from cosmoflow.data import open_maps
from cosmoflow.evaluate import evaluate, infer_parameters, report
from cosmoflow.inference import fit_mlp
from cosmoflow.results import headlines

NAMES = "train", "val", "test"


@pytest.fixture(scope="module")
def data(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


def changed(data, which, **arrays):
    "Data in which the last simulation of one part has other maps or parameters."
    part = data.split()[NAMES.index(which)]
    i = data.numbers.tolist().index(part.numbers[-1])
    maps, params = np.array(data.maps), np.array(data.params)
    if "maps" in arrays: maps[15 * i + 14] = arrays["maps"]
    if "params" in arrays: params[i, 1] = arrays["params"]
    return replace(data, maps=maps, params=params)


@pytest.fixture()
def idle(monkeypatch):
    "A model that must not be asked for a field or a map."
    def refused(*_, **__): raise AssertionError("it began to work")
    for name in ("encode", "decode", "_fields"):
        monkeypatch.setattr(CosmoFlow, name, refused)
    monkeypatch.setattr(evaluation, "spectrum_features", refused)
    return randomised()


@pytest.mark.parametrize("which", NAMES)
@pytest.mark.parametrize("methods", [(), ("spectrum",), ("summaries",)])
def test_a_map_that_cannot_be_is_refused_before_any_work(which, methods, data, idle):
    "Also one of the training part, which used to be found after the last decoding."
    wrong, message = changed(data, which, maps=0), f"{which} maps: .* in one of them"
    with pytest.raises(ValueError, match=message):
        if methods: infer_parameters(idle, *wrong.split(), methods)
        else: evaluate(idle, wrong, raw_maps=False)


def test_a_true_value_of_0_is_refused_before_any_work(data, idle):
    number = data.split()[2].numbers[-1]
    wrong = changed(data, "test", params=1e-60)  # float32 has no such number
    message = f"sigma_8 = 0 in simulation {number}"
    with pytest.raises(ValueError, match=message): evaluate(idle, wrong)
    with pytest.raises(ValueError, match=message):
        infer_parameters(idle, *wrong.split(), check=False)


def test_what_varies_nowhere_is_refused_before_any_work(idle):
    still = open_maps("PM", "CV", sims=slice(0, 10), pixels=16).split()
    with pytest.raises(ValueError, match="parameters that vary"):
        infer_parameters(idle, *still)
    assert infer_parameters(idle, *still, methods=()) == {}


@pytest.mark.parametrize("column", (0, 1))
def test_the_parameter_that_varies_is_inferred(column, data, monkeypatch):
    "Its numbers are those of data that have no other one; a 0 that stands is no fault."
    few = lambda *args, **kwargs: fit_mlp(*args, **kwargs, epochs=3)
    monkeypatch.setattr(evaluation, "fit_mlp", few)
    params = np.array(data.params)
    params[:, 1 - column] = 0
    one = replace(data, params=params)
    alone = replace(data, params=params[:, [column]],
                    param_names=(data.param_names[column],))
    found, expected = (evaluate(randomised(), some, raw_maps=False, steps=1).metrics
                       for some in (one, alone))
    assert found["parameters"] == expected["parameters"] == [data.param_names[column]]
    assert list(found["inference"]) == ["summaries", "spectrum"]
    for method, error in found["inference"].items():
        assert len(error["mean"]) == 1
        assert error["mean"] == expected["inference"][method]["mean"]
    head, *rows = report(found).splitlines()[-3:]
    assert head.split()[3:] == found["parameters"]
    assert all(len(row.split()) == 2 for row in rows)  # one simulation, no scatter


def test_text_and_table_take_one_parameter_and_numbers_without_an_error():
    "A single simulation has no scatter: nothing says nan, and no column is missing."
    k, nan = [0.25 * n for n in range(1, 33)], float("nan")
    measured = {"k": k, "ratio": [0.9] * 32, "ratio_error": [nan] * 32, "r": [0.8] * 32,
                "r_error": [nan] * 32, "pdf": 0.5, "pdf_error": nan, "n_maps": 15}
    metrics = {"reconstruction": measured, "simulations": {"test": 1}, "suite": "own",
               "set": "LH", "parameters": ["sigma_8"],
               "inference": {"summaries": {"mean": [0.2], "standard_error": [nan]},
                             "raw maps": {"mean": [0.1], "standard_error": [0.01]}}}
    said = report(metrics)
    assert "nan" not in said and "Omega_m" not in said
    assert "20.00\n" in said and "10.00 +- 1.00" in said
    rows = {(row.quantity, row.method): row for row in headlines(metrics, "it")}
    assert rows["relative error of sigma_8, %", "it, raw maps"].value == 10
    assert rows["error of sigma_8, summaries / raw maps", "it"].paper == 1.37
    assert not any("Omega_m" in quantity for quantity, _ in rows)


def test_numbers_of_numpy_go_into_json(data, monkeypatch):
    "As loops over seeds and steps give them; one simulation is no plural."
    few = lambda *args, **kwargs: fit_mlp(*args, **kwargs, epochs=3)
    monkeypatch.setattr(evaluation, "fit_mlp", few)
    model = randomised(steps=1)
    found = [evaluate(model, data, kind(3), False, kind(1)).metrics
             for kind in (int, np.int64)]
    texts = [json.dumps(metrics, sort_keys=True) for metrics in found]
    assert texts[0] == texts[1]
    assert report(found[0]).startswith("15 held-out maps of 1 simulation (PM LH)")

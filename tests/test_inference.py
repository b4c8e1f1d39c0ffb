"""Regression: known answers, the search that goes on, and the networks' symmetries."""
import sqlite3
from copy import deepcopy
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pytest
import torch
from conftest import randomised
from test_door import Single

from cosmoflow import inference
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.evaluate import evaluate, report
from cosmoflow.inference import (Scaler, fit_cnn, fit_mlp, fit_regressor, fit_resnet18,
                                 parabola, relative_error, search_mlp)
from cosmoflow.results import (Result, headlines, open_experiment, read_record,
                               read_records, record, results_table)
from cosmoflow.train import identify


NAN, INF = float("nan"), float("inf")


def linear(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    return x, x @ torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]) + 10


def test_mlp_learns_a_line():
    (x, y), (x_val, y_val) = linear(600, 0), linear(90, 1)
    x_test, y_test = linear(90, 2)
    fit = fit_mlp(x, y, x_val, y_val, hidden=64, epochs=60, lr=5e-3)
    assert (relative_error(fit.predict(x_test), y_test).mean < 0.01).all()


def test_search_goes_on_and_finds_something_sensible(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    search_mlp(x, y, x_val, y_val, tmp_path / "search.db", trials=2, epochs=3)
    best = search_mlp(x, y, x_val, y_val, tmp_path / "search.db", trials=5, epochs=3)
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    study = optuna.load_study(study_name="mlp", storage=storage)
    assert len(study.trials) == 5 and study.best_params == best
    drawn = {trial.params["lr"] for trial in study.trials}
    assert len(drawn) == 5  # none of them twice
    assert study.best_value == min(trial.value for trial in study.trials)
    again = fit_mlp(x, y, x_val, y_val, epochs=3, **best)
    guess, true = map(again.y_scaler, (again.predict(x_val), y_val))
    assert study.best_value == pytest.approx((guess - true).square().mean().item())


def test_a_seed_decides_on_weights_and_on_batches():
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    weights = [fit_mlp(x, y, x_val, y_val, 4, 1, 1e-15, seed=seed).net[0].weight
               for seed in (0, 0, 1)]
    line = torch.nn.Linear(3, 2)
    steps = [fit_regressor(deepcopy(line), x, y, x_val, y_val, Scaler.fit(x), 1, 1e-2,
                           0.0, seed=seed).net.weight for seed in (0, 0, 1)]
    for one, same, other in (weights, steps):
        assert torch.equal(one, same) and not torch.allclose(one, other)


@pytest.mark.parametrize("fit", (partial(fit_cnn, width=2), fit_resnet18))
def test_networks_on_raw_maps_meet_each_under_a_symmetry(fit, monkeypatch):
    turned = []
    monkeypatch.setattr(inference, "augment", lambda x, _: turned.append(x) or x)
    x = torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = x.mean((2, 3))
    fit(x, y, x, y, epochs=1)
    met = torch.cat(turned)[:, 0, 0, 0]
    assert torch.equal(met.sort().values, x[:, 0, 0, 0].sort().values)


def origin(data, model=None):
    model = model or randomised()
    return identify({}, data, model, teacher=model)


def other_weights():
    model = randomised()
    torch.nn.init.zeros_(next(model.parameters()))
    return model


def other_norm():
    model = randomised()
    model.normalizer = Normalizer(11.0, 0.6, 1e8)
    return model


CV = open_maps("PM", "CV")
(X, Y), (X_VAL, Y_VAL) = linear(120, 0), linear(60, 1)
ORIGIN = origin(CV)
OTHER = {  # what a search goes on with, and how the refusal names it
    "suite": (dict(origin=origin(replace(CV, suite="Astrid"))),
              "data suite is 'PM' there and 'Astrid' here"),
    "set": (dict(origin=origin(replace(CV, set="LH"))),
            "data set is 'CV' there and 'LH' here"),
    "field": (dict(origin=origin(replace(CV, field="Mtot"))),
              "data field is 'Mcdm' there and 'Mtot' here"),
    "pixels": (dict(origin=origin(open_maps("PM", "CV", pixels=32))),
               "data pixels is 64 there and 32 here"),
    "number of simulations": (
        dict(origin=origin(open_maps("PM", "CV", sims=slice(0, 2)))),
        "data simulations is"),
    "maps": (dict(origin=origin(replace(CV, maps=1.01 * np.asarray(CV.maps)))),
             "data brightest is"),
    "simulations": (dict(origin=origin(replace(CV, params=CV.params + 1e-6))),
                    "data parameters is"),
    "normaliser": (dict(origin=origin(CV, other_norm())),
                   "normalizer std is 0.5 there and 0.6 here"),
    "model": (dict(origin=origin(CV, randomised(width=16))),
              "model width is 8 there and 16 here"),
    "weights": (dict(origin=origin(CV, other_weights())), "teacher weights is"),
    "features": (dict(x=X + 1e-6), "features training is"),
    "validation features": (dict(x_val=-X_VAL), "features validation is"),
    "parameters": (dict(y=Y + 1), "parameters training is"),
    "validation parameters": (dict(y_val=Y_VAL + 1), "parameters validation is"),
    "epochs": (dict(epochs=4), "settings epochs is 3 there and 4 here"),
    "seed": (dict(seed=1), "settings seed is 0 there and 1 here"),
}
SEARCH = dict(x=X, y=Y, x_val=X_VAL, y_val=Y_VAL, trials=1, epochs=3, origin=ORIGIN)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    "A search of one trial."
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = tmp_path_factory.mktemp("search") / "50% done? #1.db"
    search_mlp(**SEARCH, storage=path)
    files = [file.name for file in path.parent.iterdir()]
    assert files == [path.name]  # no part of the name was read as a query
    return path


@pytest.mark.parametrize("what", OTHER)
def test_a_search_goes_on_with_nothing_else(what, searched):
    change, message = OTHER[what]
    before = searched.read_bytes()
    message = f"another run: .*{message}.*choose another folder"
    with pytest.raises(ValueError, match=message):
        search_mlp(**SEARCH | change | {"trials": 2}, storage=searched)
    assert searched.read_bytes() == before


def test_a_search_of_an_older_version_goes_on(tmp_path):
    "It did not say which maps its features are of; the features' digest does."
    path, older = tmp_path / "search.db", {**ORIGIN, "data": dict(ORIGIN["data"])}
    for name in ("maps", "brightest"): del older["data"][name]
    search_mlp(**SEARCH | {"origin": older}, storage=path)
    search_mlp(**SEARCH | {"trials": 2}, storage=path)


def test_a_search_that_does_not_say_what_it_is_of_is_not_gone_on_with(tmp_path):
    path = tmp_path / "search.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="mlp")
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
    message = "search.db does not say what run it is of, since an older version"
    with pytest.raises(ValueError, match=message): search_mlp(**SEARCH, storage=path)


def damaged(path, searched): path.write_bytes(searched.read_bytes()[:20_000])


def locked(path, searched):
    path.write_bytes(searched.read_bytes())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def text(path, searched): path.write_text("trials" * 999, encoding="utf-8")


FILES = {
    "a folder": (lambda path, _: path.mkdir(), OSError, "unable to open"),
    "a text": (text, ValueError, "not a database"),
    "a part": (damaged, ValueError, "malformed"),
    "in use": (locked, OSError, "locked"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_sqlite_cannot_use_is_said_in_our_words(
        kind, searched, tmp_path, monkeypatch):
    make, error, words = FILES[kind]
    path = tmp_path / "search.db"
    connect = sqlite3.dbapi2.connect
    soon = lambda *args, **kwargs: connect(*args, **kwargs | {"timeout": 0.1})
    monkeypatch.setattr(sqlite3.dbapi2, "connect", soon)
    kept = make(path, searched)
    message = (f"^{path}: expected the SQLite file of a search"
               f".*{words}.*; choose another file$")
    with pytest.raises(error, match=message): search_mlp(**SEARCH, storage=path)
    if kind == "in use": kept.close()


def test_features_that_are_not_numbers_are_named(tmp_path):
    message = "^x, y: the loss of every trial"
    with pytest.raises(FloatingPointError, match=message):
        search_mlp(**SEARCH | {"x": X * torch.nan}, storage=tmp_path / "search.db")


def test_a_loss_that_is_not_a_number_is_no_fit():
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    x[7, 1] = torch.nan
    message = "MLP, epoch 1: the validation loss is nan; .* a lower lr than 0.005"
    with pytest.raises(FloatingPointError, match=message):
        fit_mlp(x, y, x_val, y_val, hidden=8, epochs=3, lr=5e-3)


def net(): return torch.nn.Linear(3, 2)


MAPS = torch.randn(120, 1, 16, 16, generator=torch.Generator().manual_seed(0))
FITS = {  # what learns from examples: how it is called, and on what
    "fit_mlp": (partial(fit_mlp, hidden=8, epochs=1), X),
    "fit_regressor": (lambda x, *rest, **more: fit_regressor(
        net(), x, *rest, Scaler.fit(X), **dict(epochs=1, lr=1e-3, weight_decay=0) | more
        ), X),
    "search_mlp": (lambda *given, **more: search_mlp(
        *given, **dict(storage="search.db", trials=1, epochs=1) | more), X),
    "fit_cnn": (partial(fit_cnn, width=2, epochs=1), MAPS),
    "fit_resnet18": (partial(fit_resnet18, epochs=1), MAPS),
}
MISFITS = {  # examples that do not fit each other, and which is named
    "fewer parameters": (lambda x, y, xv, yv: (x, y[:60], xv, yv), "y"),
    "one for all": (lambda x, y, xv, yv: (x, y, xv, yv[:1]), "y_val"),
    "another column": (lambda x, y, xv, yv: (x, y, xv, yv[:, :1]), "y_val"),
    "a single column": (lambda x, y, xv, yv: (x, y[:, 0], xv, yv), "y"),
    "no example": (lambda x, y, xv, yv: (x[:0], y[:0], xv, yv), "x"),
    "none to judge by": (lambda x, y, xv, yv: (x, y, xv[:0], yv[:0]), "x_val"),
    "other inputs": (lambda x, y, xv, yv: (x, y, xv[..., :-1], yv), "x_val"),
    "a list": (lambda x, y, xv, yv: (x.tolist(), y, xv, yv), "x"),
    "no parameters": (lambda x, y, xv, yv: (x, None, xv, yv), "y"),
}


@pytest.mark.parametrize("kind", MISFITS)
@pytest.mark.parametrize("name", FITS)
def test_examples_that_do_not_fit_each_other_are_named(
        name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit, x = FITS[name]
    change, named = MISFITS[kind]
    with pytest.raises(ValueError, match=f"^{named}: .*expected"):
        fit(*change(x, Y, x[:60], Y[:60]))
    assert not list(tmp_path.iterdir())


COUNTS = {"epochs": (0, -3, 1.5), "hidden": (0, 2.5), "width": (0,), "seed": (-1,),
          "batch_size": (0,), "lr": (NAN, INF, -1, "x", 0),
          "weight_decay": (NAN, INF, -1)}
TAKES = {"fit_mlp": "epochs hidden lr weight_decay seed",
         "fit_cnn": "epochs width seed",
         "fit_regressor": "epochs batch_size lr weight_decay seed",
         "search_mlp": "epochs seed", "fit_resnet18": "epochs seed"}


@pytest.mark.parametrize("name, wrong", [
    (name, {k: value}) for name, takes in TAKES.items() for k in takes.split()
    for value in COUNTS[k]], ids=str)
def test_settings_that_teach_nothing_are_refused(name, wrong, tmp_path, monkeypatch):
    "Without an epoch, what came back had learnt nothing."
    monkeypatch.chdir(tmp_path)
    fit, x = FITS[name]
    with pytest.raises(ValueError, match=f"^{[*wrong][0]}="):
        fit(x, Y, x[:60], Y[:60], **wrong)
    assert not list(tmp_path.iterdir())


KINDS = {"numpy": lambda v: v.numpy(), "big-endian": lambda v: v.numpy().astype(">f4"),
         "read-only": lambda v: np.broadcast_to(v.numpy()[None], (1, *v.shape))[0],
         "with gradients": lambda v: v.clone().requires_grad_(),
         "backwards": lambda v: v.numpy()[:, ::-1].copy()[:, ::-1]}


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_any_kind_teach_the_same(kind):
    turn, given = KINDS[kind], (X, Y, X_VAL, Y_VAL)
    fit = FITS["fit_mlp"][0]
    expected = fit(*given).predict(X_VAL)
    found = fit(*map(turn, given)).predict(turn(X_VAL))
    assert torch.equal(found, expected)
    for ask in (lambda t: relative_error(t(expected), t(Y_VAL)).mean,
                lambda t: parabola(t(X)).detach().numpy()):
        np.testing.assert_array_equal(ask(turn), ask(lambda v: v))


@pytest.mark.parametrize("wrong, message", [
    (X[:0], "x: it is empty"), (X[:, :2], "x: expected 3 features, .* found shape")])
def test_what_a_regressor_was_not_made_for_is_refused(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        FITS["fit_mlp"][0](X, Y, X_VAL, Y_VAL).predict(wrong)


@pytest.mark.parametrize("name, side", [("fit_cnn", 16), ("fit_resnet18", 32)])
def test_the_last_map_of_65_learns_with_those_before_it(name, side):
    "Alone it stopped batch normalisation: fields of one pixel have no scatter."
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(65, 1, side, side, generator=draw)
    fit = FITS[name][0](maps, Y[:65], maps[:9], Y[:9])
    assert fit.predict(maps).isfinite().all()


@pytest.mark.parametrize("n, size, expected", [
    (65, 64, [65]), (129, 64, [64, 65]), (128, 64, [64, 64]), (66, 64, [64, 2]),
    (5, 2, [2, 3]), (3, 1, [1, 1, 1]), (1, 64, [1]), (64, 64, [64])])
def test_every_example_is_in_one_batch_and_none_is_alone(n, size, expected):
    parts = inference._batches(torch.arange(n), size)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), torch.arange(n))


def test_scalers_go_where_the_network_goes():
    fit = FITS["fit_mlp"][0](X, Y, X_VAL, Y_VAL)
    expected = fit.predict(X_VAL)
    other = FITS["fit_mlp"][0](2 * X, 3 * Y, X_VAL, Y_VAL)
    other.load_state_dict(fit.state_dict())
    assert torch.equal(other.predict(X_VAL), expected)
    found = fit.double().predict(X_VAL)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected)
    assert fit.to("meta").predict(X_VAL.to("meta")).device.type == "meta"


@pytest.mark.parametrize("true", (Y[:60], Y[:1], Y[:, :1]))
def test_an_error_is_that_of_each_map(true):
    "A single truth would be taken for that of all."
    with pytest.raises(ValueError, match=r"^true: expected shape \(120, 2\)"):
        relative_error(Y, true)


@pytest.mark.parametrize("column", (0, 1))
def test_no_error_is_relative_to_a_parameter_of_zero(column):
    true = Y[:60].clone().abs() + 1
    true[7, column] = 0
    with pytest.raises(ValueError, match=f"^true: .*row 7, column {column}; leave"):
        relative_error(Y[:60], true)
    with pytest.raises(ValueError, match="^true: .*row 7; leave"):
        relative_error(Y[:60, column], true[:, column])


def test_a_trial_that_fails_does_not_end_the_search(tmp_path, monkeypatch):
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    fits = iter((x.new_full((), torch.nan), x.new_ones(())))
    fit = lambda x, *args, **kwargs: fit_mlp(x * next(fits), *args, **kwargs)
    monkeypatch.setattr(inference, "fit_mlp", fit)
    best = search_mlp(x, y, x_val, y_val, tmp_path / "search.db", trials=2, epochs=3)
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    study = optuna.load_study(study_name="mlp", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.best_params == best


def test_resnet18_learns_brightness():
    g = torch.Generator().manual_seed(0)
    level = torch.rand(288, 1, generator=g) * 2 - 1
    maps = level[:, :, None, None] + 0.3 * torch.randn(288, 1, 32, 32, generator=g)
    y = torch.cat([level, -level], 1) + 3
    fit = fit_resnet18(maps[:256], y[:256], maps[256:], y[256:], epochs=12)
    guess = (y[256:] - y[:256].mean(0)).square().mean()
    assert (fit.predict(maps[256:]) - y[256:]).square().mean() < 0.2 * guess


def test_a_record_without_an_error_becomes_a_row(tmp_path):
    result = Result("order", "ours", 0.97, None, "large first")
    record("01_one", [result], "PM", folder=tmp_path)
    (r,) = read_records(tmp_path)
    assert r["pixels"] == 64 and r["hardware"] and r["results"][0]["value"] == 0.97
    assert "| order | ours | 0.97 | large first |" in results_table([r])
    with pytest.raises(FileNotFoundError, match="make results"):
        read_records(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="02_two.json: .* there are: 01_one"):
        read_record("02_two", tmp_path)


@pytest.mark.parametrize("full", [False, True])
def test_only_a_full_run_writes_the_record(full, tmp_path):
    was = Result("error of x, %", "ours", 5.0, 0.5, 4.0)
    record("00_trial", [was], "120 simulations", folder=tmp_path)
    before = (tmp_path / "00_trial.json").read_bytes()
    lab = open_experiment("00_trial", model=None, sims=slice(0, 10), full=full)
    now = [Result("error of x, %", "ours", 7.0, 0.5, 4.0), Result("new", "ours", 1.0)]
    table = lab.close(now, folder=tmp_path)
    if full:
        assert read_record("00_trial", tmp_path)["data"] == "PM LH, 10 simulations"
        assert "| error of x, % | ours | 7.00 ± 0.50 | 4 |" in table
    else:
        assert (tmp_path / "00_trial.json").read_bytes() == before
        assert "| error of x, % | ours | 7.00 ± 0.50 | 5.00 ± 0.50 | 4 |" in table
        assert "| new | ours | 1 |  |  |" in table and "120 simulations" in table


def test_an_experiment_takes_the_side_of_its_maps():
    open_one = partial(open_experiment, "00_trial", model=None, sims=slice(0, 10))
    assert open_one().data.box == 25.0
    assert [part.box for part in open_one(box=50.0).parts] == [50.0] * 3


@pytest.mark.parametrize("full", [False, True])
def test_a_new_experiment_needs_no_record(full, tmp_path):
    lab = open_experiment("99_new", model=None, sims=slice(0, 10), full=full)
    table = lab.close([Result("error of x, %", "ours", 7.0, 0.5, 4.0)], folder=tmp_path)
    kept = [path.name for path in tmp_path.iterdir()]
    if full:
        assert kept == ["99_new.json"]
        assert "| error of x, % | ours | 7.00 ± 0.50 | 4 |" in table
    else:
        assert kept == []
        assert "| error of x, % | ours | 7.00 ± 0.50 |  | 4 |" in table
        assert table.endswith("*No full run is recorded yet.*")


@pytest.mark.parametrize("full", [False, True])
def test_figures_of_quick_runs_say_so(full):
    fig = plt.figure()
    open_experiment("00_trial", model=None, full=full).mark(fig)
    assert [t.get_text() for t in fig.texts] == ([] if full else ["quick run"])
    plt.close(fig)


def test_what_never_varies_cannot_be_learned():
    "A constant parameter is refused, where it would give errors of 0 and NaN."
    (x, y), (x_val, y_val) = linear(60, 0), linear(30, 1)
    still, also = (torch.column_stack([v, torch.full((len(v),), 0.3)])
                   for v in (y, y_val))
    with pytest.raises(ValueError, match="y: .*vary.*column 2"):
        fit_mlp(x, still, x_val, also, hidden=4, epochs=1)


def test_a_set_of_one_cosmology_is_judged_by_its_maps():
    "CV varies phases alone: its maps are measured, and no parameter is inferred."
    data = open_maps("PM", "CV", sims=slice(0, 10), pixels=32)
    model = randomised("tiny")
    metrics = evaluate(model, data, steps=1, solver="euler").metrics
    assert metrics["inference"] == {} and metrics["reconstruction"]["n_maps"] == 15
    assert "do not vary" in report(metrics)
    dim = replace(data, maps=1e-4 * np.array(data.maps))
    with pytest.raises(ValueError, match="check=False"): evaluate(model, dim, steps=1)
    assert evaluate(model, dim, steps=1, check=False).metrics["reconstruction"]
    assert all("relative error" not in row.quantity for row in headlines(metrics, "it"))


def test_errors_of_a_device_without_double_precision():
    "Parameters of a table are double, and what a network says there is not."
    predicted, true = Y + 3, (Y + 4).double()
    found = relative_error(predicted.as_subclass(Single), true.numpy())
    np.testing.assert_array_equal(found.mean, relative_error(predicted, true).mean)


def test_a_search_takes_numbers_of_numpy_and_goes_on_with_python_s(tmp_path):
    given = X[:60], Y[:60], X[60:], Y[60:], tmp_path / "search.db"
    found = [search_mlp(*given, kind(1), kind(2), kind(3)) for kind in (np.int64, int)]
    assert found[0] == found[1]


@pytest.mark.parametrize("wrong", (X[:, 0], X[:, :2], X[:, None, :1]))
def test_a_regressor_of_one_number_takes_one_number(wrong):
    "Its scaler looks like that of maps, which may have any size."
    fit = FITS["fit_mlp"][0](X[:, :1], Y, X_VAL[:, :1], Y_VAL)
    assert fit.predict(X[:, :1]).shape == Y.shape
    with pytest.raises(ValueError, match="^x: expected 1 features, .* found shape"):
        fit.predict(wrong)
    maps = FITS["fit_cnn"][0](MAPS, Y, MAPS[:60], Y[:60])
    assert maps.predict(MAPS[:2].repeat(1, 1, 2, 2)).shape == (2, 2)  # another size


@pytest.mark.parametrize("wrong", (X[:, 0], X[None]))
def test_a_parabola_takes_rows_of_numbers(wrong):
    with pytest.raises(ValueError, match=r"^z: expected shape \(n, C\), found"):
        parabola(wrong)

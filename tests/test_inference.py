"""Regression: known answers, the search that goes on, and the networks' symmetries."""
import optuna
import pytest
import torch

from cosmoflow import inference
from cosmoflow.inference import fit_mlp, fit_resnet18, relative_error, search_mlp
from cosmoflow.results import Result, read_record, read_records, record, results_table


def linear(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    return x, x @ torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]) + 10


def test_mlp_learns_a_line():
    (x, y), (x_val, y_val), (x_test, y_test) = linear(600, 0), linear(90, 1), linear(90, 2)
    fit = fit_mlp(x, y, x_val, y_val, hidden=64, epochs=60, lr=5e-3)
    assert (relative_error(fit.predict(x_test), y_test).mean < 0.01).all()


def test_search_goes_on_and_finds_something_sensible(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    search_mlp(x, y, x_val, y_val, tmp_path / "search.db", trials=2, epochs=3)
    best = search_mlp(x, y, x_val, y_val, tmp_path / "search.db", trials=5, epochs=3)
    study = optuna.load_study(study_name="mlp", storage=f"sqlite:///{tmp_path / 'search.db'}")
    assert len(study.trials) == 5 and study.best_params == best
    assert len({trial.params["lr"] for trial in study.trials}) == 5          # nothing was drawn twice
    assert study.best_value == min(trial.value for trial in study.trials)


def test_a_loss_that_is_not_a_number_is_no_fit():
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    x[7, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="MLP, epoch 1: the validation loss is nan; .* a lower lr than 0.005"):
        fit_mlp(x, y, x_val, y_val, hidden=8, epochs=3, lr=5e-3)


def test_a_trial_that_fails_does_not_end_the_search(tmp_path, monkeypatch):
    (x, y), (x_val, y_val) = linear(120, 0), linear(60, 1)
    fits = iter((x.new_full((), torch.nan), x.new_ones(())))
    monkeypatch.setattr(inference, "fit_mlp", lambda *args, **kwargs: fit_mlp(args[0] * next(fits), *args[1:], **kwargs))
    best = search_mlp(x, y, x_val, y_val, tmp_path / "search.db", trials=2, epochs=3)
    study = optuna.load_study(study_name="mlp", storage=f"sqlite:///{tmp_path / 'search.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"] and study.best_params == best


def test_resnet18_learns_brightness():
    g = torch.Generator().manual_seed(0)
    level = torch.rand(288, 1, generator=g) * 2 - 1
    maps = level[:, :, None, None] + 0.3 * torch.randn(288, 1, 32, 32, generator=g)
    y = torch.cat([level, -level], 1) + 3
    fit = fit_resnet18(maps[:256], y[:256], maps[256:], y[256:], epochs=12)
    guess = (y[256:] - y[:256].mean(0)).square().mean()
    assert (fit.predict(maps[256:]) - y[256:]).square().mean() < 0.2 * guess


def test_a_record_without_an_error_becomes_a_row(tmp_path):
    record("01_one", [Result("order", "ours", 0.97, None, "large first")], "PM", folder=tmp_path)
    (r,) = read_records(tmp_path)
    assert r["pixels"] == 64 and r["hardware"] and r["results"][0]["value"] == 0.97
    assert "| order | ours | 0.97 | large first |" in results_table([r])
    with pytest.raises(FileNotFoundError, match="make results"): read_records(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="02_two.json: .* there are: 01_one"): read_record("02_two", tmp_path)

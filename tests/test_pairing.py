"""Outputs belong to inputs: samples to fields, rows to maps, parameters to maps."""
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import randomised

from cosmoflow import cli, evaluate as evaluation, inference, plot
from cosmoflow.anomaly import fingerprint
from cosmoflow.bench import untrained
from cosmoflow.core import in_pieces, read_json, standard_error
from cosmoflow.data import (MapData, Normalizer, augment, batches, lower_resolution,
                            open_maps)
from cosmoflow.distill import distill
from cosmoflow.evaluate import (Reconstruction, compare, evaluate, infer_parameters,
                                report)
from cosmoflow.flow import integrate
from cosmoflow.inference import (Regressor, Scaler, fit_regressor, relative_error,
                                 spectrum_features)
from cosmoflow.model import draw_fields
from cosmoflow.spectra import (cross_correlation, one_point_pdf, pdf_distance,
                               power_spectrum, transfer_ratio, wavenumbers)
from cosmoflow.train import MapLoader, TrainConfig, epoch_order, train
from cosmoflow.vae import VAE

NORM = Normalizer(11.0, 0.5, 1e8)


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def close(a, b, atol=2e-3):
    "Equal up to rounding, in log10; the tests' own maps differ by far more."
    torch.testing.assert_close(a.log10(), b.log10(), rtol=0, atol=atol)


@pytest.fixture(scope="module")
def data(): return open_maps("PM", "LH", sims=slice(0, 10), pixels=16)


@pytest.fixture(scope="module")
def model(): return randomised()


@pytest.fixture(scope="module")
def maps():
    "Five very unlike maps."
    level = torch.linspace(10.2, 11.8, 5)[:, None, None]
    return 10 ** (level + 0.5 * torch.randn(5, 16, 16, generator=seeded()))


def one_by_one(model, field, samples, steps):
    "States of the flow, in log10, for each sample of each field on its own."
    x0 = torch.randn(len(field) * samples, 1, 16, 16, generator=seeded(3)).split(1)
    paths = []
    for i in range(len(field)):
        for s in range(samples):
            velocity = lambda t, x: model.velocity(x, t[None], field[i:i + 1])
            with torch.no_grad():
                path = integrate(velocity, x0[i * samples + s], steps, trajectory=True)
            paths.append(model.normalizer.inverse(path[:, 0]))
    return torch.stack(paths, 1).unflatten(1, (len(field), samples))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
@pytest.mark.parametrize("samples", [1, 3])
def test_samples_stay_with_their_field(model, samples, batch_size):
    field = 3 * torch.randn(5, 8, 1, 1, generator=seeded())
    alone = one_by_one(model, field, samples, 2)
    assert (alone.log10()[-1].std(0) > 0.05).all()  # fields, not noise alone, matter
    kept = alone if samples > 1 else alone[:, :, 0]
    settings = dict(steps=2, samples=samples, batch_size=batch_size, seed=3)
    close(model.decode(field, trajectory=True, **settings), kept)
    close(model.decode(field, **settings), kept[-1])


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_fields_and_summaries_stay_with_their_maps(model, maps, batch_size):
    alone = torch.cat([model.encode(m[None]) for m in maps])
    assert alone.std(0).min() > 0.01
    together = model.encode(maps, batch_size)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    summaries = model.summarise(maps, batch_size)
    torch.testing.assert_close(summaries, alone.mean((2, 3)), rtol=1e-4, atol=1e-4)
    vae = VAE(NORM, 16, width=8)
    rec = torch.cat([vae.reconstruct(m[None]) for m in maps])
    assert (rec[1:] / rec[:-1] - 1).abs().amax((1, 2)).min() > 1e-3
    close(vae.reconstruct(maps, batch_size), rec, 1e-5)


def test_reconstructions_and_new_maps_stay_with_their_fields(model, maps):
    rec = model.reconstruct(maps, seed=3, steps=2, batch_size=2)
    close(rec, one_by_one(model, model.encode(maps), 1, 2)[-1, :, 0])
    model.fit_prior(maps)
    generator = seeded(5)
    field = draw_fields(model.prior, 5, generator)
    expected = model.decode(field, 2, generator=generator)
    close(model.generate(5, seed=5, steps=2, batch_size=2), expected)


PER_MAP = {
    "power_spectrum": lambda m: power_spectrum(m)[1],
    "cross_correlation": lambda m: cross_correlation(m, m.roll(1, 1)),
    "transfer_ratio": lambda m: transfer_ratio(m, m.square()),
    "one_point_pdf": lambda m: one_point_pdf(m)[1],
    "pdf_distance": lambda m: pdf_distance(m, torch.full_like(m, 1e11)),
    "spectrum_features": spectrum_features,
    "fingerprint": fingerprint,
    "normalizer": NORM,
    "lower_resolution": lambda m: torch.from_numpy(lower_resolution(m, 4)),
    "batches": lambda m: torch.from_numpy(np.concatenate(list(batches(m, 2)))),
}


@pytest.mark.parametrize("name", PER_MAP)
def test_rows_stay_with_their_maps(maps, name):
    "Turning the stack round turns the rows round, and does nothing else."
    there, back = PER_MAP[name](maps), PER_MAP[name](maps.flip(0)).flip(0)
    assert len(there) == 5 and not torch.allclose(there[0], there[-1])
    torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-5)


def test_pieces_of_several_stacks_belong_together():
    "Two full pieces of 1,024 maps of this size, and one map more."
    number = np.arange(2049, dtype=np.float32)[:, None, None]
    a = number * np.ones((1, 16, 16), np.float32)
    b = torch.from_numpy(10 * a)
    means = lambda a, b: torch.stack([a.mean((1, 2)), b.mean((1, 2))], 1)
    rows = in_pieces(means, a, b)
    expected = torch.arange(2049.0)
    torch.testing.assert_close(rows, torch.stack([expected, 10 * expected], 1))


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_estimates_stay_with_their_rows(batch_size):
    torch.manual_seed(0)
    net, x = torch.nn.Linear(3, 2), torch.randn(10, 3)
    y = torch.randn(10, 2) + 7
    regressor = Regressor(net, Scaler.fit(x), Scaler.fit(y))
    with torch.no_grad():
        alone = [net((row - x.mean(0)) / x.std(0)) * y.std(0) + y.mean(0) for row in x]
    torch.testing.assert_close(regressor.predict(x, batch_size), torch.stack(alone))


@pytest.mark.parametrize("symmetries", [False, True])
def test_a_regressor_learns_rows_that_belong_together(symmetries):
    """A network that is right from the start stays so.

    If it met the target of another row, its factor would shrink towards the mean.
    """
    x = torch.randn(40, 1, 8, 8, generator=seeded())
    y = x.amax((1, 2, 3))[:, None]

    class Right(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.factor * Scaler.fit(y)(x.amax((1, 2, 3))[:, None])

    net = Right()
    fit_regressor(net, x, y, x[:8], y[:8], Scaler.none(x), 3, 0.1, 0.0, batch_size=7,
                  symmetries=symmetries)
    assert net.factor.item() == pytest.approx(1, abs=1e-5)


def test_a_symmetry_keeps_every_map_in_its_row(maps):
    turned = augment(maps[:, None], seeded())
    assert not torch.equal(turned[:, 0], maps)
    assert torch.equal(turned.flatten(1).sort().values, maps.flatten(1).sort().values)


def test_a_range_of_simulations_keeps_their_parameters():
    whole = open_maps("PM", "LH")
    some = open_maps("PM", "LH", sims=slice(20, 23), pixels=16)
    np.testing.assert_array_equal(some.params, whole.params[20:23])
    np.testing.assert_array_equal(some.targets, whole.targets[300:345])
    np.testing.assert_array_equal(some.maps, lower_resolution(whole.maps[300:345], 16))
    # A simulation's mean surface density tells its Omega_m.
    level = some.maps.reshape(3, -1).mean(1)
    assert np.corrcoef(level, some.params[:, 0])[0, 1] > 0.99999


def number(data, x):
    "Which map of the data each is a symmetry of: its pixels in order tell."
    known = NORM(data.maps).flatten(1).sort().values
    found = x.flatten(1).sort().values
    distance = torch.cdist(found.double(), known.double())
    assert distance.min(1).values.max() < 1e-3
    return distance.argmin(1)


def test_a_loader_gives_what_is_asked_for(data):
    loader = MapLoader(data, NORM, torch.device("cpu"))
    which = torch.tensor([149, 3, 77, 3])
    assert torch.equal(loader(which), NORM(data.maps[which.numpy()]))


@pytest.mark.parametrize("siblings", [0.0, 0.5])
def test_an_epoch_meets_maps_once_and_siblings_in_pairs(data, tmp_path, siblings):
    model, seen = randomised(), []
    model.normalizer = NORM
    hook = lambda _, inputs: seen.append(inputs[0]) if torch.is_grad_enabled() else None
    model.encoder.register_forward_pre_hook(hook)
    config = TrainConfig(epochs=1, batch_size=20, siblings=siblings)
    train(model, data, tmp_path, config)
    training = data.split()[0]
    drawn = torch.cat([number(training, x) for x in seen])
    assert len(drawn) == len(drawn.unique()) == (100 if siblings else 120)
    if siblings:
        simulation = drawn.view(-1, 2) // 15
        assert (simulation[:, 0] == simulation[:, 1]).all()
        assert len(simulation[:10].unique()) > 3  # and not one simulation after another
    still = NORM(training.maps[drawn.numpy()])
    moved = (torch.cat(seen) != still).flatten(1).any(1)
    assert moved.float().mean() > 0.9


def test_pairs_are_new_in_each_epoch_and_use_all_maps():
    orders = [epoch_order(60, True, seeded(i)).view(-1, 2) for i in range(30)]
    assert len(torch.cat(orders).unique()) == 60
    pairs = {tuple(sorted(pair)) for order in orders for pair in order.tolist()}
    assert len(pairs) > 4 * 15 * 14 / 2 * 0.7  # of 105 in each of four simulations
    first = torch.cat([order[:, 0] % 15 for order in orders]).bincount(minlength=15)
    assert first.min() > 0.5 * first.float().mean()


def test_a_student_meets_one_map_of_each_simulation(data, tmp_path, monkeypatch):
    asked, load = [], MapLoader.__call__

    def watched(self, which):
        asked.append((self.maps.indices[which], which))
        return load(self, which)

    monkeypatch.setattr(MapLoader, "__call__", watched)
    teacher = untrained("tiny", torch.device("cpu"))
    distill(teacher, data, tmp_path, epochs=3, fine=1, batch_size=4)
    training, validation, _ = data.split()
    (held_out, _), *drawn = asked
    assert (held_out == validation.maps.indices[::15]).all()
    chosen = np.concatenate([maps for maps, _ in drawn]).reshape(3, 8)
    simulations = np.unique(training.maps.indices // 15)
    assert all((np.sort(epoch // 15) == simulations).all() for epoch in chosen)
    assert len(np.unique(chosen % 15)) > 5 and len(np.unique(chosen)) > 8


def test_inference_learns_from_one_part_and_is_judged_on_another(data, monkeypatch):
    "Both parameters in their order; the validation part decides, the test part judges."
    fitted, fit = [], inference.fit_mlp

    def watched(*args, **kwargs):
        assert kwargs == {"seed": 4}
        fitted.append((args, fit(*args, **kwargs, epochs=2, hidden=16)))
        return fitted[-1][1]

    monkeypatch.setattr(evaluation, "fit_mlp", watched)
    data = replace(data, box=50.0)
    model, parts = randomised(), data.split()
    found = infer_parameters(model, *parts, methods=("summaries", "spectrum"), seed=4)
    for name, ((x, y, x_val, y_val), regressor) in zip(found, fitted, strict=True):
        features = partial(spectrum_features, box=50.0)
        if name == "summaries": features = model.summarise
        rows = [(x, y), (x_val, y_val)]
        for (inputs, targets), part in zip(rows, parts):
            torch.testing.assert_close(inputs, features(part.maps))
            true = part.params.repeat(15, 0)
            np.testing.assert_allclose(targets, true, rtol=1e-6)
        true = torch.from_numpy(parts[2].params.repeat(15, 0))
        guess = regressor.predict(features(parts[2].maps))
        error = ((guess - true).abs() / true).numpy()
        np.testing.assert_allclose(found[name]["mean"], error.mean(0), rtol=1e-5)
        by_sim = relative_error(guess, true).standard_error
        np.testing.assert_array_equal(by_sim, standard_error(error))
        np.testing.assert_allclose(found[name]["standard_error"], by_sim)


def test_test_maps_are_compared_with_their_own_reconstructions(data, monkeypatch):
    given = lambda *args: {"parts": args[1:4], "seed": args[5]}
    monkeypatch.setattr(evaluation, "infer_parameters", given)
    model = randomised()
    found = evaluate(model, data, seed=3, raw_maps=False, steps=2)
    training, validation, test = data.split()
    parts = found.metrics["inference"]["parts"]
    assert found.metrics["inference"]["seed"] == 3
    for part, same in zip((training, validation, test), parts, strict=True):
        np.testing.assert_array_equal(part.maps, same.maps)
    np.testing.assert_array_equal(found.true, test.maps)
    close(found.rec, one_by_one(model, model.encode(test.maps), 1, 2)[-1, :, 0])
    expected = vars(compare(found.true, found.rec))
    for name, value in found.metrics["reconstruction"].items():
        np.testing.assert_allclose(value, expected[name])
    assert found.metrics["simulations"] == {"training": 8, "validation": 1, "test": 1}


def test_an_evaluation_takes_the_box_of_the_maps(data, monkeypatch, tmp_path, capsys):
    "Twice the side: half the k, four times the power, and the same ratios and r(k)."
    monkeypatch.setattr(evaluation, "infer_parameters", lambda *args: {})
    model, sizes = randomised(), (25.0, 50.0)
    found = [evaluate(model, replace(data, box=box), raw_maps=False, steps=1)
             for box in sizes]
    found = [evaluated.metrics["reconstruction"] for evaluated in found]
    np.testing.assert_allclose(2 * np.array(found[1].pop("k")), found[0].pop("k"))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5)
    test = data.split()[2].maps
    once = model.sampling(1)
    rows = [evaluation._reconstruct(model, test, seeded(), once, 15, box)[0]
            for box in sizes]
    torch.testing.assert_close(rows[1][:, :16], 4 * rows[0][:, :16])  # two spectra

    drawn, draw = [], plot.figure

    def noted(*args, **kwargs):
        drawn.append(kwargs)
        return draw(*args, **kwargs)

    monkeypatch.setattr(plot, "figure", noted)
    monkeypatch.setattr(cli, "_load_model", lambda name: model)
    cli.main(["evaluate", "--sims", ":10", "--pixels", "16", "--steps", "1",
              "--no-raw-maps", "--box", "50", "--out", str(tmp_path)])
    assert drawn == [{"box": 50.0, "each": 15}]
    kept = read_json(tmp_path / "metrics.json")["reconstruction"]
    np.testing.assert_allclose(kept["k"], wavenumbers(16, 50.0))
    worst = Reconstruction.from_metrics({"reconstruction": kept}).worst_bin()
    assert f"at k = {kept['k'][worst]:.2f} h/Mpc" in capsys.readouterr().out


def test_a_report_has_the_names_of_the_parameters(own, monkeypatch):
    error = {"summaries": {"mean": [0.1, 0.2], "standard_error": [0.01, 0.02]}}
    monkeypatch.setattr(evaluation, "infer_parameters", lambda *args: error)
    found = evaluate(randomised(), own, raw_maps=False, steps=1).metrics
    assert found["parameters"] == ["a", "b"]
    heads = report(found).splitlines()[-2].split()
    assert heads == ["relative", "error,", "%", "a", "b"]
    del found["parameters"]  # as older versions wrote them
    heads = report(found).splitlines()[-2].split()
    assert heads[-2:] == ["Omega_m", "sigma_8"]


@pytest.fixture(scope="module")
def own(data):
    "Maps of somebody else: four of each simulation, and a number in place of a name."
    some = np.arange(len(data)).reshape(-1, 15)[:, :4].ravel()
    return MapData(data.maps[some], data.params, ("a", "b"), "own", "LH", "Mcdm")


def test_another_number_of_maps_a_simulation_pairs_siblings(own, tmp_path):
    model, seen = randomised(), []
    model.normalizer = NORM
    hook = lambda _, inputs: seen.append(inputs[0]) if torch.is_grad_enabled() else None
    model.encoder.register_forward_pre_hook(hook)
    train(model, own, tmp_path, TrainConfig(epochs=1, batch_size=8, siblings=0.5))
    pairs = torch.cat([number(own.split()[0], x) for x in seen]).view(-1, 2)
    assert len(pairs) == len(pairs.unique()) / 2 == 16
    assert (pairs[:, 0] // 4 == pairs[:, 1] // 4).all()
    assert len(epoch_order(12, True, seeded(), each=3)) == 8  # of three one sits out
    with pytest.raises(ValueError, match="siblings: expected two maps a simulation"):
        epoch_order(12, True, seeded(), each=1)


def test_another_number_of_maps_a_simulation_teaches_a_student(
        own, tmp_path, monkeypatch):
    asked, load = [], MapLoader.__call__
    watched = lambda self, which: (asked.append(which), load(self, which))[1]
    monkeypatch.setattr(MapLoader, "__call__", watched)
    teacher = untrained("tiny", torch.device("cpu"))
    distill(teacher, own, tmp_path, epochs=6, fine=1, batch_size=8)
    exam, *epochs = (which.numpy() for which in asked)
    assert exam.tolist() == [0]  # the first map of the one simulation of validation
    assert all(sorted(epoch // 4) == list(range(8)) for epoch in epochs)
    assert set(np.concatenate(epochs) % 4) == {0, 1, 2, 3}


def test_another_number_of_maps_a_simulation_gives_error_bars(own, monkeypatch):
    "Two simulations are held out, with four maps of each."
    two = own.split((0.5, 0.3, 0.2))
    monkeypatch.setattr(MapData, "split", lambda self: two)
    short = lambda fit: lambda *args, **kwargs: fit(*args, **kwargs, epochs=2)
    monkeypatch.setattr(evaluation, "fit_mlp", short(inference.fit_mlp))
    guesses, measure = [], relative_error

    def noted(predicted, true, each):
        guesses.append((predicted - true).abs() / true)
        return measure(predicted, true, each)

    monkeypatch.setattr(evaluation, "relative_error", noted)
    found = evaluate(randomised(), own, raw_maps=False, steps=1)
    assert found.metrics["simulations"] == {"training": 5, "validation": 3, "test": 2}
    np.testing.assert_array_equal(found.true, two[2].maps)
    expected = vars(compare(found.true, found.rec, each=4))
    for name, value in found.metrics["reconstruction"].items():
        np.testing.assert_allclose(value, expected[name])
    errors = found.metrics["inference"].values()
    for error, guess in zip(errors, guesses, strict=True):
        by_simulation = guess.view(2, 4, 2).mean(1)
        np.testing.assert_allclose(
            error["standard_error"], by_simulation.std(0) / 2**0.5, rtol=1e-5)


def test_an_evaluation_keeps_whole_simulations(monkeypatch):
    "Here the first of two, though a batch holds both and there is room for a half."
    monkeypatch.setattr(evaluation, "infer_parameters", lambda *args: {})
    data = open_maps("PM", "LH", sims=slice(0, 20), pixels=16)
    whole = evaluate(randomised(), data, raw_maps=False, steps=1)
    monkeypatch.setattr(evaluation, "KEPT_PIXELS", 22 * 16**2)
    part = evaluate(randomised(), data, raw_maps=False, steps=1)
    assert len(whole.true) == 30 and whole.metrics == part.metrics
    assert torch.equal(part.true, whole.true[:15])
    assert torch.equal(part.rec, whole.rec[:15])
    by_ten = partial(batches, size=10)
    monkeypatch.setattr(evaluation, "batches", by_ten)  # they end in the second batch
    again = evaluate(randomised(), data, raw_maps=False, steps=1)
    assert torch.equal(again.true, part.true)


def test_files_keep_the_order_of_their_maps(tmp_path, monkeypatch):
    "More maps than a batch; the seed and the steps that were asked for."
    monkeypatch.chdir(tmp_path)
    model = randomised()
    model.save_pretrained("own")
    maps = 10 ** (11 + 0.5 * torch.randn(70, 16, 16, generator=seeded()))
    np.save("maps.npy", maps)
    cli.main("encode maps.npy field.npy --model own".split())
    field = torch.from_numpy(np.load("field.npy"))
    alone = torch.cat([model.encode(m[None]) for m in maps])
    torch.testing.assert_close(field, alone, rtol=1e-3, atol=1e-3)
    cli.main("decode field.npy again.npy --model own --seed 3 --steps 2".split())
    again = torch.from_numpy(np.load("again.npy"))
    close(again, one_by_one(model, field, 1, 2)[-1, :, 0])

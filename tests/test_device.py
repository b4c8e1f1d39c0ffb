"""Models on another device than the maps; the device is emulated."""
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import NOTEBOOKS, ROOT, cell_sources, randomised
from far import FAR, far_device

from cosmoflow import CosmoFlow
from cosmoflow.core import best_device
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.evaluate import infer_parameters
from cosmoflow.flow import flow_matching_loss
from cosmoflow.model import field_prior
from cosmoflow.plot import figure, plot_spectra, show_maps
from cosmoflow.vae import VAE

MAPS = np.array(open_maps("PM", "CV").maps[:15, :32, :32])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Saved models of two kinds."
    out = tmp_path_factory.mktemp("models")
    randomised().fit_prior(MAPS).save_pretrained(out / "flow")
    VAE(Normalizer(11.0, 0.5, 1e8), 32, width=8).save_pretrained(out / "vae")
    return out


KINDS = {"flow": CosmoFlow, "vae": VAE}
FLOW = {
    "encode": lambda model, maps, field: model.encode(maps),
    "summarise": lambda model, maps, field: model.summarise(maps),
    "decode": lambda model, maps, field: model.decode(field, 1, seed=1),
    "many": lambda model, maps, field: model.decode(
        field, 1, samples=2, trajectory=True, batch_size=2, seed=1),
    "generator": lambda model, maps, field: model.decode(
        field, 1, generator=torch.Generator().manual_seed(1)),
    "reconstruct": lambda model, maps, field: model.reconstruct(maps, steps=1, seed=1),
    "generate": lambda model, maps, field: model.generate(2, steps=1, seed=1),
}
ASKS = {name: ("flow", ask) for name, ask in FLOW.items()} | {
    "VAE.reconstruct": ("vae", lambda model, maps, field: model.reconstruct(maps)),
}


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize(("model_at", "maps_are"), [
    ("there", "an array"),
    ("there", "here"),
    ("there", "there"),
    ("here", "there"),
])
def test_results_lie_where_the_maps_lay_and_do_not_depend_on_the_device(
        name, model_at, maps_are, folders):
    kind, ask = ASKS[name]
    where = {"here": "cpu", "there": FAR}
    maps = MAPS[:2]
    field = np.random.default_rng(0).standard_normal((2, 8, 2, 2), np.float32)
    expected = ask(KINDS[kind].from_pretrained(folders / kind, "cpu"), maps, field)
    with far_device():
        model = KINDS[kind].from_pretrained(folders / kind, where[model_at])
        assert (model.device == FAR) == (model_at == "there")
        if maps_are != "an array":
            maps, field = (torch.from_numpy(a).to(where[maps_are])
                           for a in (maps, field))
        found = ask(model, maps, field)
        assert (found.device == FAR) == (maps_are == "there" and name != "generate")
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_the_emulated_device_keeps_apart_what_a_gpu_keeps_apart(folders):
    with far_device():
        model = CosmoFlow.from_pretrained(folders / "flow", FAR)
        here, there = (torch.zeros(1, 1, 32, 32, device=at) for at in ("cpu", FAR))
        with pytest.raises(RuntimeError, match="same device"): model.encoder(here)
        with pytest.raises((RuntimeError, TypeError)): model.encoder(there).numpy()


@torch.no_grad()
def test_loss_prior_inference_and_figures_take_tensors_of_another_device(folders):
    here = CosmoFlow.from_pretrained(folders / "flow", "cpu")
    x = here.normalizer(MAPS[:2])
    loss = flow_matching_loss(here, x, torch.Generator().manual_seed(0))
    prior = here.prior
    with far_device():
        model = CosmoFlow.from_pretrained(folders / "flow", FAR)
        there = flow_matching_loss(model, x.to(FAR), torch.Generator().manual_seed(0))
        torch.testing.assert_close(there.cpu(), loss)
        assert model.fit_prior(MAPS).prior.device == FAR
        torch.testing.assert_close(model.prior.cpu(), prior, rtol=1e-3, atol=1e-3)
        assert field_prior(model.encode(torch.from_numpy(MAPS).to(FAR))).device == FAR
        maps = torch.from_numpy(MAPS).to(FAR)
        show_maps(maps[:2])
        plot_spectra({"truth": maps, "again": MAPS})
        figure(maps, {"again": MAPS}, show=2)


def test_inference_goes_where_the_model_is(folders, monkeypatch):
    "The regressors get all they learn from on the model's device."
    seen = []

    class Stub:
        def predict(self, x): return torch.ones(len(x), 2)

    def fit(*tensors, seed):
        seen.extend(tensor.device == FAR for tensor in tensors)
        return Stub()

    monkeypatch.setattr("cosmoflow.evaluate.fit_mlp", fit)
    found = SimpleNamespace(mean=np.ones(2), standard_error=np.ones(2))
    monkeypatch.setattr("cosmoflow.evaluate.relative_error",
                        lambda predicted, true, each: found)
    parts = open_maps("PM", "LH", sims=slice(0, 10)).split()
    with far_device():
        model = CosmoFlow.from_pretrained(folders / "flow", FAR)
        infer_parameters(model, *parts, ("summaries", "spectrum"))
    assert seen == 8 * [True]


@pytest.mark.parametrize(("cuda", "mps", "only_cpu", "best"), [
    (True, True, "", "cuda"),
    (False, True, "", "mps"),
    (False, False, "", "cpu"),
    (True, True, "true", "cpu"),
])
def test_the_best_device_is_taken(cuda, mps, only_cpu, best, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setenv("ACCELERATE_USE_CPU", only_cpu)
    assert best_device() == torch.device(best)
    assert best_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_goes_to_the_best_device(kind, folders, monkeypatch):
    best = lambda device: FAR if device == "auto" else device
    monkeypatch.setattr("cosmoflow.model.best_device", best)
    with far_device():
        assert KINDS[kind].from_pretrained(folders / kind).device == FAR
        here = KINDS[kind].from_pretrained(folders / kind, device="cpu")
        assert here.device == torch.device("cpu")


@pytest.mark.parametrize("wrong", ["gpu", "cuda:99", 3.5])
def test_a_device_that_is_not_here_is_refused(wrong, folders):
    message = (rf"^device={wrong!r}: "
               "expected auto, or a device that is here, such as cpu")
    with pytest.raises(ValueError, match=message):
        CosmoFlow.from_pretrained(folders / "flow", device=wrong)


WEIGHTS = ROOT / "cosmoflow" / "weights"
PAGES = [*NOTEBOOKS, ROOT / "README.md", ROOT / "CONTRIBUTING.md",
         *WEIGHTS.glob("*/README.md")]
PROMISE = (
    r"[^.\n]*(?:second|minute|hour|times|\bone\b|half)"
    r"[^.\n]*(?:\bT4\b|\bon Colab\b|\bA100\b|\bV100\b|\bL4\b)[^.\n]*")


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_no_time_is_promised_for_a_card_that_was_not_measured(page):
    text = ("\n".join(cell_sources(page, "markdown")) if page.suffix == ".ipynb"
            else page.read_text(encoding="utf-8"))
    assert not re.findall(PROMISE, text)

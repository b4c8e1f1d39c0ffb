"""Models on another device than the maps: where results lie, and that a seed means the same noise everywhere. The device is emulated."""
import json
import re

import numpy as np
import pytest
import torch
from conftest import NOTEBOOKS, ROOT, randomised
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
ASKS = {"encode": ("flow", lambda model, maps, field: model.encode(maps)), "summarise": ("flow", lambda model, maps, field: model.summarise(maps)),
        "decode": ("flow", lambda model, maps, field: model.decode(field, 1, seed=1)),
        "many": ("flow", lambda model, maps, field: model.decode(field, 1, samples=2, trajectory=True, batch_size=2, seed=1)),
        "generator": ("flow", lambda model, maps, field: model.decode(field, 1, generator=torch.Generator().manual_seed(1))),
        "reconstruct": ("flow", lambda model, maps, field: model.reconstruct(maps, steps=1, seed=1)),
        "generate": ("flow", lambda model, maps, field: model.generate(2, steps=1, seed=1)),
        "VAE.reconstruct": ("vae", lambda model, maps, field: model.reconstruct(maps))}


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize(("model_at", "maps_are"), [("there", "an array"), ("there", "here"), ("there", "there"), ("here", "there")])
def test_results_lie_where_the_maps_lay_and_do_not_depend_on_the_device(name, model_at, maps_are, folders):
    kind, ask = ASKS[name]
    maps, field = MAPS[:2], np.random.default_rng(0).standard_normal((2, 8, 2, 2), np.float32)
    expected = ask(KINDS[kind].from_pretrained(folders / kind, "cpu"), maps, field)
    with far_device():
        model = KINDS[kind].from_pretrained(folders / kind, FAR if model_at == "there" else "cpu")
        assert (model.device == FAR) == (model_at == "there")
        if maps_are != "an array": maps, field = (torch.from_numpy(a).to(FAR if maps_are == "there" else "cpu") for a in (maps, field))
        found = ask(model, maps, field)
        assert (found.device == FAR) == (maps_are == "there" and name != "generate")
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_the_emulated_device_keeps_apart_what_a_gpu_keeps_apart(folders):
    with far_device():
        model = CosmoFlow.from_pretrained(folders / "flow", FAR)
        with pytest.raises(RuntimeError, match="same device"): model.encoder(torch.zeros(1, 1, 32, 32))
        with pytest.raises((RuntimeError, TypeError)): model.encoder(torch.zeros(1, 1, 32, 32, device=FAR)).numpy()


@torch.no_grad()
def test_loss_prior_inference_and_figures_take_tensors_of_another_device(folders):
    here = CosmoFlow.from_pretrained(folders / "flow", "cpu")
    x = here.normalizer(MAPS[:2])
    loss = flow_matching_loss(here, x, torch.Generator().manual_seed(0))
    prior = here.prior
    with far_device():
        model = CosmoFlow.from_pretrained(folders / "flow", FAR)
        torch.testing.assert_close(flow_matching_loss(model, x.to(FAR), torch.Generator().manual_seed(0)).cpu(), loss)
        assert model.fit_prior(MAPS).prior.device == FAR
        torch.testing.assert_close(model.prior.cpu(), prior, rtol=1e-3, atol=1e-3)
        assert field_prior(model.encode(torch.from_numpy(MAPS).to(FAR))).device == FAR
        maps = torch.from_numpy(MAPS).to(FAR)
        show_maps(maps[:2]), plot_spectra({"truth": maps, "again": MAPS}), figure(maps, {"again": MAPS}, show=2)


def test_inference_goes_where_the_model_is(folders, monkeypatch):
    "The regressors get all they learn from on the model's device."
    seen = []

    class Stub:
        def predict(self, x): return torch.ones(len(x), 2)

    def fit(*tensors, seed):
        seen.extend(tensor.device == FAR for tensor in tensors)
        return Stub()

    monkeypatch.setattr("cosmoflow.evaluate.fit_mlp", fit)
    monkeypatch.setattr("cosmoflow.evaluate.relative_error", lambda predicted, true, each: type("Error", (), {"mean": np.ones(2), "standard_error": np.ones(2)}))
    parts = open_maps("PM", "LH", sims=slice(0, 10)).split()
    with far_device(): infer_parameters(CosmoFlow.from_pretrained(folders / "flow", FAR), *parts, ("summaries", "spectrum"))
    assert seen == 8 * [True]


@pytest.mark.parametrize(("cuda", "mps", "only_cpu", "best"), [(True, True, "", "cuda"), (False, True, "", "mps"), (False, False, "", "cpu"), (True, True, "true", "cpu")])
def test_the_best_device_is_taken(cuda, mps, only_cpu, best, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.setenv("ACCELERATE_USE_CPU", only_cpu)
    assert best_device() == torch.device(best) and best_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_goes_to_the_best_device(kind, folders, monkeypatch):
    monkeypatch.setattr("cosmoflow.model.best_device", lambda device: FAR if device == "auto" else device)
    with far_device():
        assert KINDS[kind].from_pretrained(folders / kind).device == FAR
        assert KINDS[kind].from_pretrained(folders / kind, device="cpu").device == torch.device("cpu")


@pytest.mark.parametrize("wrong", ["gpu", "cuda:99", 3.5])
def test_a_device_that_is_not_here_is_refused(wrong, folders):
    with pytest.raises(ValueError, match=rf"^device={wrong!r}: expected auto, or a device that is here, such as cpu"): CosmoFlow.from_pretrained(folders / "flow", device=wrong)


PAGES = [*NOTEBOOKS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "cosmoflow" / "weights").glob("*/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_no_time_is_promised_for_a_card_that_was_not_measured(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb": text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    promises = re.findall(r"[^.\n]*(?:second|minute|hour|times|\bone\b|half)[^.\n]*(?:\bT4\b|\bon Colab\b|\bA100\b|\bV100\b|\bL4\b)[^.\n]*", text)
    assert not promises

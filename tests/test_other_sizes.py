"""A model knows pixels of one size, and a prior of maps of one size."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import randomised

from cosmoflow import CosmoFlow
from cosmoflow.anomaly import Detector
from cosmoflow.data import open_maps
from cosmoflow.distill import distill
from cosmoflow.evaluate import evaluate, infer_parameters
from cosmoflow.model import field_prior
from cosmoflow.train import TrainConfig, read_checkpoint, train

pytest.importorskip("anywidget")
pytest.importorskip("onnxruntime")
from cosmoflow.export import _about, export
from cosmoflow.live import about, about_sorted


@pytest.fixture(scope="module")
def small():
    "A model with a prior of fields of 2 x 2 cells."
    model = CosmoFlow.from_pretrained("mini-scales", device="cpu")
    return model.fit_prior(open_maps("PM", "CV", pixels=32).maps)


def test_a_live_figure_draws_from_a_prior_of_its_own_size(small):
    told = about(small)
    sides = told["field"]
    assert sides == [8, 4, 4] and len(told["prior"]) == 4 * 4 * 9 * 8 * 2
    some = open_maps("PM", "LH").simulations(maps=slice(None, None, 5))
    own = field_prior(small.encode(some.split()[0].maps))
    np.testing.assert_allclose(told["prior"], own.flatten(), atol=1e-5)
    shipped = CosmoFlow.from_pretrained("mini-scales", device="cpu")
    np.testing.assert_array_equal(about(shipped)["prior"], shipped.prior.flatten())


def test_a_second_model_without_such_a_prior_is_refused(small):
    with pytest.raises(ValueError, match="^model: expected one with a prior for maps"):
        about_sorted(small)


def test_an_export_has_a_prior_of_its_maps_or_none(small):
    for pixels, shape in ((32, [2, 2, 9, 8, 2]), (64, None)):
        told = _about(small, open_maps("PM", "CV", pixels=pixels), "own")
        assert told.get("prior", {}).get("shape") == shape


@pytest.mark.parametrize("sets, message", [
    (["LH"], "^sets: expected a MapData, found str"),
    ([open_maps("PM", "CV", pixels=32)],
     r"^sets, CV: expected shape \(n, 64, 64\), found \(150, 32, 32\)")])
def test_maps_of_other_sets_are_checked_before_anything_is_made(
        small, tmp_path, monkeypatch, sets, message):
    def made(*_): raise AssertionError("a graph was made")
    monkeypatch.setattr("cosmoflow.export.graphs", made)
    data = open_maps("PM", "LH", sims=slice(0, 10))
    with pytest.raises(ValueError, match=message):
        export(small, data, tmp_path / "out", sets=sets, maps=2)
    assert not list(tmp_path.iterdir())


SMALL = open_maps("PM", "LH", sims=slice(0, 100), pixels=16)
PART = replace(SMALL, box=SMALL.box * 16 / 64)  # pixels as large as those of 64 x 64


@pytest.mark.parametrize("use", [
    lambda model, data, out: evaluate(model, data),
    lambda model, data, out: infer_parameters(model, *data.split()),
    lambda model, data, out: Detector.fit(model, data),
    lambda model, data, out: distill(model, data, out),
    lambda model, data, out: export(model, data, out, sets=(), maps=0)])
def test_pixels_of_another_size_are_noted(use, tmp_path):
    model = randomised(pixel=25 / 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="1.56 Mpc/h wide, but the model learned "
                           "from 0.391 Mpc/h and knows no others: train a model"):
            use(model, SMALL, tmp_path / "out")


def test_pixels_are_compared_in_mpc():
    fine = replace(PART, box=PART.box / 2)  # of 0.195 Mpc/h
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        randomised(pixel=25 / 64).note_pixel(PART)
        randomised(pixel=None).note_pixel(SMALL)  # trained by an older version
        with pytest.raises(UserWarning, match=r"pixels=8\), or --pixels 8, averages"):
            randomised(pixel=25 / 64).note_pixel(fine)
        with pytest.raises(UserWarning, match="train a model on such maps"):
            randomised(pixel=100.0).note_pixel(fine)  # larger than the whole map


def test_a_training_notes_its_pixels_and_goes_on_with_them(tmp_path):
    few = SMALL.simulations(slice(0, 10))
    config = TrainConfig(epochs=1, lr=1e-3, batch_size=16)
    model = randomised()
    train(model, few, tmp_path, config)
    for one in (model, CosmoFlow.from_pretrained(tmp_path)):
        assert one.config["pixel"] == 25 / 16
    state = read_checkpoint(tmp_path / "checkpoint.safetensors")[0]
    assert "pixel" not in state["run"]["model"]  # the same run, whatever was noted
    train(model, few, tmp_path, config, resume=True)
    other = tmp_path / "finer"
    train(model, replace(few, box=5.0), other, config, pretrained=True)
    assert CosmoFlow.from_pretrained(other).config["pixel"] == 5 / 16
    assert CosmoFlow.from_pretrained(tmp_path).config["pixel"] == 25 / 16


def test_a_student_has_the_pixels_of_its_maps(tmp_path):
    teacher = randomised(pixel=25 / 16)
    few = SMALL.simulations(slice(0, 10))
    distill(teacher, few, tmp_path, epochs=1, fine=1)
    assert CosmoFlow.from_pretrained(tmp_path).config["pixel"] == 25 / 16


@pytest.mark.parametrize("pixel", [0, -1.0, float("nan"), "0.4", torch.inf])
def test_a_size_that_no_pixel_has_is_refused(pixel):
    with pytest.raises(ValueError, match="^pixel=.*: expected a finite number above 0"):
        randomised(pixel=pixel)

"""A model's prior is that of maps of one size: for others it would draw nonsense."""

import numpy as np
import pytest

from cosmoflow import CosmoFlow
from cosmoflow.data import open_maps
from cosmoflow.model import field_prior

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

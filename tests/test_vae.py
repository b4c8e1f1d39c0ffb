"""The VAE: it learns, goes on where it stopped, and comes back from disk whole."""
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cosmoflow import CosmoFlow
from cosmoflow.data import MapData, Normalizer, lower_resolution
from cosmoflow.train import MapLoader
from cosmoflow.vae import GDN, VAE, train_vae, vae_loss, validation_loss


@pytest.fixture(scope="module")
def normalizer(data): return Normalizer.fit(data.maps)


def small(normalizer, seed=0):
    torch.manual_seed(seed)
    return VAE(normalizer, width=16)


def test_inverse_gdn_multiplies_by_what_gdn_divides_by():
    x = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    forward, inverse = GDN(5), GDN(5, inverse=True)  # with the same beta and gamma
    assert torch.allclose(forward(x) * inverse(x), x * x, atol=1e-5)


def test_overfits_four_maps(data, normalizer):
    model, x = small(normalizer), normalizer(data.maps[:40:10])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    noise = torch.zeros(len(x), 128)
    for _ in range(300):
        loss, mse, _ = vae_loss(x, *model(x, noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert mse < 0.05 * x.var()


def test_resumed_run_is_the_uninterrupted_one(data, normalizer, tmp_path):
    settings = dict(batch_size=32, patience=0)
    train_vae(small(normalizer), data, tmp_path / "whole", epochs=3, **settings)
    train_vae(small(normalizer), data, tmp_path / "parts", epochs=1, **settings)
    other = small(normalizer, seed=9)  # the checkpoint's weights count, not these
    train_vae(other, data, tmp_path / "parts", epochs=3, **settings)
    whole, parts = (load_file(tmp_path / name / "model.safetensors")
                    for name in ("whole", "parts"))
    for name, value in whole.items(): assert torch.equal(value, parts[name]), name


def test_maps_of_another_size_are_refused(data, normalizer, tmp_path):
    smaller = MapData(lower_resolution(data.maps, 32), data.params)
    message = "^data: expected maps of 64 x 64 pixels, .* found shape .150, 32, 32.$"
    with pytest.raises(ValueError, match=message):
        train_vae(small(normalizer), smaller, tmp_path / "run", epochs=1)
    assert not list(tmp_path.iterdir())


def test_comes_back_from_disk(data, normalizer, tmp_path):
    model = small(normalizer).eval()
    model.save_pretrained(tmp_path)
    again = VAE.from_pretrained(tmp_path)
    maps = data.maps[:3]
    assert torch.equal(model.reconstruct(maps), again.reconstruct(maps))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["model"] == {"pixels": 64, "channels": 8, "width": 16}


def test_a_reconstruction_is_decoded_from_the_means_of_the_latents(data, normalizer):
    model, maps = small(normalizer).eval(), data.maps[:3]
    with torch.no_grad(): rec, *_ = model(normalizer(maps), torch.zeros(3, 128))
    torch.testing.assert_close(model.reconstruct(maps), normalizer.inverse(rec))


def test_another_kind_of_model_is_refused(normalizer, tmp_path):
    small(normalizer).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do not make a CosmoFlow model"):
        CosmoFlow.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do not make a VAE model"):
        VAE.from_pretrained("mini")


def test_sizes_may_be_numpy_s(normalizer, tmp_path):
    pixels, channels, width = np.array([32, 4, 8])
    VAE(normalizer, pixels, channels, width).save_pretrained(tmp_path)
    assert VAE.from_pretrained(tmp_path).config == dict(pixels=32, channels=4, width=8)


def test_the_validation_loss_does_not_depend_on_batches(data, normalizer):
    "One best width for all maps, as if they were one batch."
    model = small(normalizer).eval()
    maps = np.array(data.maps[:40:3])
    maps[0] *= 3  # not as well known as the others
    val = MapLoader(MapData(maps, data.params[:1]), normalizer, torch.device("cpu"))
    loss = lambda size: validation_loss(model, val, size,
                                        torch.Generator().manual_seed(0))
    noise = torch.randn(len(maps), 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): whole = vae_loss(val(torch.arange(14)), *model(
        val(torch.arange(14)), noise))[0].item()
    for size in (14, 5, 1): assert loss(size) == pytest.approx(whole, rel=1e-5)

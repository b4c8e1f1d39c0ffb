"""The model: periodicity, mask, gradients, flow, files."""
import json
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.hub_mixin
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import randomised
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import nn
from torch.overrides import TorchFunctionMode

from cosmoflow import CosmoFlow
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.encoder import SCALE, Encoder, fold, unfold, wavelengths
from cosmoflow.flow import Timetable, flow_matching_loss, integrate
from cosmoflow.layers import PeriodicConv, between, periodic_pad
from cosmoflow.model import draw_fields, field_prior, find_model
from cosmoflow.scales import spearman
from cosmoflow.spectra import cross_correlation
from cosmoflow.unet import SelfAttention, UNetBlock, time_embedding
from cosmoflow.vae import VAE

NORM = Normalizer(11.0, 0.5, 1e8)


def test_paper_architecture():
    model = CosmoFlow.from_preset("paper", NORM)
    three = lambda part: [m for m in part.modules() if isinstance(m, nn.Conv2d)
                          and m.kernel_size == (3, 3)]
    convs = three(model.encoder)
    widths = [64] + [64] * 4 + [128] * 4 + [256] * 4 + [8]
    assert [c.out_channels for c in convs] == widths
    assert [c.stride[0] for c in convs] == [1, 1, 1, 1, 1, 2, 1, 2, 1, 1, 1, 2, 1, 1]
    assert all(isinstance(m, PeriodicConv) for m in three(model))
    parameters = sum(p.numel() for p in model.encoder.parameters())
    assert parameters == pytest.approx(2.88e6, rel=0.01)
    stages = [[m.out_channels for m in three(stage)]
              for stage in (*model.unet.down, *model.unet.up)]
    assert stages == [[c] * 4 for c in (128, 256, 512, 512, 256, 256, 128, 64)]
    with torch.no_grad(): field = model.eval().encoder(torch.zeros(1, 1, 256, 256))
    assert field.shape == (1, 8, 16, 16)


def test_every_convolution_finds_channels_last():
    "Each convolution after an operation that forgets the layout turns its image round."
    model, seen = randomised(), []
    last = lambda h: h.is_contiguous(memory_format=torch.channels_last)

    def after(conv, _, out):
        seen.append(last(conv.weight) and last(out))
        out.register_hook(lambda grad: seen.append(last(grad)))

    def before(_, inputs): seen.append(last(periodic_pad(inputs[0], 1)))

    for m in model.modules():
        if isinstance(m, nn.Conv2d): m.register_forward_hook(after)
        if m is model.unet.stem: continue  # it is fed maps: one channel has no layout
        if isinstance(m, PeriodicConv): m.register_forward_pre_hook(before)
    x = torch.randn(2, 1, 64, 64)
    model(x, torch.tensor([0.2, 0.8]), x).square().sum().backward()
    assert len(seen) > 100 and all(seen)


class LikeCUDA(TorchFunctionMode):
    "Under autocast a GPU computes these in float32, and gives float32 back."
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (F.group_norm, F.interpolate):
            return func(args[0].float(), *args[1:], **kwargs)
        return func(*args, **kwargs)


def test_images_keep_half_the_bits_between_layers():
    "Also after a normalisation and an upsampling that return float32."
    model, seen = randomised(), {}
    kinds = nn.Conv2d, UNetBlock, SelfAttention
    for name, m in model.unet.named_modules():
        if isinstance(m, kinds): m.register_forward_hook(
            lambda m, inputs, out, name=name: seen.update({name: (inputs[0], out)}))
    x, t = torch.randn(2, 1, 32, 32), torch.tensor([0.2, 0.8])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), LikeCUDA():
        model(x, t, x)
    stem, _ = seen.pop("stem")
    assert len(seen) > 30 and stem.dtype == torch.float32  # the maps themselves
    assert {h.dtype for images in seen.values() for h in images} == {torch.bfloat16}


def test_half_the_bits_learn_what_float32_learns():
    """A few steps, with what a GPU's autocast keeps in float32.

    As far as one rounding of bfloat16, 1/256. Longer steps would let it grow."""
    x = open_maps("PM", "LH").maps[:4, ::2, ::2]
    losses, moved = [], []
    for half in (False, True):
        model, curve = randomised(), []
        weights = list(model.encoder.parameters())
        before = [w.detach().clone() for w in weights]
        adam = torch.optim.Adam(model.parameters(), 3e-4)
        x1 = NORM(torch.tensor(x))
        for _ in range(5):
            g = torch.Generator().manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16, enabled=half), LikeCUDA():
                loss = flow_matching_loss(model, x1, g)
            loss.backward()
            adam.step()
            adam.zero_grad()
            curve.append(loss.item())
        losses.append(curve)
        ways = [(w.detach() - b).flatten() for w, b in zip(weights, before)]
        moved.append(torch.cat(ways))
    assert losses[0][-1] < 0.95 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1 / 256)
    assert F.cosine_similarity(*moved, dim=0) > 0.9  # the encoder learns it, too


NARROW = """
from copy import deepcopy
import torch
from cosmoflow import CosmoFlow
from cosmoflow.data import Normalizer
from cosmoflow.flow import flow_matching_loss
from cosmoflow.layers import PeriodicConv

def gradients(net, loss):
    loss(net).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])

def both_layouts(net, loss):
    one, other = (deepcopy(net).to(memory_format=layout)
                  for layout in (torch.channels_last, torch.contiguous_format))
    one, other = gradients(one, loss), gradients(other, loss)
    assert one.isfinite().all() and (one - other).norm() < 1e-3 * other.norm()

torch.manual_seed(0)
x = torch.randn(2, 1, 128, 128)
tiny = CosmoFlow.from_preset("tiny", Normalizer(11.0, 0.5, 1e8))
seeded = lambda: torch.Generator().manual_seed(0)
both_layouts(tiny, lambda net: flow_matching_loss(net, x, seeded()))
for c in (1, 2, 4, 15, 16):
    image = torch.randn(2, c, 32, 32)
    last = image.to(memory_format=torch.channels_last)
    conv = PeriodicConv(c, 8, kernel=1, stride=2)
    plain = torch.nn.functional.conv2d(image, conv.weight, conv.bias, 2)
    torch.testing.assert_close(conv(last), plain)
    both_layouts(conv, lambda net: net(last).square().sum())
"""


def test_a_narrow_encoder_learns_from_large_maps():
    """oneDNN's gradient of a strided 1x1 convolution ends the process, on CPUs with
    AVX-512, if an image of 2 to 15 channels lies channels last."""
    line = [sys.executable, "-c", NARROW]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_layers_refuse_sizes_that_would_change_the_image():
    "An even kernel has no middle, and made 8 x 8 pixels 9 x 9; 5 features became 4."
    for kernel in (2, 4):
        with pytest.raises(ValueError, match=f"kernel={kernel}: expected an odd"):
            PeriodicConv(1, 1, kernel)
    for kernel in (1, 3, 5):
        assert PeriodicConv(1, 1, kernel)(torch.zeros(1, 1, 8, 8)).shape[2:] == (8, 8)
    with pytest.raises(ValueError, match="dim=5: expected an even"):
        time_embedding(torch.rand(3), 5)
    assert time_embedding(torch.rand(3), 6).shape == (3, 6)


def test_equal_values_share_a_rank():
    "They counted as agreement: a channel's number and eight equal centres gave 1."
    assert spearman(torch.arange(5), torch.zeros(5)) is None
    generator = torch.Generator().manual_seed(0)
    for n in (4, 5, 8):
        a = torch.arange(n)
        for b in torch.randint(3, (20, n), generator=generator):
            if len(b.unique()) == 1: continue
            for pair in ((a, b), (b, a)):
                expected = spearmanr(*pair).statistic
                assert spearman(*pair) == pytest.approx(expected, abs=1e-12)
        for _ in range(20):  # without ties: the formula, to the last bit
            b = torch.randperm(n, generator=generator)
            distance = (a - b).square().sum().item()
            assert spearman(a, b.double().exp()) == 1 - 6 * distance / (n * (n**2 - 1))


@pytest.mark.parametrize("samples", (1, 3))
def test_noise_in_batches_is_noise_drawn_at_once(samples):
    "To the last bit, for batches of any size; and as many numbers are drawn."
    model = randomised(steps=1, solver="euler")
    model.unet.forward = lambda x, t, field: torch.zeros_like(x)  # noise is the map
    field, n = torch.zeros(5, 8, 1, 3), 5 * samples
    ours = torch.Generator().manual_seed(3)
    at_once = NORM.inverse(torch.randn(n, 1, 16, 48, generator=ours))
    for size in (1, 2, 4, n, 64):
        g = torch.Generator().manual_seed(3)
        found = model.decode(field, generator=g, samples=samples, batch_size=size)
        assert torch.equal(found.view(n, 16, 48), at_once)
        assert torch.equal(g.get_state(), ours.get_state())
        torch.manual_seed(3)  # torch's own
        assert torch.equal(model.decode(field, samples=samples, batch_size=size), found)


def test_a_folder_that_loses_to_a_shipped_model_is_named(tmp_path, monkeypatch):
    "After `train --out mini`, `--model mini` measured the shipped one, without a word."
    shipped = find_model("mini")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()  # it holds no model
    for name in ("mini", "mini-128"): randomised().save_pretrained(name)
    with pytest.warns(UserWarning, match=r"folder mini here .* Give '\./mini'"):
        assert find_model("mini") == shipped
    with pytest.warns(UserWarning, match=r"Give '\./mini-128'"), suppress(OSError):
        find_model("mini-128")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("./mini", Path("mini"), "base", "vae"): assert find_model(name)
        monkeypatch.chdir(shipped.parent)  # here the folder is the shipped one
        assert find_model("mini") == shipped


@pytest.mark.parametrize("make", (randomised, lambda: VAE(NORM, width=8)))
def test_what_could_not_be_read_is_not_written(make, tmp_path):
    "Weights cut to whole numbers, and weights beyond what float16 holds."
    def refused(model, dtype, message):
        with pytest.raises(ValueError, match=message): model.save_pretrained(out, dtype)
        assert not out.exists()

    model, out = make(), tmp_path / "out"
    for dtype in (torch.int8, torch.int64, torch.bool, torch.complex64, "float16"):
        refused(model, dtype, "dtype=.*: expected one of torch.float32, torch.float16")
    weight = next(p for p in model.parameters())
    with torch.no_grad(): weight.view(-1)[0] = 1e5
    refused(model, torch.float16, r"dtype=torch.float16: .* holds 1e\+05, .*bfloat16")
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        model.save_pretrained(tmp_path / str(dtype), dtype)
        again = type(model).from_pretrained(tmp_path / str(dtype), "cpu")
        found = next(p for p in again.parameters()).view(-1)[0].item()
        assert found == pytest.approx(1e5, rel=1e-2)
    with torch.no_grad(): weight.view(-1)[0] = float("nan")
    refused(model, torch.float32, "holds NaN or infinity")


def test_mask_leaves_field_alone():
    model, field = randomised(), torch.randn(3, 8, 4, 4)
    before = field.clone()
    model.velocity(torch.randn(3, 1, 64, 64), torch.tensor([0.1, 0.5, 0.9]), field)
    assert torch.equal(field, before)


def test_loss_is_equation_3():
    x1 = torch.randn(4, 1, 8, 8)
    seen = {}

    class Oracle(nn.Module):
        def forward(self, x, t, x1):
            seen.update(x=x, t=t)
            return (x1 - x) / (1 - t)[:, None, None, None]  # exactly x1 - x0

    assert flow_matching_loss(Oracle(), x1, torch.Generator().manual_seed(0)) < 1e-6
    t = seen["t"][:, None, None, None]
    x0 = (seen["x"] - t * x1) / (1 - t)
    assert abs(x0.std() - 1) < 0.15
    nothing = lambda x, t, x1: torch.zeros_like(x)
    a, b = (flow_matching_loss(nothing, x1, torch.Generator().manual_seed(3))
            for _ in range(2))
    assert a == b


@pytest.mark.parametrize("solver, steps, tol",
                         [("euler", 500, 2e-2), ("heun", 64, 1e-3)])
def test_analytic_flow(solver, steps, tol):
    "From N(0, 1) to N(m, s^2) the flow carries x0 to m + s x0."
    m, s = -2.0, 1.7
    variance = lambda t: (1 - t) ** 2 + t**2 * s**2
    velocity = lambda t, x: m + (t * s**2 - (1 - t)) / variance(t) * (x - t * m)
    x0 = torch.linspace(-3, 3, 13, dtype=torch.float64)
    found = integrate(velocity, x0, steps, solver, tol=1e-7)
    torch.testing.assert_close(found, m + s * x0, atol=tol * 3, rtol=0)
    path = integrate(velocity, x0, 8, solver, trajectory=True)
    assert path.shape == (9, 13) and torch.equal(path[0], x0)


def test_steps_are_counted():
    for solver, calls in (("euler", 1), ("midpoint", 2), ("heun", 2)):
        n = 0

        def velocity(t, x):
            nonlocal n
            n += 1
            return -x

        integrate(velocity, torch.ones(1), 7, solver)
        assert n == 7 * calls


def test_round_trip_of_shapes():
    model = randomised()
    maps = open_maps("PM", "CV").maps[:3]
    field = model.encode(maps)
    assert field.shape == (3, 8, 4, 4) and model.summarise(maps).shape == (3, 8)
    torch.testing.assert_close(model.summarise(maps), field.mean((2, 3)))
    gen = lambda: torch.Generator().manual_seed(0)
    a = model.decode(field, 2, generator=gen())
    assert a.shape == (3, 64, 64) and (a > 0).all()
    assert torch.equal(a, model.decode(field, 2, generator=gen()))
    pieces = model.decode(field, 2, generator=gen(), batch_size=2)
    torch.testing.assert_close(a, pieces, rtol=1e-3, atol=0)
    assert model.decode(field, 2, samples=4).shape == (3, 4, 64, 64)
    assert model.decode(field, 2, trajectory=True).shape == (3, 3, 64, 64)
    assert model.decode(field, 2, samples=2, trajectory=True).shape == (3, 3, 2, 64, 64)
    assert model.encode(np.full((1, 128, 64), 1e11, np.float32)).shape == (1, 8, 8, 4)


def test_mode_is_kept():
    model = CosmoFlow.from_preset("tiny", NORM)
    stats = model.encoder[0][1].running_mean.clone()
    model.encode(np.full((2, 64, 64), 1e11, np.float32))
    assert model.training and torch.equal(stats, model.encoder[0][1].running_mean)


@pytest.mark.parametrize("name", ("mini", "mini-fast", "mini-scales", "base"))
def test_shipped_weights_rebuild_held_out_maps(name):
    data = open_maps("PM", "LH")
    maps = torch.from_numpy(data.split()[2].maps[::45])
    model = CosmoFlow.from_pretrained(name)
    again = model.reconstruct(maps, generator=torch.Generator().manual_seed(0))
    r = cross_correlation(again, maps, of="log")
    assert r[:, 0].mean() > 0.98 and r[:, 1].mean() > 0.96
    drawn = model.generate(1, torch.Generator().manual_seed(0), steps=1)
    assert len(drawn) == 1  # its prior ships too


def test_prior_reproduces_fields():
    model = CosmoFlow.from_pretrained("mini")
    maps = open_maps("PM", "LH").maps[::4]
    field = model.encode(maps)
    model.fit_prior(maps)
    drawn = {}
    model.decode = lambda field, generator=None: drawn.update(field=field)
    model.generate(4000, torch.Generator().manual_seed(0))
    drawn = drawn["field"]
    mean, var = field.mean((0, 2, 3)), field.var((0, 2, 3))
    tolerance = 0.1 * field.std().item()
    torch.testing.assert_close(drawn.mean((0, 2, 3)), mean, atol=tolerance, rtol=0)
    torch.testing.assert_close(drawn.var((0, 2, 3)), var, rtol=0.15, atol=0)
    ours, theirs = (torch.corrcoef(f.mean((2, 3)).T) for f in (drawn, field))
    torch.testing.assert_close(ours, theirs, atol=0.15, rtol=0)
    with pytest.raises(RuntimeError, match="fit_prior"): randomised().generate(1)


def test_half_the_file_and_the_whole_prior(tmp_path):
    model = randomised(channels=4)
    maps = open_maps("PM", "CV").maps[:20]
    model.fit_prior(maps)
    model.save_pretrained(tmp_path / "m", torch.float16)
    again = CosmoFlow.from_pretrained(tmp_path / "m")
    files = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert files == ["config.json", "model.safetensors"]
    a, b = model.encode(maps), again.encode(maps)
    assert (a - b).abs().max() <= 2e-2 * a.abs().max()
    assert torch.equal(model.prior, again.prior)
    assert next(again.parameters()).dtype == torch.float32


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="mini"):
        CosmoFlow.from_pretrained("minni")
    model = randomised()
    model.save_pretrained(tmp_path)
    good = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="do not make a CosmoFlow"):
        CosmoFlow.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(good)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["model"]["width"] = 16
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = r"size mismatch .* \(and \d+ more\); is it of another class"
    with pytest.raises(ValueError, match=said) as caught:
        CosmoFlow.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json"):
        CosmoFlow.from_pretrained(tmp_path)


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    config = {k: v for k, v in config.items() if v is not None}
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_and_named(tmp_path, value):
    model = CosmoFlow.from_preset("tiny", Normalizer(11.0, 0.5, 1e8))
    model.save_pretrained(tmp_path)
    with torch.no_grad(): next(model.unet.parameters()).fill_(value)  # by others
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "1"})
    message = r"model.safetensors: unet.* holds NaN or infinity"
    with pytest.raises(ValueError, match=message): CosmoFlow.from_pretrained(tmp_path)


def test_weights_say_their_format(tmp_path):
    model = randomised()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with safe_open(path, "pt") as f: assert f.metadata() == {"format": "1"}
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    for older in (None, {"format": "pt"}):
        save_file(tensors, path, older)
        again = CosmoFlow.from_pretrained(tmp_path)
        torch.testing.assert_close(dict(again.state_dict()), tensors)
    save_file(tensors, path, {"format": "2"})
    upgrade = "model.safetensors: format 2.*pip install --upgrade"
    with pytest.raises(ValueError, match=upgrade):
        CosmoFlow.from_pretrained(tmp_path)


def test_files_say_their_format(tmp_path):
    model = randomised()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert list(config) == ["format", "model", "normalizer"] and config["format"] == 1
    for shipped in ("mini", "mini-fast", "base", "vae"):  # are older than the format
        path = find_model(shipped) / "config.json"
        assert "format" not in json.loads(path.read_text(encoding="utf-8"))
    change_config(tmp_path, format=None)
    again = CosmoFlow.from_pretrained(tmp_path)
    assert again.normalizer == NORM and again.config == model.config
    for newer in (2, "next"):
        change_config(tmp_path, format=newer)
        upgrade = "config.json: format .*pip install --upgrade"
        with pytest.raises(ValueError, match=upgrade):
            CosmoFlow.from_pretrained(tmp_path)
    for other in ("[]", "{}", "3"):
        (tmp_path / "config.json").write_text(other, encoding="utf-8")
        with pytest.raises(ValueError, match='config.json: expected .*"normalizer"'):
            CosmoFlow.from_pretrained(tmp_path)


GOOD = {"mean": 11.0, "std": 0.5, "floor": 1e8}


@pytest.mark.parametrize("part, changes, message", [
    ("normalizer", GOOD | {"std": 0.0}, "above 0 for std, found 0.0"),
    ("normalizer", GOOD | {"std": float("inf")}, "above 0 for std, found inf"),
    ("normalizer", GOOD | {"mean": float("nan")}, "finite number for mean, found nan"),
    ("normalizer", GOOD | {"mean": "11"}, "finite number for mean, found '11'"),
    ("normalizer", GOOD | {"floor": -1.0}, "above 0 for floor, found -1.0"),
    ("model", {"solver": "rk"}, "solver='rk': expected one of euler, midpoint"),
    ("model", {"timetable": "late"}, "timetable='late': expected one of fading"),
    ("model", {"timetable": 3}, "timetable=3: expected one of fading"),
    ("model", {"steps": 0}, "steps=0: expected a whole number from 1 to 1024"),
    ("model", {"width": 10**9}, "width=1000000000: expected a whole number"),
    ("model", {"depth": 1.5}, "depth=1.5: expected a whole number"),
    ("model", {"channels": "8"}, "channels='8': expected a whole number"),
    ("model", {"colour": "red"}, "colour"),
])
def test_configuration_is_checked(tmp_path, part, changes, message):
    randomised().save_pretrained(tmp_path)
    change_config(tmp_path, **{part: changes})
    with pytest.raises(ValueError, match=f"do not make a CosmoFlow model: .*{message}"):
        CosmoFlow.from_pretrained(tmp_path)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    "Neither weights that only pickle holds nor a pickle under safetensors' name."
    randomised().save_pretrained(tmp_path)
    pickled = tmp_path / "pytorch_model.bin"
    torch.save(randomised().state_dict(), pickled)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("unpickled"))
    (tmp_path / "model.safetensors").write_bytes(pickled.read_bytes())
    with pytest.raises(ValueError, match="do not make"):
        CosmoFlow.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr("cosmoflow.model.snapshot_download", lambda *_, **__: tmp_path)
    for name in (tmp_path, "hub:user/model"):
        with pytest.raises(FileNotFoundError, match="model.safetensors: no such file"):
            CosmoFlow.from_pretrained(name)


def test_names_are_shipped_then_folders_then_the_hub(tmp_path, monkeypatch):
    asked = []

    def hub(name, **arguments):
        asked.append((name, arguments))
        if name != "user/model": raise OSError("404\n\nnot found")
        return str(tmp_path / "cache")

    monkeypatch.setattr("cosmoflow.model.snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    for folder in ("mini", "runs/first", "cache"):
        (tmp_path / folder).mkdir(parents=True)
    randomised().save_pretrained("cache")
    shipped = find_model("mini")
    assert shipped.parent.name == "weights" and shipped == find_model(shipped)
    assert find_model("./mini") == find_model(Path("mini")) == Path("mini")
    assert find_model("runs/first") == Path("runs/first")
    absent = ("runs/mini", "minni", "./runs/x/y", "a/b/c", "user/", "../x",
              tmp_path / "x")
    for name in absent:
        message = "no such folder here.* mini, .*hub:user"
        with pytest.raises(FileNotFoundError, match=message):
            CosmoFlow.from_pretrained(name)
    assert asked == []
    message = "no such folder here, and .*Hub: 404 not found"
    with pytest.raises(FileNotFoundError, match=message):
        CosmoFlow.from_pretrained("run/mini")
    message = "'hub:runs/mini': none came from the Hub"
    with pytest.raises(FileNotFoundError, match=message):
        CosmoFlow.from_pretrained("hub:runs/mini")
    asked.clear()
    options = {"revision": "v1", "token": "secret", "cache_dir": "elsewhere",
               "local_files_only": True, "force_download": True}
    for name in ("user/model", "hub:user/model"):
        model = CosmoFlow.from_pretrained(name, **options)
        assert model.normalizer == NORM
    files = {"allow_patterns": ["config.json", "model.safetensors", "posterior.*"]}
    assert asked == [("user/model", options | files)] * 2


def test_push_to_hub_sends_what_is_saved(tmp_path, monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token): sent["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            sent["private"] = private
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, revision, commit_message, **_):
            sent.update(repo=repo_id, revision=revision, message=commit_message)
            sent["names"] = sorted(path.name for path in folder_path.iterdir())
            sent["model"] = CosmoFlow.from_pretrained(folder_path)
            card = folder_path / "README.md"
            sent["card"] = card.read_text(encoding="utf-8") if card.exists() else None
            return "address"

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Api)
    model = randomised()
    push = lambda **more: model.push_to_hub("user/model", token="secret", **more)
    assert push(private=True, branch="next", commit_message="first") == "address"
    weights = sent.pop("model").state_dict()
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert sent == {
        "token": "secret", "private": True, "repo": "user/model", "card": None,
        "revision": "next", "message": "first",
        "names": ["config.json", "model.safetensors"]}
    (tmp_path / "README.md").write_text("# Ours\n", encoding="utf-8")
    push(model_card_kwargs={"template_path": tmp_path / "README.md"})
    assert sent["names"] == ["README.md", "config.json", "model.safetensors"]
    assert "# Ours" in sent["card"]
    push(model_card_kwargs={})
    assert "library_name: cosmoflow" in sent["card"]
    with pytest.raises(ValueError, match="config: expected None"):
        push(config={"width": 3})


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch, file):
    "A save that dies while it writes a file leaves that file as it was."
    model = randomised()
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace

    def dies(source, target):
        if Path(target).name == file: raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(OSError, match="disk full"): model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bad_arguments():
    with pytest.raises(ValueError, match="pixels=40: expected"): VAE(NORM, pixels=40)
    model, field = randomised(), torch.zeros(1, 8, 4, 4)
    with pytest.raises(ValueError, match="multiples of 16"):
        model.encode(np.ones((1, 60, 60), np.float32))
    with pytest.raises(ValueError, match=r"\(n, 8, h, w\)"):
        model.decode(torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="solver='rk'"):
        model.decode(field, solver="rk")
    with pytest.raises(ValueError, match="steps=0"):
        model.decode(field, 0)
    for steps, solver in ((-3, None), (0, "euler"), (2.5, None), (4, "foo")):
        with pytest.raises(ValueError, match="^(steps|solver)="):
            model.sampling(steps, solver)
    with pytest.raises(ValueError, match="preset 'huge'"):
        CosmoFlow.from_preset("huge", NORM)


@pytest.mark.parametrize("factor", (3e3, 1e-4, 0))
def test_one_map_in_other_units_is_refused_among_many(factor):
    "The verdict does not depend on what else is in a batch."
    model, maps = randomised(), np.array(open_maps("PM", "CV", pixels=16).maps[:64])
    maps[40] *= factor
    model.encode(np.delete(maps, 40, 0))
    for size in (None, 1, 7):
        with pytest.raises(ValueError, match="^maps: .* a mean of .*other units"):
            model.encode(maps, size)
    with pytest.raises(ValueError, match="a mean of .* in one of them; are they"):
        model.fit_prior(maps[16:])
    assert model.fit_prior(maps, check=False).prior is not None


def test_the_solver_of_a_distilled_model_has_no_second_meaning():
    with pytest.raises(ValueError, match="distilled to 8 .* choose another solver"):
        CosmoFlow.from_preset("tiny", NORM, solver="euler").require_flow()
    CosmoFlow.from_preset("tiny", NORM, solver="heun").require_flow()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_on_gpu():
    model = randomised()
    maps = open_maps("PM", "CV").maps[:4]
    field = model.encode(maps)
    gpu = CosmoFlow.from_preset("tiny", NORM)
    gpu.load_state_dict(model.state_dict())
    gpu = gpu.eval().cuda()
    torch.testing.assert_close(gpu.encode(maps).cpu(), field, atol=1e-3, rtol=1e-3)
    a, b = (m.decode(field, 4, generator=torch.Generator().manual_seed(0)).cpu()
            for m in (model, gpu))
    torch.testing.assert_close(a.log10(), b.log10(), atol=1e-2, rtol=0)


def test_compiled_gradients_are_those_of_eager_code():
    """In bfloat16, the paper's way on a GPU.

    A graph with padding written in place gave gradients that were not numbers."""
    torch.manual_seed(0)
    layers = PeriodicConv(1, 8), nn.GroupNorm(8, 8), PeriodicConv(8, 1)
    first, norm, second = parts = nn.Sequential(*layers)
    parts.to(memory_format=torch.channels_last)
    net = lambda x: second(between(first(x), norm), padded=True)
    x, weights = torch.randn(16, 1, 64, 64), list(parts.parameters())

    def gradient(net):
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(x).float().square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])

    eager, threads = gradient(net), torch.get_num_threads()
    torch.set_num_threads(2)  # with one the wrong graph was right
    try: compiled = gradient(torch.compile(net, fullgraph=True))
    finally: torch.set_num_threads(threads)
    assert (compiled - eager).norm() < 0.02 * eager.norm()


def test_compiled_padding_has_torch_s_value_and_gradient():
    draw = lambda seed, *shape: torch.randn(
        shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    x = draw(0, 2, 3, 4, 6).requires_grad_()
    pad = torch.compile(periodic_pad, backend="aot_eager", fullgraph=True)
    for width in (1, 3, 4):  # as wide as the image too
        weight = draw(1, 2, 3, 4 + 2 * width, 6 + 2 * width)
        ours, theirs = pad(x, width), F.pad(x, (width,) * 4, mode="circular")
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(*(
            torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs)))
        # A convolution after padding that forgets the layout copies the image back.
        layout = torch.channels_last
        padded = pad(x.to(memory_format=layout), width)
        assert padded.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (64, 96)])
@pytest.mark.parametrize("channels", [1, 8, 16])
def test_fold_keeps_the_longest_waves(shape, channels):
    "One wave of each class of aliases a channel, no class twice, the longest first."
    h, w = (side // SCALE for side in shape)
    field = torch.randn(3, channels, h, w, generator=torch.Generator().manual_seed(0))
    images = unfold(field)
    again = fold(images.sum(1, keepdim=True), channels)
    torch.testing.assert_close(again, field, atol=1e-5, rtol=0)
    torch.testing.assert_close(images.square().sum((2, 3)), field.square().sum((2, 3)))
    unit = unfold(torch.eye(channels * h * w).view(-1, channels, h, w)).sum(1)
    power = torch.fft.fft2(unit).abs().square().sum(0)
    frequencies = (torch.fft.fftfreq(n, 1 / n) for n in shape)
    k = torch.stack(torch.meshgrid(*frequencies, indexing="ij"))
    length = torch.hypot(k[0] / shape[0], k[1] / shape[1])
    kept = power > 1e-3 * power.max()
    for row in range(h):
        for column in range(w):
            same = ((k[0] - row) % h == 0) & ((k[1] - column) % w == 0)
            nyquist = (k[0].abs() == shape[0] / 2) | (k[1].abs() == shape[1] / 2)
            left_out = same & ~kept & ~nyquist
            assert length[same & kept].max() <= length[left_out].min() + 1e-6


def test_wavelengths_are_those_that_unfold_gives_back():
    field = torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    power = torch.fft.fft2(unfold(field)[0]).abs()
    down, across = torch.fft.fftfreq(64), torch.fft.fftfreq(96)
    number = torch.hypot(down[:, None], across)  # waves a pixel
    for found, lengths in zip(power, wavelengths(4, 6, 5)):
        held = number[(found > 1e-3 * found.max()) & (number > 0)]
        assert np.nanmin(lengths) == pytest.approx(1 / held.max().item())
        assert np.nanmax(lengths) == pytest.approx(1 / held.min().item())
    assert np.isnan(wavelengths(4, 6, 5)).sum() == 1  # the mean


def test_waves_are_saved_and_sorted(tmp_path):
    "A model with a sorted field keeps it; a channel's waves move with the map."
    model = CosmoFlow.from_preset("tiny", NORM, waves=True)
    model.save_pretrained(tmp_path)
    again = CosmoFlow.from_pretrained(tmp_path)
    noise = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = 10 ** (11 + 0.5 * noise)
    field = again.encode(maps)
    torch.testing.assert_close(field, model.encode(maps))
    assert again.decode(field, steps=1).shape == (2, 64, 64)
    waves = fold(NORM(maps), 8)
    change = field - waves
    mean = change.mean((2, 3), keepdim=True).expand_as(change)
    torch.testing.assert_close(change, mean, atol=1e-4, rtol=0)
    with torch.no_grad(): plain = Encoder.forward(again.encoder, NORM(maps))
    torch.testing.assert_close(again.summarise(maps), plain.mean((2, 3)),
                               atol=1e-4, rtol=0)
    assert not CosmoFlow.from_pretrained("mini").config["waves"]
    with pytest.raises(ValueError, match="waves='no': expected True or False"):
        CosmoFlow(NORM, waves="no")


@pytest.mark.parametrize("other", [{"steps": 2}, {"solver": "midpoint"}])
def test_a_distilled_model_is_told_apart_from_a_flow(other):
    model = randomised(steps=1, solver="euler")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.sampling(1, "euler") == model.sampling()
        assert randomised(solver="midpoint").sampling(2, "euler")["steps"] == 2
    with pytest.warns(UserWarning, match="was distilled to 1 step.s. of euler, and dr"):
        model.sampling(**other)


@pytest.mark.parametrize("size", (1e-6, 1.0, 1e6))
def test_a_prior_has_the_scatter_of_its_fields_whatever_its_size(size):
    generator = torch.Generator().manual_seed(0)
    field = size * torch.randn((400, 8, 4, 4), generator=generator)
    drawn = draw_fields(field_prior(field), 400, generator)
    torch.testing.assert_close(drawn.std(), field.std(), rtol=0.02, atol=0)
    one = field_prior(field[:1])  # fewer fields than channels: the floor alone helps
    assert one.isfinite().all()


def test_no_revision_of_a_shipped_model():
    with pytest.raises(ValueError, match="revision='old': expected None for 'mini'"):
        CosmoFlow.from_pretrained("mini", revision="old")


@pytest.mark.parametrize("kind", [CosmoFlow, VAE])
@pytest.mark.parametrize("none", [None, (11.0, 0.5, 1e8)])
def test_a_model_of_maps_has_a_normaliser(kind, none):
    with pytest.raises(ValueError, match="^normalizer: expected a Normalizer, found"):
        kind(none)


@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_channel_goes_and_comes_with_a_step_of_the_solver(each):
    "Also where k / C is rounded down: 8 / 12 in float32 lies below two thirds."
    for c in range(1, 65):
        times = torch.linspace(0, 1, each * c + 1)[::each]
        live = {name: Timetable(name, c).mask(times).sum((1, 2, 3)).int().tolist()
                for name in ("fading", "waking")}
        assert live == {"fading": [*range(c, 0, -1), 1],
                        "waking": [*range(1, c + 1), c]}, c


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prior_that_could_not_be_read_is_not_written(value, tmp_path):
    model = randomised()
    model.prior = torch.full((1, 1, 9, 8, 2), value)
    with pytest.raises(ValueError, match="^prior holds NaN or infinity"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_fitted_prior_comes_with_the_weights(tmp_path):
    "As PyTorch's users keep them, in a larger network too, and for other pixels."
    maps = np.array(open_maps("PM", "LH", sims=slice(0, 1), pixels=32).maps)
    fitted, new = randomised().fit_prior(maps), randomised()
    torch.save(fitted.state_dict(), tmp_path / "weights.pt")
    weights = torch.load(tmp_path / "weights.pt")
    new.load_state_dict(weights)
    assert torch.equal(new.generate(2, seed=0), fitted.generate(2, seed=0))
    whole = nn.ModuleList([randomised().fit_prior(maps[:, :16, :16])])
    whole.load_state_dict(nn.ModuleList([fitted]).state_dict())
    assert torch.equal(whole[0].prior, fitted.prior)
    assert whole[0].prior.data_ptr() != fitted.prior.data_ptr()


def test_a_folder_that_cannot_be_is_named_as_elsewhere(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(NotADirectoryError, match="model is a file; choose"):
        randomised().save_pretrained(tmp_path / "model")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_of_a_model_is_told_from_its_folder(file, tmp_path):
    randomised().save_pretrained(tmp_path)
    message = f"found a file; give the folder, {tmp_path}$"
    for name in (tmp_path / file, str(tmp_path / file)):
        with pytest.raises(FileNotFoundError, match=message):
            CosmoFlow.from_pretrained(name)

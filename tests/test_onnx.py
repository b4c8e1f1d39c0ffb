"""What `cosmoflow export` writes: graphs against torch, and a JSON with the rest."""
import json
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch
from conftest import full_disk, randomised

from cosmoflow import CosmoFlow, cli
from cosmoflow.data import Normalizer, open_maps, split_simulations
from cosmoflow.export import (
    LIMIT, SETS, _Decode, _prepared, _trace, _write, export, fit_regressors, graphs,
    halved, halved_safely, open_sets, runner)
from cosmoflow.spectra import power_spectrum
from cosmoflow.vae import VAE

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
DATA = open_maps("PM", "LH", check=False)
MAPS = DATA.split()[2].maps[:150:3]  # 50 of them, of 10 simulations
NOISE = torch.randn(50, 1, 64, 64, generator=torch.Generator().manual_seed(1))
FEW = open_maps("PM", "LH", sims=slice(0, 10), check=False)


@pytest.fixture(scope="module")
def fast(): return CosmoFlow.from_pretrained("mini-fast", "cpu")


@pytest.fixture(scope="module")
def found(fast): return graphs(fast)


@pytest.fixture(scope="module")
def drawn(fast):
    "Fifty maps, encoded and decoded by torch, normalised."
    noise = torch.Generator().manual_seed(1)
    return fast.normalizer(fast.decode(fast.encode(MAPS), generator=noise))


@pytest.fixture(scope="module")
def exported(fast, found, tmp_path_factory):
    "A folder, and what its model.json holds."
    out = tmp_path_factory.mktemp("exported") / "new"
    with pytest.MonkeyPatch.context() as patch:  # they are there
        patch.setattr("cosmoflow.export.graphs", lambda *_: found)
        said = export(fast, FEW, out, "mini-fast", open_sets(check=False), maps=3)
    read = json.loads((out / "model.json").read_text(encoding="utf-8"))
    assert read.keys() == said.keys()
    return out, read


def dex(model, a, b): return np.abs(np.asarray(a) - np.asarray(b)).max() * (
    model.normalizer.std)


def test_graphs_are_plain_and_valid(found):
    assert list(found) == ["encoder", "decoder", "velocity"]
    for graph in found.values():
        onnx.checker.check_model(graph, full_check=True)
        assert [(o.domain, o.version) for o in graph.opset_import] == [("", 20)]
        assert {node.domain for node in graph.graph.node} == {""}


def test_float32_graphs_are_torch_on_fifty_maps(fast, found, drawn):
    x = fast.normalizer(MAPS)
    field, summary = runner(found["encoder"])(x=x)
    np.testing.assert_allclose(field, fast.encode(MAPS), atol=1e-4)
    np.testing.assert_allclose(summary, fast.summarise(MAPS), atol=1e-4)
    decode = runner(found["decoder"])
    parts = [decode(noise=n, field=f)[0] for n, f in
             zip(NOISE.split(10), np.split(field, 5))]
    assert dex(fast, np.concatenate(parts), drawn) < 1e-4


def test_velocity_holds_the_mask_at_every_time(fast, found):
    field, times = fast.encode(MAPS[:6]), torch.tensor([0, 0.1, 0.124, 0.5, 0.88, 1])
    with torch.no_grad(): expected = fast.velocity(NOISE[:6], times, field)
    (velocity,) = runner(found["velocity"])(x=NOISE[:6], t=times, field=field)
    np.testing.assert_allclose(velocity, expected, atol=1e-4)


def test_written_graphs_decode_fifty_maps_within_the_limit(fast, exported, drawn):
    out, said = exported
    x, encode = fast.normalizer(MAPS), runner(out / "encoder.onnx")
    decode = runner(out / "decoder.onnx")
    parts = [decode(noise=n, field=encode(x=one)[0])[0]
             for one, n in zip(x.split(10), NOISE.split(10))]
    error = dex(fast, np.concatenate(parts), drawn)
    assert 1e-6 < error < LIMIT
    assert 0 < said["float16"]["max_dex"] < LIMIT == said["float16"]["limit_dex"]
    assert said["float16"]["of"] == "decoded maps"


def test_json_names_every_file_and_what_goes_in(exported):
    out, said = exported
    assert {file["file"] for file in said["files"].values()} | {"model.json"} == {
        path.name for path in out.iterdir()}
    for kind, file in said["files"].items():
        content = (out / file["file"]).read_bytes()
        assert file["bytes"] == len(content)
        assert file["sha256"] == sha256(content).hexdigest()
        if kind == "maps": continue
        session = onnx.load(out / file["file"]).graph
        assert list(file["inputs"]) == [port.name for port in session.input]
    assert said["files"]["velocity"]["inputs"] == {
        "x": ["B", 1, 64, 64], "t": ["B"], "field": ["B", 8, 4, 4]}


def by_json(said, numbers):
    y = (np.asarray(numbers) - said["x"]["mean"]) / said["x"]["std"]
    for layer in said["layers"]:
        y = y @ np.array(layer["weight"]).T + layer["bias"]
        if layer["activation"] == "relu": y = np.maximum(y, 0)
    return y * said["y"]["std"] + said["y"]["mean"]


def test_regressors_as_lists_are_torch(fast, exported):
    _, said = exported
    summaries = fast.summarise(FEW.maps)
    regressors, errors = fit_regressors(summaries, FEW)
    inputs = {"parameters": summaries, "summaries": torch.tensor(FEW.params).float()}
    for kind, numbers in inputs.items():
        expected = regressors[kind].predict(numbers)
        found = by_json(said["regressors"][kind], numbers)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert said["regressors"]["parameters"]["outputs"] == ["Omega_m", "sigma_8"]
    np.testing.assert_allclose(
        said["regressors"]["parameters"]["relative_error"],
        errors["parameters"]["relative_error"])
    means = summaries.view(10, 15, 8).mean(1)
    np.testing.assert_allclose(said["universes"]["summary"], means, atol=1e-5)


def test_maps_in_bytes_are_the_maps_of_their_rows(fast, exported):
    out, said = exported
    steps = np.frombuffer((out / "maps.bin").read_bytes(), np.uint8).reshape(-1, 64, 64)
    rows = said["maps"]
    assert list(steps.shape) == said["files"]["maps"]["shape"]
    assert [row["set"] for row in rows] == [name for name in SETS for _ in range(3)]
    for number, (row, image) in enumerate(zip(rows, steps)):
        data = open_maps("PM", row["set"], check=False)
        true, params = data[15 * row["simulation"]]
        assert list(row["parameters"].values()) == list(params)
        assert row["byte"] == 4096 * number
        log = row["offset"] + row["scale"] * image
        floor = said["normalizer"]["floor"]
        off = log - np.log10(np.maximum(true, floor))
        assert np.abs(off).max() <= 0.51 * row["scale"]
        again = 10 ** log[None]
        np.testing.assert_allclose(fast.summarise(again)[0], row["summary"], atol=1e-4)
        power = power_spectrum(again)[1][0]
        np.testing.assert_allclose(power, row["power"], rtol=1e-4)
    held_out = set(split_simulations(DATA)[2] // 15)
    assert {row["simulation"] for row in rows if row["set"] == "LH"} <= held_out


def test_a_model_with_a_flow_has_no_decoder_and_waves_are_a_matrix():
    model = randomised(waves=True)
    found = graphs(model)
    assert list(found) == ["encoder", "velocity"]
    x, field = model.normalizer(MAPS[:3]), model.encode(MAPS[:3])
    np.testing.assert_allclose(runner(found["encoder"])(x=x)[0], field, atol=1e-4)
    times = torch.tensor([0.2, 0.6, 0.9])
    with torch.no_grad(): expected = model.velocity(NOISE[:3], times, field)
    (velocity,) = runner(found["velocity"])(x=NOISE[:3], t=times, field=field)
    np.testing.assert_allclose(velocity, expected, rtol=1e-3, atol=1e-3)


def test_a_decoder_holds_all_steps_of_euler():
    model = randomised(steps=3, solver="euler")
    field = model.encode(MAPS[:2])
    inputs = {"noise": NOISE[:2], "field": field}
    (x,) = runner(_trace(_Decode(_prepared(model, (64, 64))), inputs, ["x"]))(**inputs)
    noise = torch.Generator().manual_seed(1)  # the first of the same numbers
    drawn = model.decode(field, generator=noise)
    assert dex(model, x, model.normalizer(drawn)) < 1e-3


def test_weights_that_err_too_much_stay_float32(fast, found, monkeypatch):
    monkeypatch.setattr("cosmoflow.export.LIMIT", 1e-9)
    half, about = halved_safely(found, fast.normalizer(MAPS[:1]), fast.normalizer.std)
    assert about["max_dex"] == 0 and about["smallest_tensor"] == np.inf
    assert half["decoder"].ByteSize() > 1.9 * halved(found["decoder"]).ByteSize()


def test_what_cannot_be_exported_is_refused(fast):
    with pytest.raises(ValueError, match="expected a CosmoFlow, found VAE"):
        graphs(VAE(Normalizer(11.0, 0.5, 1e8)))
    with pytest.raises(ValueError, match="multiples of 16, found 40 x 40"):
        graphs(fast, (40, 40))
    with pytest.raises(ValueError, match="a matrix of 134,217,728 numbers"):
        graphs(randomised(waves=True), (256, 256))


def test_missing_extra_names_it(fast, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "cosmoflow\[export\]"'):
        graphs(fast)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path):
    with full_disk(), pytest.raises(OSError, match="could not be written"):
        _write(tmp_path, "encoder.onnx", bytes(100_000))
    assert not [*tmp_path.iterdir()]


def test_the_command_prints_what_it_wrote(tmp_path, capsys, monkeypatch):
    randomised().save_pretrained(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    cli.main("export --model own --out o --sims 0:10 --maps 1".split())
    lines = capsys.readouterr().out.splitlines()
    names = "encoder.onnx", "velocity.onnx", "maps.bin"
    assert [line.split(": ")[0] for line in lines] == [f"o/{name}" for name in names]
    said = json.loads((tmp_path / "o" / "model.json").read_text(encoding="utf-8"))
    assert said["name"] == "own" and len(said["maps"]) == 5
    assert said["float16"]["of"] == "velocity at t = 0.5"

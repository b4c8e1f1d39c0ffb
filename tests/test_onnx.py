"""What `cosmoflow export` writes: graphs against torch, and a JSON with the rest."""
import json
import os
import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from conftest import full_disk, randomised

from cosmoflow import CosmoFlow, cli
from cosmoflow.data import MapData, Normalizer, open_maps, split_simulations
from cosmoflow.export import (
    HALF_LIMIT, SHOWN_SETS, _about, _Decode, _prepared, _trace, _write, export,
    fit_regressors, graphs, halved, halved_safely, open_sets, runner)
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
    assert 1e-6 < error < HALF_LIMIT
    assert 0 < said["float16"]["max_dex"] < HALF_LIMIT == said["float16"]["limit_dex"]
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


def test_json_tells_the_waves_of_maps_of_another_box(fast):
    said = _about(fast, replace(DATA, box=50.0), "own")
    k = power_spectrum(MAPS[:1], 50.0)[0]
    assert said["box"] == 50 and said["spectrum"]["fundamental"] == pytest.approx(
        2 * np.pi / 50)
    np.testing.assert_allclose(said["spectrum"]["k"], k)


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
    np.testing.assert_allclose(said["universes"]["parameters"], FEW.params[:, :2])
    held_out = split_simulations(FEW)[2]
    targets = torch.tensor(FEW.targets[held_out]).float()
    left = regressors["summaries"].predict(targets) - summaries[held_out]
    np.testing.assert_allclose(said["regressors"]["summaries"]["rms"],
                               left.square().mean(0).sqrt(), rtol=1e-4)


def test_maps_in_bytes_are_the_maps_of_their_rows(fast, exported):
    out, said = exported
    steps = np.frombuffer((out / "maps.bin").read_bytes(), np.uint8).reshape(-1, 64, 64)
    rows = said["maps"]
    assert list(steps.shape) == said["files"]["maps"]["shape"]
    of_sets = [name for name in SHOWN_SETS for _ in range(3)]
    assert [row["set"] for row in rows] == of_sets
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
    monkeypatch.setattr("cosmoflow.export.HALF_LIMIT", 1e-9)
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


def test_a_full_disk_for_passing_files_is_named(fast, tmp_path, monkeypatch):
    "ONNX Runtime simplifies graphs by way of a file, and says nothing of disks."
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    message = f"^{tmp_path}.* could not be written there .* TMPDIR"
    with full_disk(), pytest.raises(OSError, match=message): graphs(fast)
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


ONE = open_maps("PM", "CV", check=False)
LARGER = np.repeat(np.repeat(MAPS[:10], 2, 1), 2, 2)
LATE = {  # what the end of an export would refuse, and what is said at its beginning
    "one universe": (dict(data=ONE), "expected Omega_m to vary, found 0.3 in each of"),
    "other units": (dict(data=MapData(1e6 * DATA.maps[:150], DATA.params[:10])),
                    "data: expected surface density .* such maps"),
    "one simulation": (dict(data=DATA.simulations([0])), "open more simulations"),
    "a set in other units": (
        dict(sets=[MapData(1e6 * MAPS[:10], DATA.params[:10])], maps=1),
        "sets, maps: expected surface density"),
    "a set of other pixels": (dict(sets=[MapData(LARGER, DATA.params[:10])], maps=1),
                              r"sets, maps: expected shape \(n, 64, 64\)"),
    "sets, but no maps": (dict(sets=[ONE]), "maps=0: expected 1 or more"),
    "maps, but no sets": (dict(maps=3), "maps=3: expected sets"),
    "maps below 1": (dict(maps=-1, sets=[ONE]), "maps=-1"),
    "no seed": (dict(seed=-1), "seed=-1"),
}


@pytest.mark.parametrize("what", LATE)
def test_what_the_end_would_refuse_is_refused_at_the_beginning(
        fast, tmp_path, monkeypatch, what):
    def worked(*_, **__): raise AssertionError("worked")
    monkeypatch.setattr("cosmoflow.export.graphs", worked)
    monkeypatch.setattr(CosmoFlow, "encode", worked)
    given, message = LATE[what]
    with pytest.raises(ValueError, match=message):
        export(**{"model": fast, "data": FEW, "out": tmp_path / "o"} | given)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("line", ("--set CV --out o", "--set CV --maps 2 --out o",
                                  "--sims 0:10 --out there"))
def test_the_command_refuses_before_it_works(tmp_path, monkeypatch, capsys, line):
    def worked(*_, **__): raise AssertionError("worked")
    for name in ("graphs", "fit_regressors"):
        monkeypatch.setattr(f"cosmoflow.export.{name}", worked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "maps.bin").mkdir(parents=True)
    with pytest.raises(SystemExit): cli.main(["export", *line.split()])
    said = capsys.readouterr().err
    assert "expected Omega_m to vary" in said or "but it is a folder" in said, said
    assert os.listdir(tmp_path) == ["there"]


@pytest.mark.parametrize("line", ("export --out o", "export --data none --out o"))
def test_a_missing_extra_is_told_before_a_model_is_loaded(
        tmp_path, monkeypatch, capsys, line):
    def loaded(*_, **__): raise AssertionError("loaded")
    for what in ("model.CosmoFlow.from_pretrained", "data.open_maps"):
        monkeypatch.setattr(f"cosmoflow.{what}", loaded)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit): cli.main(line.split())
    assert 'pip install "cosmoflow[export]"' in capsys.readouterr().err


def test_an_export_leaves_torch_s_exporter_to_others(fast, found):
    "What we teach it of `mT` holds for our own networks alone."
    from torch.onnx._internal.torchscript_exporter.registration import registry
    group = registry.get_function_group("aten::mT")
    assert group is None or group.get(20) is None

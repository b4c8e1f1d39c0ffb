"""Compression: every number comes back, at the rate that theory says, or a clear no."""
import csv
import json
import math
import os
import re
import struct
import sys
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from test_run import AROUND

from cosmoflow import compress as module
from cosmoflow.bench import untrained
from cosmoflow.codec import (Codec, Noise, RateLearner, choose_steps, decode_symbols,
                             encode_symbols, from_symbols, hartley, make_codec, table,
                             to_symbols, train_for_rate)
from cosmoflow.compress import compress, decompress, read_header
from cosmoflow.core import MapView
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.model import CosmoFlow
from cosmoflow.train import draw_batch

pytest.importorskip("constriction")
MAPS = open_maps("PM", "LH").maps[:6]


@pytest.fixture(scope="module")
def model(): return CosmoFlow.from_pretrained("mini-scales", "cpu")


@pytest.fixture(scope="module")
def codec(model): return Codec.from_prior(model.prior, rotate=False)


@pytest.fixture
def file(model, tmp_path):
    path = tmp_path / "maps.cflow"
    compress(model, MAPS[:2], path)
    return path


def gaussian(codec, n):
    "Whole numbers of a Gaussian with the codec's scatter, and of its mean."
    scatter = 2.0 ** ((codec.all_levels().astype(float) - 12) / 4)
    drawn = np.random.default_rng(0).normal(size=(n, len(scatter))) * scatter
    return np.rint(drawn).astype(np.int32)


def test_every_number_comes_back_far_ones_too(codec):
    symbols, levels = gaussian(codec, 50), codec.all_levels()
    symbols[3, [0, 5, 128]] = 60_000, -900, -77
    again = decode_symbols(encode_symbols(symbols, levels), 50, levels)
    assert again.dtype == np.int32 and (again == symbols).all()


def test_a_number_beyond_all_measure_is_refused(codec):
    symbols = gaussian(codec, 1)
    symbols[0, 0] = 10**6
    with pytest.raises(ValueError, match="lies too far"):
        encode_symbols(symbols, codec.all_levels())


def test_the_rate_is_the_entropy_computed_by_hand(codec):
    "Gaussian probabilities from erf, no table: 2 % at most between code and entropy."
    levels, expected = codec.all_levels(), 0.0
    for level in levels:
        scatter = 2.0 ** ((int(level) - 12) / 4)
        edge = lambda k: math.erf((k - 0.5) / scatter / 2**0.5)
        p = [(edge(k + 1) - edge(k)) / 2 for k in range(-200, 201)]
        expected -= sum(q * math.log2(q) for q in p if q > 0)
    symbols = gaussian(codec, 400)
    code = 8 * len(encode_symbols(symbols, levels)) / 400
    assert code == pytest.approx(expected, rel=0.02)
    assert code == pytest.approx(codec.bits(symbols).mean(), abs=1)


def test_the_rate_counts_what_lies_beyond_the_tables(codec):
    "A strange map costs what its code does, 16 bits for each number farther than that."
    levels, symbols = codec.all_levels(), gaussian(codec, 400)
    symbols[:, :3] = 500  # farther than the tables go
    code = 8 * len(encode_symbols(symbols, levels)) / 400
    assert code == pytest.approx(codec.bits(symbols).mean(), rel=0.01)


@pytest.mark.parametrize("level", [0, 12, 30])
@pytest.mark.parametrize("zone", ["0.5", "0.65"])
def test_a_table_is_the_gaussian_of_its_level(level, zone):
    counts, means = table(level, zone)
    last, scatter = len(counts) // 2, 2.0 ** ((level - 12) / 4)
    assert (counts == counts[::-1]).all() and counts.min() >= 1
    edge = (float(zone) + np.arange(len(means))) / scatter
    mass = np.diff([math.erf(e / 2**0.5) for e in edge]) / 2
    share = counts / counts.sum()
    np.testing.assert_allclose(share[last + 1 :], mass, atol=1e-5)
    inside = (edge[0] * scatter < means[1:]) & (means[1:] < edge[-1] * scatter)
    assert inside.all() and means[0] == 0


def test_tables_and_code_are_the_same_on_every_machine():
    "A file opens elsewhere only if these bytes never change."
    found = sha256()
    for level in range(0, 33, 4): found.update(table(level)[0].astype("<i8").tobytes())
    assert found.hexdigest()[:12] == "cbfe8c5fcb50"
    levels = np.array([0, 9, 12, 20, 25], np.uint8)
    symbols = np.arange(-20, 20).reshape(8, 5) % 7 - 3
    code = encode_symbols(symbols, levels).hex()
    assert code == ("ff000000fbfffffe293204d2ee5ca90825216aad84baa4d3"
                    "31bb7fbba1bf9ced72e99bed3aea699d13cf946c00000009")


def test_steps_follow_the_tilt_and_the_means_have_their_own():
    scatter = torch.tensor([4.0, 2.0, 1.0]).expand(2, 2, 3).clone()
    scatter[0, 0] = 1
    flat = choose_steps(scatter, step=0.5, tilt=0, means=0.25)
    assert (flat[0, 0] == 0.25).all() and (flat[1] == 2).all()
    tilted = choose_steps(scatter, step=0.5, tilt=1)
    torch.testing.assert_close(tilted[1, 1], scatter[1, 1] / 2)
    assert choose_steps(scatter[:1, :1], means=0.25).eq(0.25).all()  # a single cell


def test_waves_keep_the_length_and_rounding_keeps_within_a_step(model, codec):
    field = model.encode(MAPS)
    torch.testing.assert_close(hartley(field).norm(), field.norm())
    fine = Codec.from_prior(model.prior, step=0.02, tilt=0, means=0.02)
    error = fine.restore(fine.quantise(field)) - field
    steps = 2 ** (torch.from_numpy(fine.steps).double() / 8)
    assert error.norm() / len(MAPS) ** 0.5 < 1.1 * (steps.square().sum() / 12).sqrt()
    with pytest.raises(ValueError, match="fit one for these maps"):
        codec.quantise(torch.zeros(1, 8, 8, 8))


def test_another_zone_and_all_axes_come_back_from_bytes(model):
    made = Codec.from_prior(model.prior, zone="0.6")
    again = Codec.from_bytes(made.to_bytes(), made.levels.shape, "0.6")
    for name, value in vars(made).items():
        assert np.array_equal(getattr(again, name), value)
    _, orthogonal, _ = again._scales()
    torch.testing.assert_close(orthogonal.mT @ orthogonal, torch.eye(8).expand(
        4, 4, 8, 8).double(), atol=1e-4, rtol=0)


def test_maps_come_back_with_their_own_mean(model, codec):
    symbols = to_symbols(model, codec, MAPS[:3])
    maps = from_symbols(model, codec, symbols, seed=1, steps=1).numpy()
    gap = np.log10(maps).mean((1, 2)) - np.log10(MAPS[:3]).mean((1, 2))
    assert np.abs(gap).max() < 0.0101


def test_the_same_file_gives_the_same_bytes_and_other_seeds_other_maps(model, tmp_path):
    one, two, other = (tmp_path / f"{name}.cflow" for name in ("one", "two", "other"))
    for path, seed in ((one, 0), (two, 0), (other, 1)):
        compress(model, MAPS[:2], path, seed=seed, box=25.0)
        decompress(path, path.with_suffix(".npy"), model, steps=1)
    drawn = [p.with_suffix(".npy").read_bytes() for p in (one, two, other)]
    assert one.read_bytes() == two.read_bytes() and drawn[0] == drawn[1] != drawn[2]
    assert np.load(tmp_path / "one.npy").shape == (2, 64, 64)
    assert read_header(one)["box"] == 25 and read_header(one)["model"] == "mini-scales"


SOURCE = '"cosmoflow @ git+https://github.com/cosmoflow/cosmoflow"'
UPGRADE = f"upgrade it: pip install --upgrade {SOURCE}"


def test_an_upgrade_comes_from_where_the_readme_installs():
    readme = Path(__file__).parents[1] / "README.md"
    assert f"pip install {SOURCE}" in readme.read_text(encoding="utf-8")


def test_what_is_cut_damaged_or_foreign_is_refused_in_one_line(model, file):
    whole, out = file.read_bytes(), file.with_name("out.npy")
    start = whole.index(b"{")
    length = struct.unpack("<I", whole[start - 8 : start - 4])[0]
    header = whole[start : start + length]
    later = header.replace(b'"format": 1', b'"format": 9')
    later = struct.pack("<II", len(later), zlib.crc32(later)) + later
    cases = {
        b"": "another kind of file", b"\x93NUMPY" + bytes(90): "another kind of file",
        whole.replace(b"\r\n", b"\n", 1): "another kind of file",
        whole[:30]: "ends in its header", whole[: start + length + 20]: "its tables",
        whole[:-5]: "ends in its block 0", whole + b"\0": "goes on after",
        whole[: start - 8] + later + whole[start + length :]: re.escape(UPGRADE),
    }
    for place in (start + 3, start + length + 30, len(whole) - 9):  # a bit flips
        bad = bytearray(whole)
        bad[place] ^= 4
        cases[bytes(bad)] = "is damaged; copy it again"
    for content, message in cases.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message) as e:
            decompress(file, out, model, steps=1)
        assert "\n" not in str(e.value) and str(file) in str(e.value)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def chunk(content):
    return struct.pack("<II", len(content), zlib.crc32(content)) + content


HEADERS = {  # what a header may say if a stranger wrote it, with a checksum that fits
    "format": (None, "1", 0, -1, 1.0), "model": (None, "", 5),
    "digest": (None, 5, "another"),
    "shape": (None, [2, 64], [0, 64, 64], [2, 0, 0], [2, 60, 64], [10**12, 64, 64],
              [2, 64, 2**20], [2.5, 64, 64], [2, 128, 128], "abc"),
    "block": (None, 0, -5, 2**40, "a", 1),
    "seed": (None, -1, 2**63, "a"),
    "zone": (None, "x", "NaN", "-3", "0.0", "1e3"),
    "box": (0, -25.0, np.nan, np.inf, "25"),
}


@pytest.mark.parametrize("name", HEADERS["model"])
def test_a_file_that_nobody_could_read_is_not_written(model, tmp_path, name):
    with pytest.raises(ValueError, match=f"its header says model={name!r}"):
        compress(model, MAPS[:1], tmp_path / "out.cflow", name)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers(model, tmp_path):
    file = tmp_path / "out.cflow"
    said = compress(model, MAPS[:1], file, seed=np.int64(3), box=np.float32(50))
    assert said == read_header(file) and (said["seed"], said["box"]) == (3, 50)


@pytest.mark.parametrize("name, value", [
    (name, value) for name in HEADERS for value in HEADERS[name]])
def test_a_header_that_cannot_be_is_refused_in_one_line(model, file, name, value):
    whole, start = file.read_bytes(), len(module.MAGIC)
    length = struct.unpack("<I", whole[start : start + 4])[0]
    rest = start + 8 + length
    header = json.dumps(read_header(file) | {name: value}).encode()
    file.write_bytes(whole[:start] + chunk(header) + whole[rest:])
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: ") as e:
        decompress(file, file.with_name("out.npy"), model, steps=1)
    assert "\n" not in str(e.value)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


TABLES = {
    "no zlib": lambda raw: None,
    "too short": lambda raw: raw[:-5],
    "too long": lambda raw: raw + b"12345",
    "a bomb": lambda raw: bytes(2**24),
    "a level beyond all": lambda raw: raw[:-1] + b"\xc8",
    "a mean of NaN": lambda raw: struct.pack("<f", np.nan) + raw[4:],
    "a step beyond all": lambda raw: raw[:-130] + b"\x7f\x7f" + raw[-128:],
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_cannot_be_are_refused(codec, kind):
    raw = TABLES[kind](zlib.decompress(codec.to_bytes()))
    content = b"abc" if raw is None else zlib.compress(raw)
    with pytest.raises(ValueError, match="^they|^expected 2464 bytes"):
        Codec.from_bytes(content, codec.levels.shape)


def test_a_file_never_makes_us_download(model, file, monkeypatch):
    asked = []

    def hub(name, **how):
        asked.append((name, how["local_files_only"]))
        raise OSError("not in the cache")

    monkeypatch.setattr("cosmoflow.model.snapshot_download", hub)
    out = file.with_name("out.npy")
    compress(model, MAPS[:1], file, "hub:some/model")
    with pytest.raises(FileNotFoundError, match="'hub:some/model', which is not here"):
        decompress(file, out, steps=1)
    assert asked == [("some/model", True)]
    decompress(file, out, model, steps=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e12])
def test_a_field_without_whole_numbers_is_refused(codec, value):
    field = np.zeros((1, 8, 4, 4), np.float32)
    field[0, 3] = value
    with pytest.raises(ValueError, match="lies too far"): codec.quantise(field)


def test_a_coder_that_reads_otherwise_is_noticed(model, file, monkeypatch):
    right = module.decode_symbols
    monkeypatch.setattr(module, "decode_symbols", lambda *a: right(*a) + 1)
    with pytest.raises(ValueError, match="does not read as it was written"):
        decompress(file, file.with_name("out.npy"), model)


def test_other_weights_are_refused(file):
    other = CosmoFlow.from_pretrained("mini-scales", "cpu")
    with torch.no_grad(): next(other.parameters())[0] += 1e-3
    with pytest.raises(ValueError, match="needs the model 'mini-scales' with digest"):
        decompress(file, file.with_name("out.npy"), other)


def test_a_file_is_not_replaced_by_its_own_maps(model, file, tmp_path):
    "Nor through a link to it."
    whole, link = file.read_bytes(), tmp_path / "link.npy"
    link.symlink_to(file)
    for out in (file, link):
        with pytest.raises(ValueError, match=f"{out.name}: expected another name"):
            decompress(file, out, model, steps=1)
    assert file.read_bytes() == whole and link.is_symlink()


@pytest.mark.parametrize("read", [
    lambda path: np.load(path, mmap_mode="r"),
    lambda path: np.load(path, mmap_mode="r")[:1],
    lambda path: np.asarray(np.load(path, mmap_mode="r"))[1:],
    lambda path: MapView(np.load(path, mmap_mode="r"), [1])])
def test_maps_are_not_replaced_by_their_own_file(model, tmp_path, monkeypatch, read):
    "Nor through a link to it, whichever part of them is read."
    monkeypatch.chdir(tmp_path)
    path, link, twin = (tmp_path / f"{name}.npy" for name in ("maps", "link", "twin"))
    np.save(path, MAPS[:2])
    link.symlink_to(path)
    twin.hardlink_to(path)
    whole, maps = path.read_bytes(), read("maps.npy")
    for out in (path, link, twin, "maps.npy"):
        with pytest.raises(ValueError, match=f"{Path(out).name}: expected another nam"):
            compress(model, maps, out)
    assert path.read_bytes() == whole and link.is_symlink()
    compress(model, maps, "other.cflow")
    assert read_header("other.cflow")["shape"] == [len(maps), 64, 64]


def test_only_one_block_is_in_memory(model, tmp_path, monkeypatch):
    "Each stack that is encoded or decoded is a block; the file itself stays mapped."
    np.save(tmp_path / "maps.npy", np.tile(MAPS[:1], (600, 1, 1)))
    mapped, seen = np.load(tmp_path / "maps.npy", mmap_mode="r"), []

    def encode(maps, check):
        seen.append(len(maps))
        assert type(maps) is torch.Tensor
        return torch.zeros(len(maps), 8, 4, 4)

    def decode(field, **_):
        seen.append(len(field))
        return torch.ones(len(field), 64, 64)

    monkeypatch.setattr(model, "encode", encode)
    monkeypatch.setattr(model, "decode", decode)
    compress(model, mapped, tmp_path / "maps.cflow")
    decompress(tmp_path / "maps.cflow", tmp_path / "out.npy", model)
    assert seen == [256, 256, 88] * 2
    assert np.load(tmp_path / "out.npy").shape == (600, 64, 64)


def test_maps_of_another_size_bring_their_own_prior_if_they_are_enough():
    tiny = untrained("tiny", torch.device("cpu"))
    maps = np.tile(MAPS[:, :32, :32], (50, 1, 1))
    assert make_codec(tiny, maps).levels.shape == (2, 2, 8)
    with pytest.raises(ValueError, match="6 are too few .* give 256 or more"):
        make_codec(tiny, maps[:6])


CANNOT_BE = {  # an argument of `compress`, and what is said
    "step": (0, "step=0"), "tilt": (2.0, "tilt=2.0"), "means": (math.nan, "means=nan"),
    "zone": ("x", "zone='x'"), "box": (-1.0, "box=-1.0"), "seed": (-1, "seed=-1"),
    "name": ("", "model=''"), "maps": (MAPS[:, :60, :60], "multiples of 16"),
    "out": ("folder", "folder: expected a file, but it is a folder"),
}


@pytest.mark.parametrize("name", CANNOT_BE)
def test_what_cannot_be_is_refused_before_a_prior_is_measured(
        model, tmp_path, monkeypatch, name):
    def measured(*_, **__): raise AssertionError("measured")
    monkeypatch.setattr(module, "make_codec", measured)
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    value, message = CANNOT_BE[name]
    with pytest.raises((ValueError, OSError), match=message):
        compress(**{"model": model, "maps": MAPS, "out": "new/a.cflow"} | {name: value})
    assert os.listdir() == ["folder"]


@pytest.mark.parametrize("given", (
    {"seed": -1}, {"box": -1.0}, {"step": 0.22}, {"tilt": 0.1, "means": 0.2},
    {"zone": "0.6"}, {"rotate": False}))
def test_a_codec_of_your_own_leaves_the_rest_to_be_checked(
        model, codec, tmp_path, given):
    "And what it has itself is not to be given once more: it would have no effect."
    said = ", ".join(given)
    if said not in ("seed", "box"): said += ": expected none beside codec="
    with pytest.raises(ValueError, match=said):
        compress(model, MAPS, tmp_path / "a.cflow", codec=codec, **given)
    assert not os.listdir(tmp_path)


NO_FILE = {  # what lies where a file is to be written, and what is said
    "folder": (Path.mkdir, "expected a file, but it is a folder"),
    "pipe": (os.mkfifo, "expected a file, but it is a pipe or a device"),
    "link to a folder": (lambda path: path.symlink_to("."), "but it is a folder"),
    "below a file": (lambda path: path.parent.rmdir() or path.parent.touch(),
                     "is a file; choose another"),
}


@pytest.mark.parametrize("what", NO_FILE)
def test_where_no_file_can_be_is_said_before_any_work(
        model, file, tmp_path, monkeypatch, what):
    def worked(*_, **__): raise AssertionError("worked")
    for name in ("make_codec", "check_options", "weights_digest", "from_symbols"):
        monkeypatch.setattr(module, name, worked)
    out = tmp_path / "folder" / "out"
    out.parent.mkdir()
    make, message = NO_FILE[what]
    make(out)
    for call in (lambda: compress(model, MAPS, out), lambda: decompress(file, out)):
        with pytest.raises(OSError, match=message): call()
    with pytest.raises(FileNotFoundError, match="none.cflow"):
        decompress(tmp_path / "none.cflow", tmp_path / "maps.npy")
    assert sorted(os.listdir(tmp_path)) == ["folder", "maps.cflow"]


TO_THE_END = {  # what became of a file of many blocks, and what is said
    "cut": (lambda whole: whole[:-5], "ends in its block 5"),
    "flipped": (lambda whole: whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:],
                "its block 5 is damaged"),
    "longer": (lambda whole: whole + b"0", "goes on after its last block"),
}


@pytest.mark.parametrize("what", TO_THE_END)
def test_nothing_is_drawn_before_the_whole_file_was_looked_at(
        model, tmp_path, monkeypatch, what):
    def drawn(*_, **__): raise AssertionError("drawn")
    monkeypatch.setattr(module, "maps_at_once", lambda *_, **__: 1)
    path = tmp_path / "maps.cflow"
    compress(model, MAPS, path)
    damage, message = TO_THE_END[what]
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(module, "_block", drawn)
    with pytest.raises(ValueError, match=message):
        decompress(path, tmp_path / "new" / "maps.npy", model)
    assert os.listdir(tmp_path) == [path.name]


def test_without_the_library_the_extra_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ImportError, match=r'pip install "cosmoflow\[compress\]"'):
        compress(model, MAPS[:1], tmp_path / "a.cflow")
    assert not list(tmp_path.iterdir())


def test_noise_costs_and_errs_as_rounding_does(model, codec):
    "The relaxation stands for the code: the same bits, and a step's error or less."
    field = model.encode(open_maps("PM", "LH").maps[::20])
    noisy, bits = Noise(model.prior, False)(field, torch.Generator().manual_seed(0))
    symbols = codec.quantise(field)
    assert bits.mean().item() == pytest.approx(codec.bits(symbols).mean(), rel=0.03)
    error = lambda other: (other - field).square().mean().item()
    assert error(noisy) == pytest.approx(error(codec.restore(symbols)), rel=0.15)
    assert torch.isfinite(noisy).all() and noisy.shape == field.shape


def test_a_dear_bit_makes_longer_steps_and_a_free_one_shorter(model):
    data = open_maps("PM", "LH", sims=slice(0, 10))
    ends = {}
    for price in (0.0, 10.0):
        learner = RateLearner(model, data, price=price, epochs=1, batch_size=50,
                              lr=1e-3, ema=0.9, step=0.5, tilt=0.1, means=0.25)
        generator = torch.Generator().manual_seed(0)
        for i in range(3):
            batch = draw_batch(learner.maps, torch.arange(4), generator)
            learner.step(i, batch, generator)
        ends[price] = learner.noise.known()
        encoders = (m.encoder.state_dict() for m in (model, learner.average))
        assert all(map(torch.equal, *(e.values() for e in encoders)))
    assert ends[0.0]["step"] < 0.5 < ends[10.0]["step"]


def test_training_for_rate_stops_and_goes_on_to_the_same_end(tmp_path, monkeypatch):
    model = untrained("tiny", torch.device("cpu"))
    data = open_maps("PM", "LH", sims=slice(0, 10), pixels=16)
    with pytest.raises(ValueError, match="no prior of fields"):
        train_for_rate(model, data, tmp_path / "none")
    model.fit_prior(MAPS)
    with pytest.raises(ValueError, match="noise is for .4, 4. cells, found .1, 1."):
        train_for_rate(model, data, tmp_path / "none")
    for wrong in ({"price": -1.0}, {"price": "x"}, {"lr": float("nan")}, {"ema": 1.5},
                  {"epochs": 0}, {"batch_size": 0}, {"tilt": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            train_for_rate(model, data, tmp_path / "none", **wrong)
    model.fit_prior(data.maps)
    teach = lambda out, **k: train_for_rate(model, data, tmp_path / out, batch_size=60,
                                            epochs=2, **k)
    whole, options = teach("whole")
    step = RateLearner.step

    def stop(self, number, *rest):
        if number == 3: raise KeyboardInterrupt
        return step(self, number, *rest)

    monkeypatch.setattr(RateLearner, "step", stop)
    with pytest.raises(KeyboardInterrupt): teach("parts")
    monkeypatch.setattr(RateLearner, "step", step)
    again, known = teach("parts")
    assert known == options != {"step": 0.22, "tilt": 0.0, "means": 0.25}
    for a, b in zip(whole.state_dict().values(), again.state_dict().values()):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="price"): teach("parts", price=2.0)
    next(model.unet.parameters()).data.add_(1.0)
    with pytest.raises(ValueError, match="init weights is"): teach("parts")


def test_the_log_of_a_training_for_rate_tells_the_bits_of_a_map(tmp_path, monkeypatch):
    model = untrained("tiny", torch.device("cpu"))
    data = open_maps("PM", "LH", sims=slice(0, 10), pixels=16)
    model.fit_prior(data.maps)
    bits, forward = [], Noise.forward

    def counted(self, *given):
        found = forward(self, *given)
        bits.append(found[1].mean().item())
        return found

    monkeypatch.setattr(Noise, "forward", counted)
    train_for_rate(model, data, tmp_path, batch_size=40, epochs=2)
    with (tmp_path / "log.csv").open(encoding="utf-8") as f:
        told = [float(row["bits"]) for row in csv.DictReader(f)]
    assert told == pytest.approx([np.mean(bits[:3]), np.mean(bits[3:])], rel=1e-5)
    assert min(told) > 1


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("waves", (False, True))
def test_what_the_caller_set_changes_no_training_for_rate(waves, around, tmp_path):
    model = CosmoFlow.from_preset("tiny", Normalizer(11.0, 0.5, 1e8), waves=waves)
    data = open_maps("PM", "LH", sims=slice(0, 10), pixels=16)
    model.fit_prior(data.maps)
    teach = lambda out: train_for_rate(model, data, tmp_path / out, batch_size=60,
                                       epochs=1)
    plain, options = teach("plain")
    with AROUND[around](): found, known = teach("around")
    assert known == options
    for a, b in zip(found.state_dict().values(), plain.state_dict().values()):
        torch.testing.assert_close(a, b)


def test_maps_in_other_units_are_taken_where_asked(model, tmp_path):
    "A size that the prior does not know is measured on the maps, as they are."
    maps = 1e10 * np.tile(MAPS[:4, :32, :32], (64, 1, 1))
    with pytest.raises(ValueError, match="check=False"):
        compress(model, maps, tmp_path / "maps.cflow")
    header = compress(model, maps, tmp_path / "maps.cflow", check=False)
    assert header["shape"] == [256, 32, 32]

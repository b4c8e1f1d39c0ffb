"""Memory does not grow with the number of maps, in any function that takes a stack of
maps, nor on the way from a file to an evaluation.

With 15,000 maps of CMD's size, step by step and against a limit of 1 GiB (minutes, and
4 GB on a disk without sparse files): python tests/test_memory.py FOLDER
"""
import ctypes
import gc
import inspect
import json
import os
import subprocess
import sys
from functools import partial, partialmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import numpy as np
import pytest
import torch
from test_door import DOORS, NORM, asks, detector, numbers, posterior
from torch import nn

from cosmoflow import CosmoFlow, evaluate
from cosmoflow.codec import Codec
from cosmoflow.compress import compress, decompress
from cosmoflow.core import MAPS_PER_SIMULATION, Fields, Maps, MapView
from cosmoflow.data import MapData, Normalizer, map_path, open_maps, param_path
from cosmoflow.inference import Scaler, fit_mlp, fit_regressor
from cosmoflow.model import field_prior
from cosmoflow.vae import VAE

MIB = 1 << 20
SIDE = 256              # of a map, which then has a quarter of a MiB
STACKS = 60, 120        # maps for a function: two sizes, 15 MiB apart
FILES = 150, 225        # maps for the chain: its test parts are 30 apart
ALLOWED = 9 * MIB       # growth from the smaller to the larger, beside the results
DRAWS_ALL = "show_maps"  # what it is given is for the eye
# The system gets back at once what is free.
ALONE = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(MIB // 4),
         "MALLOC_TRIM_THRESHOLD_": str(MIB // 4)}

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"),
                                reason="memory is read where Linux tells it")


def peaks(*args):
    "What this file prints as a program, in a process of its own."
    line = [sys.executable, __file__, *map(str, args)]
    done = subprocess.run(line, env=os.environ | ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def too_much(small, large):
    "MiB by which a call grows with the number of maps, where its results do not."
    found = {}
    for name, (peak, given) in large.items():
        grown = peak - small[name][0]
        more = given - small[name][1]  # a result may be joined from parts, and copied
        if grown > ALLOWED + 3.5 * more: found[name] = round(grown / MIB)
    return found


def highest(*runs):
    "The highest peak of each call in several runs: a watcher may miss one."
    return {name: max(run[name] for run in runs) for name in runs[0]}


def measured(known, *args):
    """What grows too much, from at most three runs: on a busy machine the peak of the
    smaller stack may be missed, and the larger one seems to grow."""
    runs = []
    for _ in range(3):
        runs.append(peaks(*args))
        small, large = (highest(*sizes) for sizes in zip(*runs))
        assert known(large), large
        found = too_much(small, large)
        if not found: break
    return found


def test_no_function_holds_all_the_maps_that_it_is_given():
    assert not measured(lambda large: len(large) > 20, "functions")


def test_the_chain_does_not_hold_its_file(tmp_path):
    assert not measured(lambda large: len(large) == 8, "chain", tmp_path)


def test_a_decoding_holds_its_maps_once():
    "Noise of all maps, a list of parts and their sum took more than three times that."
    for name, (grown, given) in peaks("decoding").items():
        assert given > 4 * ALLOWED and grown < 1.2 * given + ALLOWED, (name, grown)


# The program: what each call adds to the memory in use at its peak, and the bytes of
# what it gives back.
def anonymous():
    "Bytes that no file stands for: the system may drop pages of a memory map."
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def give_back():
    "Gives the system what earlier calls left: a call that finds room hides its own."
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim: trim(0)


def peak(call):
    "Bytes that a call adds, looked at every two milliseconds, and those of its arrays."
    give_back()
    before, seen, done = anonymous(), [], Event()

    def watch():
        while not done.wait(0.002): seen.append(anonymous())

    watcher = Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    return max(seen, default=before) - before, sum(n.nbytes for n in numbers(result))


class Mean(nn.Module):
    "An encoder that needs no memory."
    def forward(self, x): return nn.functional.avg_pool2d(x, 16).expand(-1, 2, -1, -1)


class Still(nn.Module):
    "A flow that stands still."
    def forward(self, x, t, field): return torch.zeros_like(x)


def stub(normalizer):
    "A model whose networks need no memory."
    model = CosmoFlow.from_preset("tiny", normalizer, channels=2, steps=1)
    model.weight = nn.Parameter(torch.zeros(1))  # tells device and precision
    model.encoder, model.unet = Mean(), Still()
    return model


def stub_vae(side):
    "A VAE whose networks need no memory."
    vae = VAE(NORM, pixels=16, width=8)
    vae.config["pixels"] = side
    vae.encoder, vae.mean = nn.AvgPool2d(16), nn.Identity()
    vae.decoder = nn.Upsample(scale_factor=16)
    return vae


def functions(n, side=SIDE):
    "The peak of every public function that takes maps, each given `n` of them."
    rng = np.random.default_rng(0)
    one = (10 ** (11 + 0.3 * rng.standard_normal((2, side, side)))).astype(np.float32)
    field = rng.standard_normal((2, side // 16, side // 16)).astype(np.float32)
    # Such a stack takes no memory, but every copy of it does.
    many = lambda a: np.broadcast_to(a, (n, *a.shape))
    maps, other = (MapView(many(m), slice(None)) for m in one)
    x, field = many(np.zeros((1, side, side), np.float32)), many(field)
    prior = field_prior(field[:2])
    codec = Codec.from_prior(field_prior(stub(NORM).encode(one)))
    out = TemporaryDirectory()
    model = stub(NORM)
    model.prior = prior
    models = {"VAE": stub_vae(side), "Normalizer": NORM, "Codec": codec,
              "Detector": detector(stub(NORM), side, channels=2)}
    found = {}
    for path, function in {path: function for function, path, _ in DOORS}.items():
        if path == DRAWS_ALL: continue
        takes, given = inspect.signature(function).parameters, {}
        for name, parameter in takes.items():
            if not asks(parameter): continue
            stack = other if given else maps
            if parameter.annotation is Fields: stack = x
            if name in ("field", "kept"): stack = field
            several = parameter.annotation == dict[str, Maps]
            given[name] = {name: stack} if several else stack
        known = {"self": models.get(path.split(".")[0], stub(NORM)),
                 "model": model, "pixels": side // 4, "prior": prior,
                 "codec": codec, "out": Path(out.name) / "out",
                 "posterior": posterior(side, 2)}
        given |= {name: value for name, value in known.items() if name in takes}
        noise = {"seed": 0, "steps": 1}
        given |= {k: v for k, v in noise.items() if {k, "kwargs"} & set(takes)}
        found[path] = peak(partial(work, function, given))
    return found


def decoding(n):
    "The peak of a decoding into `n` maps, and into fewer with their way there."
    model = stub(NORM)
    field = lambda m: torch.zeros(m, 2, SIDE // 16, SIDE // 16)
    calls = {"maps": partial(model.decode, field(n), seed=0),
             "samples": partial(model.decode, field(n // 4), seed=0, samples=4),
             "trajectory": partial(model.decode, field(n // 2), trajectory=True)}
    return {name: peak(call) for name, call in calls.items()}


def work(function, given):
    "What a function gives; of a generator, the sizes of its parts."
    found = function(**given)
    return [len(part) for part in found] if inspect.isgenerator(found) else found


def sparse(n, folder):
    "A file of CMD's kind, with one page of values in each map."
    rng, file = np.random.default_rng(0), map_path(folder, "Astrid", "LH")
    shape = n, SIDE, SIDE
    maps = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    for i in range(n): maps[i, :4] = 10 ** (12 + 0.3 * rng.standard_normal((4, SIDE)))
    params = rng.uniform(0.1, 0.5, (n // MAPS_PER_SIMULATION, 6))
    np.savetxt(param_path(folder, "Astrid", "LH"), params)


def small(x, y, x_val, y_val, seed):
    "Instead of the network on raw maps: a mean, learned from in the same way."
    net = nn.Sequential(nn.AvgPool2d(SIDE), nn.Flatten(), nn.Linear(1, 2))
    return fit_regressor(net, x, y, x_val, y_val, Scaler.none(y), 1, 1e-3, 0.01,
                         batch_size=15, seed=seed)


def chain(n, folder):
    "The peak of each step from a sparse file to an evaluation, and to a short file."
    sparse(n, folder)
    found = {}

    def step(name, call):
        kept = []
        found[name] = peak(lambda: kept.append(call()))
        return kept[0]

    few = partial(fit_mlp, epochs=1)
    evaluate.fit_mlp, evaluate.fit_cnn = few, small
    data = step("open_maps", lambda: open_maps("Astrid", "LH", folder))
    train, val, _ = data.split()
    norm = step("Normalizer.fit", lambda: Normalizer.fit(train.maps))
    model, parts = stub(norm), (train, val)
    y, y_val = (torch.from_numpy(part.targets[:, :2]).float() for part in parts)
    x, x_val = step("summarise", lambda: [model.summarise(p.maps) for p in parts])
    step("fit_mlp", lambda: few(x, y, x_val, y_val))
    step("evaluate", lambda: evaluate.evaluate(model, data, steps=1))
    step("fit_prior", lambda: model.fit_prior(train.maps))
    short, again = folder / "maps.cflow", folder / "again.npy"
    step("compress", lambda: compress(model, data.maps, short))
    step("decompress", lambda: decompress(short, again, model))
    assert np.load(again, mmap_mode="r").shape == data.maps.shape
    return found


def short_chain(folder):
    "The chain at two sizes, with test parts that are larger than what is kept of them."
    evaluate.KEPT_PIXELS = MAPS_PER_SIMULATION * SIDE**2
    MapData.split = partialmethod(MapData.split, (0.4, 0.2, 0.4))
    chain(75, folder)  # loads libraries
    return [chain(n, folder) for n in FILES]


def long_chain(folder):
    "The chain with as many maps as CMD has."
    found = chain(15_000, folder)
    for name, (grown, _) in found.items(): print(f"{name:15} {grown / MIB:6.0f} MiB")
    assert max(grown for grown, _ in found.values()) < 1024 * MIB


if __name__ == "__main__":
    what, *folder = sys.argv[1:]
    if what == "functions":
        functions(15, 64)  # loads libraries
        print(json.dumps([functions(n) for n in STACKS]))
    elif what == "decoding":
        decoding(8)
        print(json.dumps(decoding(160)))
    elif what == "chain": print(json.dumps(short_chain(*map(Path, folder))))
    else: long_chain(Path(what))

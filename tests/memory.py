"""Memory (`pytest tests/memory.py`, two minutes; not part of the suite): no function that takes a stack of maps holds more than a piece of it, beside what it gives back; nor does the chain from a file to an evaluation."""
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest

MIB = 1 << 20
SIDE, MAPS = 256, 405  # 101 MiB in single precision
ALLOWED = 90 * MIB     # for the pieces at work, whatever comes in
DRAWS_ALL = {"show_maps"}
CHAIN = ("open_maps", "Normalizer.fit", "summarise", "fit_regressor", "evaluate", "fit_prior")

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read where Linux tells it")


def measured(*args):
    "Runs this file as a program, in a process of its own, and reads what it prints."
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, *map(str, args)], env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def growth(): return measured("doors")


def paths():
    from test_door import DOORS
    return list(dict.fromkeys(path for _, path, _ in DOORS if path not in DRAWS_ALL))


@pytest.mark.parametrize("path", paths())
def test_a_function_works_in_pieces(path, growth):
    grown, given = growth[path]
    assert grown < ALLOWED + 3.5 * given, f"{grown / MIB:.0f} MiB for {SIDE**2 * MAPS * 4 / MIB:.0f} MiB of maps and a result of {given / MIB:.0f}"


@pytest.fixture(scope="module")
def chain(tmp_path_factory): return measured("chain", 1200, tmp_path_factory.mktemp("CMD"))


@pytest.mark.parametrize("step", CHAIN)
def test_the_chain_does_not_hold_its_file(step, chain):
    grown, _ = chain[step]
    assert grown < 290 * MIB, f"{grown / MIB:.0f} MiB for a file of 300"  # the maps that are kept for a figure, and a batch of training


# The program: what each call adds to the memory in use, at its peak, and the size of what it gives back.
def anonymous():
    "Bytes of this process that no file stands for: pages of a memory map are the system's to drop."
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def peak(call):
    "Bytes that a call adds at its peak, seen every two milliseconds, and those of the arrays that it returns."
    from test_door import numbers
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


def stub(model):
    "The model with networks that need no memory: a mean, and a flow that stands still."
    import torch
    from torch import nn

    class Mean(nn.Module):
        def forward(self, x): return torch.nn.functional.avg_pool2d(x, 16).expand(-1, 2, -1, -1)

    class Still(nn.Module):
        def forward(self, x, t, field): return torch.zeros_like(x)

    model.weight = nn.Parameter(torch.zeros(1))  # tells device and precision
    model.encoder, model.unet = Mean(), Still()
    return model


def doors(n):
    "Every public function that takes maps, each given more of them than it may hold."
    import inspect

    import numpy as np
    import torch
    from test_door import DOORS, NORM, asks

    from cosmoflow import CosmoFlow
    from cosmoflow.core import Fields, Maps, MapView
    from cosmoflow.vae import VAE

    one = (10 ** (11 + 0.3 * np.random.default_rng(0).standard_normal((2, SIDE, SIDE)))).astype(np.float32)
    many = lambda a: np.broadcast_to(a, (n, *a.shape))  # no memory, but every copy takes it
    maps, other = (MapView(many(m), slice(None)) for m in one)
    x, field = many(np.zeros((1, SIDE, SIDE), np.float32)), many(one[0, :2, :SIDE].reshape(2, 16, 16) / 1e11)
    model = stub(CosmoFlow.from_preset("tiny", NORM, channels=2))
    vae = VAE(NORM, pixels=16, width=8)
    vae.config["pixels"] = SIDE
    vae.encoder, vae.mean = torch.nn.AvgPool2d(16), torch.nn.Identity()
    vae.decoder = torch.nn.Upsample(scale_factor=16)
    found = {}
    for path, function in {path: function for function, path, _ in DOORS if path not in DRAWS_ALL}.items():
        takes, given = inspect.signature(function).parameters, {}
        for name, parameter in takes.items():
            if not asks(parameter): continue
            stack = field if name == "field" else x if parameter.annotation is Fields else other if given else maps
            given[name] = {name: stack} if parameter.annotation == dict[str, Maps] else stack
        if "self" in takes: given["self"] = {"VAE": vae, "Normalizer": NORM}.get(path.split(".")[0], model)
        if "model" in takes: given["model"] = model
        if "pixels" in takes: given["pixels"] = 64
        given |= {noise: value for noise, value in {"seed": 0, "steps": 1}.items() if {noise, "kwargs"} & set(takes)}
        consume = lambda: [len(part) for part in function(**given)] if inspect.isgeneratorfunction(function) else function(**given)
        found[path] = peak(consume)
    return found


def chain_of(n, folder):
    "From a sparse file of CMD's kind, one page of values in each map, to an evaluation."
    import numpy as np
    import torch
    from torch import nn

    from cosmoflow import CosmoFlow, evaluate
    from cosmoflow.data import Normalizer, map_path, open_maps, param_path
    from cosmoflow.inference import Scaler, fit_mlp, fit_regressor

    folder, rng = Path(folder), np.random.default_rng(0)
    file = np.lib.format.open_memmap(map_path(folder, "Astrid", "LH"), "w+", np.float32, (n, SIDE, SIDE))
    for i in range(n): file[i, :4] = 10 ** (12 + 0.3 * rng.standard_normal((4, SIDE)))
    del file
    np.savetxt(param_path(folder, "Astrid", "LH"), rng.uniform(0.1, 0.5, (n // 15, 6)))
    found = {}

    def step(name, call):
        kept = []
        found[name] = peak(lambda: kept.append(call()))
        return kept[0]

    data = step("open_maps", lambda: open_maps("Astrid", "LH", folder))
    train, val, _ = data.split()
    norm = step("Normalizer.fit", lambda: Normalizer.fit(train.maps))
    model = stub(CosmoFlow.from_preset("tiny", norm, channels=2))
    y, y_val = (torch.from_numpy(part.targets[:, :2]).float() for part in (train, val))
    x, x_val = step("summarise", lambda: [model.summarise(part.maps) for part in (train, val)])
    few = partial(fit_mlp, epochs=1)
    step("fit_regressor", lambda: few(x, y, x_val, y_val))

    def small(x, y, x_val, y_val, seed):
        net = nn.Sequential(nn.AvgPool2d(SIDE), nn.Flatten(), nn.Linear(1, 2))
        return fit_regressor(net, x, y, x_val, y_val, Scaler.none(y), 1, 1e-3, 0.01, seed=seed)

    evaluate.fit_mlp, evaluate.fit_cnn = few, small  # so that the networks need neither time nor memory
    step("evaluate", lambda: evaluate.evaluate(model, data, steps=1))
    step("fit_prior", lambda: model.fit_prior(train.maps))
    return found


if __name__ == "__main__":
    what, *args = sys.argv[1:]
    for n in (15, MAPS) if what == "doors" else (150, int(args[0])):  # the first time loads libraries
        found = doors(n) if what == "doors" else chain_of(n, args[1])
    print(json.dumps(found))

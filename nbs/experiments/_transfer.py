"""What a model learnt on one suite, measured on another: the lab report's runs.

Two folders of CMD files, a model, and how many universes of the second suite may be
used. Each run leaves one JSON file, and the same command goes on where it stopped:

    python nbs/experiments/_transfer.py --first PM LH build/training \
        --second JaxPM LH build/jaxpm --out build/transfer

Two CAMELS suites, and a model that was trained on the first of them:

    python nbs/experiments/_transfer.py --first SIMBA LH CMD --second Astrid LH CMD \
        --model runs/simba --large runs/simba --pixels 64 --out runs/transfer
"""
import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cosmoflow import CosmoFlow
from cosmoflow.core import atomic_path, write_json
from cosmoflow.data import MapData, augment, open_maps
from cosmoflow.encoder import summary
from cosmoflow.evaluate import compare
from cosmoflow.inference import (Regressor, fit_cnn, fit_mlp, relative_error,
                                 spectrum_features)
from cosmoflow.train import (TRAIN_PRESETS, MapLoader, TrainConfig, best_precision,
                             fast_bf16, lr_factor, sibling_loss, train)

TEST, STRIDE = 20, 13  # universes that no run sees; from one seed's choice to the next
FEWEST = 8             # universes that `train` splits in three


def chosen(n: int, seed: int, pool: int) -> list[int]:
    "Which n universes a run may use. The last fifth of them are for validation."
    return (TEST + (STRIDE * seed + np.arange(n)) % pool).tolist()


def halves(n: int) -> tuple[slice, slice]:
    "Of n universes, those to learn from and those that decide when to stop."
    learn = n - max(1, n // 5)
    return slice(0, learn), slice(learn, n)


def targets(part: MapData) -> Tensor:
    "Omega_m and sigma_8 of each map, (n, 2)."
    return torch.from_numpy(part.targets[:, :2]).float()


def errors(predicted: Tensor, part: MapData) -> dict[str, Any]:
    "Relative errors of both parameters: mean, its error, and those of each universe."
    each, true = part.maps_per_simulation, targets(part)
    found = relative_error(predicted, true, each)
    by_sim = ((predicted - true).abs() / true).reshape(-1, each, 2).mean(1)
    return {"mean": found.mean.tolist(), "error": found.standard_error.tolist(),
            "by_simulation": by_sim.T.tolist()}


def reader(x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, seed: int) -> Regressor:
    "A small network that reads the parameters off a few numbers; some 800 steps."
    epochs = max(40, 800 * 64 // max(64, len(x)))
    return fit_mlp(x, y, x_val, y_val, hidden=128, epochs=epochs, lr=1e-3,
                   weight_decay=1e-4, seed=seed)


def corrected(old: Regressor, x: Tensor, y: Tensor, x_new: Tensor) -> Tensor:
    "What an old reader says, moved and stretched so that it fits a few new universes."
    with_one = lambda x: torch.column_stack([old.predict(x), torch.ones(len(x))])
    fit = torch.linalg.lstsq(with_one(x), y).solution
    return with_one(x_new) @ fit


def by_siblings(model: CosmoFlow, part: MapData, seen: int, lr: float, seed: int,
                fresh: bool) -> None:
    "Teaches the encoder alone: of two maps each of some universes, which belong?"
    each, n = part.maps_per_simulation, part.n_sims
    generator = torch.Generator().manual_seed(seed)
    loader = MapLoader(part, model.normalizer, model.device)
    bf16, pairs = fast_bf16(model.device), min(32, n)
    adamw = torch.optim.AdamW(model.encoder.parameters(), lr=lr, fused=True)
    steps = max(1, seen // (2 * pairs))
    for step in range(steps):
        # BatchNorm's statistics rest: in a trained model, and in the second half
        model.encoder.train(fresh and step < steps / 2)
        adamw.param_groups[0]["lr"] = lr * lr_factor(step, steps)
        sims = torch.randperm(n, generator=generator)[:pairs]
        two = torch.rand(pairs, each, generator=generator).argsort(1)[:, :2]
        maps = augment(loader((each * sims[:, None] + two).flatten()), generator)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            field = model.encoder(maps)
        loss = sibling_loss(summary(field.float()))
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.encoder.parameters(), 1.0)
        adamw.step()
    model.eval()


def by_statistics(model: CosmoFlow, part: MapData, seed: int) -> None:
    "No weight moves: BatchNorm counts means and variances of the new maps, no more."
    generator = torch.Generator().manual_seed(seed)
    loader = MapLoader(part, model.normalizer, model.device)
    model.encoder.train()
    with torch.no_grad():
        for _ in range(40):  # the old statistics are left with a share of 0.9^40
            which = torch.randint(len(part), (32,), generator=generator)
            model.encoder(augment(loader(which), generator))
    model.eval()


def by_flow(model: CosmoFlow, part: MapData, seen: int, out: Path, fresh: bool,
            seed: int) -> CosmoFlow:
    "What `cosmoflow train --init` does, for so many maps: both losses, all weights."
    steps = max(1, int(0.8 * part.n_sims) * 14 // 32)
    epochs = max(1, round(seen / (32 * steps)))
    changes: dict[str, Any] = dict(epochs=epochs, check_every=epochs, seed=seed,
                                   precision="auto")
    if not fresh: changes |= dict(lr=5e-4, norm_epochs=0.0)
    return train(model, part, out, TrainConfig(**TRAIN_PRESETS["mini"] | changes),
                 resume=True)


class Study:
    "The two suites, the model of the first, and what was seen so far."
    def __init__(self, given: argparse.Namespace):
        self.given, self.out = given, given.out
        opened = lambda suite, set, root: open_maps(
            suite, set, None if root == "-" else root, pixels=given.pixels)
        self.first, self.second = opened(*given.first), opened(*given.second)
        self.test = self.second.simulations(list(range(TEST)))
        self.parts = self.first.split()
        self.models = {"mini": given.model, "base": given.large}
        self.old: dict[str, Regressor] = {}

    def load(self, name: str) -> CosmoFlow:
        return CosmoFlow.from_pretrained(self.models[name], "cpu")

    def see(self, name: str, part: MapData, key: str = "") -> Tensor:
        "Summaries of a part by a model, or its spectra; kept on disk under a key."
        weights = str(self.models.get(name, name)).replace("/", "-")
        path = self.out / "seen" / f"{name}_{weights}_{key}_{len(part)}.npy"
        if not path.exists():
            model = None if name == "spectrum" else self.load(name)
            seen = (spectrum_features(part.maps, part.box) if model is None
                    else model.summarise(part.maps))
            with atomic_path(path) as tmp: np.save(tmp, seen.numpy())
        return torch.from_numpy(np.load(path))

    def old_reader(self, name: str) -> Regressor:
        "The reader of the first suite: it learned from that suite alone."
        if name not in self.old:
            learn, val, _ = (self.thin(part) for part in self.parts)
            self.old[name] = reader(self.see(name, learn, "learn"), targets(learn),
                                    self.see(name, val, "val"), targets(val), 0)
        return self.old[name]

    def part(self, n: int, seed: int) -> MapData:
        "The n universes of the second suite that a run may use."
        return self.second.simulations(chosen(n, seed, self.given.pool))

    def thin(self, part: MapData) -> MapData:
        "Three of fifteen maps of each universe, one along each axis."
        return part.simulations(maps=slice(None, None, 5))

    def read(self, see: Any, n: int, seed: int, old: Regressor | None) -> dict:
        "Errors on the second suite, of whatever a function sees of a part."
        part = self.part(n, seed)
        x, y, x_test = see(part), targets(part), see(self.test)
        each = part.maps_per_simulation
        learn, val = (slice(each * s.start, each * s.stop) for s in halves(n))
        new = reader(x[learn], y[learn], x[val], y[val], seed)
        found = {"new": errors(new.predict(x_test), self.test)}
        if old is not None:
            found["kept"] = errors(old.predict(x_test), self.test)
            found["corrected"] = errors(corrected(old, x, y, x_test), self.test)
        return found

    def forgotten(self, model: CosmoFlow, old: Regressor) -> dict:
        "Errors on the first suite's held-out maps, with its old reader and a new one."
        parts = [self.thin(part) for part in self.parts]
        seen = [model.summarise(part.maps) for part in parts]
        new = reader(seen[0], targets(parts[0]), seen[1], targets(parts[1]), 0)
        return {name: errors(r.predict(seen[2]), parts[2])
                for name, r in (("kept", old), ("new", new))}

    def drawn(self, model: CosmoFlow) -> dict:
        "How well one map of each universe comes back, of both suites."
        found = {}
        for name, part in (("second", self.test), ("first", self.parts[2])):
            true = torch.from_numpy(part.maps[::part.maps_per_simulation])
            made = compare(true, model.reconstruct(true, seed=0, steps=4), part.box, 1)
            worst = made.worst_bin()
            found[name] = {"r": made.r[:4].tolist(), "pdf": made.pdf,
                           "r_error": made.r_error[:4].tolist(),
                           "worst": float(made.ratio[worst]),
                           "worst_error": float(made.ratio_error[worst]),
                           "pdf_error": made.pdf_error}
        return found

    def run(self, kind: str, start: str, n: int, seed: int) -> dict:
        "One run, by its kind, what it starts from, and the universes that it may use."
        seen = self.given.seen * (2 if start == "scratch" else 1)
        part = self.part(n, seed) if n else self.test
        if kind == "zero":
            old, x = self.old_reader(start), self.see(start, self.test, "test")
            home = self.thin(self.parts[2])
            there = errors(old.predict(self.see(start, home, "home")), home)
            found: dict = {"kept": errors(old.predict(x), self.test), "first": there}
            if start == "mini": found["drawn"] = self.drawn(self.load(start))
            return found
        if kind == "probe":
            key = lambda part: "test" if part is self.test else f"{n}_{seed}"
            see = lambda part: self.see(start, part, key(part))
            return self.read(see, n, seed, self.old_reader(start))
        if kind == "cnn":
            normal = self.load("mini").normalizer
            learn, val = (part.simulations(s) for s in halves(n))
            epochs = max(2, round(2 * self.given.seen / len(learn)))
            net = fit_cnn(normal(learn.maps[:]), targets(learn), normal(val.maps[:]),
                          targets(val), epochs=epochs, seed=seed)
            return {"new": errors(net.predict(normal(self.test.maps[:])), self.test)}
        model, old = self.load("mini"), self.old_reader("mini")
        if start == "scratch":
            normal = model.normalizer
            torch.manual_seed(seed)
            model, old = CosmoFlow.from_preset("mini", normal), None
        if kind == "siblings":
            learn = part.simulations(halves(n)[0])
            lr = 1e-3 if start == "scratch" else self.given.lr
            by_siblings(model, learn, seen, lr, seed, start == "scratch")
        if kind == "statistics":
            by_statistics(model, part, seed)
        if kind == "flow":
            out = self.out / "models" / f"{start}_{n}_{seed}"
            model = by_flow(model, part, seen, out, start == "scratch", seed)
        found = self.read(lambda part: model.summarise(part.maps), n, seed, old)
        if kind == "flow": found["drawn"] = self.drawn(model)
        if old and n in self.given.forget: found["first"] = self.forgotten(model, old)
        return found

    def keep(self, kind: str, start: str, n: int, seed: int) -> None:
        "Does a run, unless its file is there."
        path = self.out / f"{kind}_{start}_{n:03d}_{seed}.json"
        if path.exists(): return
        if n > self.given.pool: return
        if n and max(chosen(n, seed, self.given.pool)) >= self.second.n_sims: return
        if kind == "flow" and n < FEWEST:
            print(f"{path.stem}: not run, `train` splits {FEWEST} universes or more")
            return
        begun = time.process_time()
        found = self.run(kind, start, n, seed)
        found |= {"kind": kind, "start": start, "n": n, "seed": seed,
                  "simulations": chosen(n, seed, self.given.pool) if n else [],
                  "seconds": round(time.process_time() - begun, 1)}
        write_json(path, found)
        ways = {k: found[k]["mean"] for k in ("new", "kept", "corrected") if k in found}
        said = ", ".join(f"{k} {100 * a:.1f} {100 * b:.1f}"
                         for k, (a, b) in ways.items())
        print(f"{path.stem}: {said} % in {found['seconds']} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    named = dict(nargs=3, metavar=("SUITE", "SET", "FOLDER"))
    parser.add_argument("--first", **named, help="the suite that the model knows")
    parser.add_argument("--second", **named, help="the other suite")
    parser.add_argument("--model", default="mini", help="the model that is fine-tuned")
    parser.add_argument("--large", default="base", help="one more, for probes alone")
    parser.add_argument("--pixels", type=int, default=None, help="a side, if fewer")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--pool", type=int, default=200,
                        help="universes to choose from")
    parser.add_argument("--seen", type=int, default=2560, help="maps seen, fine-tuned")
    parser.add_argument("--lr", type=float, default=3e-4, help="for the encoder alone")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 50, 200])
    parser.add_argument("--forget", type=int, nargs="+", default=[20, 200],
                        help="universes after which the first suite is read again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=[
        "zero", "probe", "statistics", "siblings", "flow", "cnn"])
    parser.add_argument("--starts", nargs="+", default=["mini", "scratch"])
    study = Study(parser.parse_args())
    given = study.given
    print(f"{study.second.n_sims} universes of {study.second.suite}, "
          f"{TEST} of them held out; precision {best_precision(torch.device('cpu'))}")
    for kind in given.kinds:
        known = ["mini", "spectrum", *(["base"] if given.large else [])]
        starts = {"zero": known, "probe": known, "cnn": ["labels"],
                  "statistics": ["mini"]}.get(kind, given.starts)
        if kind == "zero":
            for start in starts: study.keep(kind, start, 0, 0)
            continue
        for start in starts:
            for seed in given.seeds:
                for n in given.sizes: study.keep(kind, start, n, seed)


if __name__ == "__main__": main()

"""What training in two pieces costs in loss: the record that the how-to reads.

Each seed trains in one go, and again in two pieces: a run stopped at half its epochs,
its weights kept in bfloat16, and a second run that begins with them. Its rate falls
from where the first one's stood, or from so low that its sum is that of the whole.
All ends are judged on the same held-out maps and noise. A stopped training goes on.
Use:

    python nbs/howto/_pieces.py tiny 16 build/pieces/tiny 0 1 2

The last words are seeds.
"""
import csv
import sys
from functools import cache
from pathlib import Path

import torch

from cosmoflow import CosmoFlow
from cosmoflow.cli import main
from cosmoflow.core import evaluating, standard_error
from cosmoflow.data import open_maps
from cosmoflow.flow import flow_matching_loss
from cosmoflow.results import Result, record, records_folder
from cosmoflow.train import TRAIN_PRESETS, Run, TrainConfig, lr_factor

COMMON = "train --pixels 32 --sims 0:80 --resume".split()
NOISES = 2
keep = Run.keep


def rows(out: Path) -> list[dict]:
    "The log of a run."
    return list(csv.DictReader((out / "log.csv").open(encoding="utf-8")))


def even_rate(steps: int = 1000) -> float:
    "The highest rate of a second piece whose rates sum up as in the whole."
    whole = sum(lr_factor(step, steps) for step in range(steps // 2, steps))
    return whole / sum(lr_factor(step, steps // 2) for step in range(steps // 2))


def train_both(preset: str, epochs: int, seed: int, out: Path) -> None:
    "One training whole; its weights at half time, exact and kept; the second piece."
    whole, half = out / f"whole_{seed}", epochs // 2

    def keep_half(self: Run, row: dict, weights: CosmoFlow) -> None:
        keep(self, row, weights)
        if self.out != whole or row["epoch"] != half: return
        weights.save_pretrained(out / f"exact_{seed}")
        weights.save_pretrained(out / f"kept_{seed}", dtype=torch.bfloat16)

    Run.keep = keep_half
    same = [*COMMON, "--preset", preset]
    main([*same, "--epochs", str(epochs), "--seed", str(seed), "--out", str(whole)])
    config = TrainConfig(**TRAIN_PRESETS[preset])
    left = max(0.0, 2 * config.norm_epochs - 1)  # of the moving averages
    rates = {"second": rows(whole)[half - 1]["lr"], "even": config.lr * even_rate()}
    for name, lr in rates.items():
        main([*same, "--epochs", str(half), "--seed", str(100 + seed),
              "--init", str(out / f"kept_{seed}"), "--lr", str(lr),
              "--norm-epochs", str(left), "--out", str(out / f"{name}_{seed}")])


@cache
def losses(folder: Path) -> torch.Tensor:
    "Of simulations that no run saw, each the mean of several noises, (simulations,)."
    model = CosmoFlow.from_pretrained(folder)
    data = open_maps("PM", "LH", sims=slice(80, 120), pixels=32)
    images = model.normalizer(torch.from_numpy(data.maps)).to(model.device)
    each = images.split(data.maps_per_simulation)
    found = torch.zeros(len(each), NOISES)
    for noise in range(NOISES):
        generator = torch.Generator(model.device).manual_seed(noise)
        with evaluating(model):
            for i, maps in enumerate(each):
                found[i, noise] = flow_matching_loss(model, maps, generator)
    return found.mean(1)


def close(preset: str, epochs: int, out: Path, seeds: list[int]) -> None:
    "Writes the record: losses, what the pieces cost, and the validation curves."
    results = {}  # by quantity and method, since a whole run is asked for twice

    def add(what: str, name: str, value: float, error: float | None = None) -> None:
        results[what, name] = Result(what, name, float(value), error)

    def cost(what: str, before: str, after: str) -> None:
        found = []
        for seed in seeds:
            if not (out / f"{after}_{seed}").exists(): continue  # not trained yet
            a, b = losses(out / f"{before}_{seed}"), losses(out / f"{after}_{seed}")
            more = 100 * (b - a) / a.mean()  # the same maps, the same noise
            found.append(more.mean().item())
            add(f"{what}, %", f"seed {seed}", found[-1], standard_error(more, 1).item())
            add("held-out loss", f"{before}, seed {seed}", a.mean())
            add("held-out loss", f"{after}, seed {seed}", b.mean())
        values = torch.tensor(found)
        add(f"{what}, %", "mean of the seeds", values.mean())
        if len(found) == 1: return
        add(f"scatter of that over seeds, {what}, %", "one seed", values.std())

    cost("cost of two pieces", "whole", "second")
    cost("cost at an even sum of rates", "whole", "even")
    cost("cost of bfloat16", "exact", "kept")
    for name in ("whole", "second"):
        logs = [rows(out / f"{name}_{seed}") for seed in seeds]
        for same in zip(*logs, strict=True):
            seen = torch.tensor([float(row["val_loss"]) for row in same])
            add("validation loss", f"{name}, epoch {same[0]['epoch']}", seen.mean())
    about = (f"PM LH, 80 simulations; preset {preset}, {epochs} epochs, "
             f"seeds {', '.join(map(str, seeds))}; 40 other simulations held out, "
             f"{NOISES} noises")
    kept = list(results.values())
    print(record(preset, kept, about, pixels=32, folder=records_folder() / "pieces"))


if __name__ == "__main__":
    preset, epochs, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    seeds = [int(seed) for seed in sys.argv[4:]]
    for seed in seeds: train_both(preset, epochs, seed, out)
    close(preset, epochs, out, seeds)

"""Which order each timetable teaches, and what it costs: the record of a chapter.

Networks that differ in their timetable alone learn from the same maps, with the
paper's loss, from several seeds. Others have a field sorted by hand, other times of
the bands, or the siblings' loss. A stopped training goes on, and one that was measured
is not run again. The numbers are seeds:

    python nbs/experiments/_timetables.py build/timetables 0 1 2

`--ways` names some of the trainings. More maps and a longer training:

    python nbs/experiments/_timetables.py build/longer 0 --data build/training \\
        --epochs 21
"""
import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmoflow import CosmoFlow
from cosmoflow.core import BOX, read_json, seeded, write_json
from cosmoflow.data import MapData, Normalizer, open_maps
from cosmoflow.evaluate import compare, infer_parameters
from cosmoflow.flow import Bands
from cosmoflow.results import Result, record, records_folder
from cosmoflow.scales import ChannelOrder, sorting_score, swap_changes
from cosmoflow.train import TrainConfig, train

EPOCHS, WIDTH = 10, 16  # of each training, unless told otherwise; of the UNet
MODES = 1, 2, 4


class NewestLearns(CosmoFlow):
    """A field of noisy channels, each taught only while it is the next to go dark.

    The chapter names both as what could turn the order of the paper's mask.
    """
    NOISE = 0.1  # scatter of the noise, in the channel's own

    def velocity(self, x: Tensor, t: Tensor, field: Tensor,
                 live: Tensor | None = None) -> Tensor:
        if self.training:
            shown = self.timetable.mask(t) > 0
            later = torch.cat([shown[:, 1:], torch.zeros_like(shown[:, :1])], 1)
            known = field.detach()
            scatter = self.NOISE * known.std((0, 2, 3), keepdim=True)
            field = torch.where(shown & ~later, field, known)
            # from the batch's own times, so that a resumed run draws the same
            source = torch.Generator().manual_seed(int(2**40 * t[0].item()))
            noise = torch.randn(known.shape, generator=source).to(known)
            field = field + scatter * noise
        return super().velocity(x, t, field, live)


@dataclass(frozen=True)
class Way:
    "One of the trainings: what is not as in the others."
    model: dict[str, Any]             # arguments of the network
    bands: dict[str, Any] | None = None  # arguments of `Bands`
    config: dict[str, Any] = field(default_factory=dict)  # settings of the training
    kind: type[CosmoFlow] = CosmoFlow


WAYS = {name: Way({"timetable": name}) for name in
        ("open", "fading", "nested", "waking", "bands")}
WAYS |= {
    "fading, sorted field": Way({"waves": True}),
    "bands, equal times": Way({"timetable": "bands"}, {"parts": (1,) * 8}),
    "bands, fitted times": Way({"timetable": "bands"},
                               {"parts": (4, 3, 3, 3, 3, 3, 3, 18)}),
    "bands, overlapping": Way({"timetable": "bands"},
                              {"parts": (2,) * 7 + (18,), "early": 1}),
    "fading, stopped gradients and noise": Way({}, kind=NewestLearns),
    "fading, siblings": Way({}, config={"siblings": 0.1}),
    "fading, sorted field, siblings": Way({"waves": True}, config={"siblings": 0.1}),
}


def order(model: CosmoFlow, maps: Tensor) -> dict[str, float | None]:
    "Are the channels sorted by scale? The measures of the lab report on order."
    channels = list(range(model.config["channels"]))
    half = len(channels) // 2
    groups = [[c] for c in channels] + [channels[:half], channels[half:]]
    others = maps.roll(len(maps) // 2, 0)
    k, changes = swap_changes(model, maps, others, groups,
                              model.timetable.whole_steps(4), "midpoint", box=BOX)
    *single, coarse, fine = changes
    found = ChannelOrder.measure(k, torch.stack(single))
    return {"score, coarse first": sorting_score(k, fine, coarse).item(),
            "rank of channel and wavenumber": found.rank,
            "selectivity": found.selectivity,
            "idle channels": len(channels) - int(found.busy.sum())}


def measured(model: CosmoFlow, out: Path, parts: tuple[MapData, ...]) -> dict:
    "All that the record says of one training."
    test = parts[2]
    maps = torch.from_numpy(test.maps[:: test.maps_per_simulation // 3])
    found = compare(maps, model.reconstruct(maps, seed=0), test.box, 3)
    worst = found.worst_bin()
    errors = infer_parameters(model, *parts, ("summaries",))["summaries"]["mean"]
    *_, last = csv.DictReader((out / "log.csv").open(encoding="utf-8"))
    return {"validation loss": float(last["val_loss"]),
            **{f"r at mode {mode}": float(found.r[mode - 1]) for mode in MODES},
            "worst bin of the spectrum, %": 100 * abs(float(found.ratio[worst]) - 1),
            **order(model, maps[::3]),
            "error of Omega_m, %": 100 * errors[0],
            "error of sigma_8, %": 100 * errors[1]}


def untrained(way: Way, normalizer: Normalizer, seed: int) -> CosmoFlow:
    "The network of a training, with its first weights."
    make = lambda: way.kind.from_preset("mini", normalizer, width=WIDTH, **way.model)
    model = seeded(make, seed)
    if way.bands is not None:
        model.timetable = Bands(channels=model.config["channels"], **way.bands)
        model.config["steps"] = model.timetable.whole_steps(model.config["steps"])
    return model


def run(name: str, seed: int, out: Path, data: MapData,
        epochs: int) -> dict[str, float | None]:
    "Trains one network, or reads what was measured on it."
    folder = out / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
    path, way = folder / "measured.json", WAYS[name]
    if path.exists(): return read_json(path)
    parts = data.split()
    model = untrained(way, Normalizer.fit(parts[0].maps), seed)
    config = TrainConfig(epochs=epochs, lr=1e-3, schedule="cosine", norm_epochs=0.5,
                         ema=0.99, precision="auto", seed=seed, **way.config)
    model = train(model, data, folder, config, resume=True)
    found = measured(model, folder, parts)
    write_json(path, found)
    print(name, seed, found)
    return found


def main(out: Path, seeds: list[int], ways: list[str], data: MapData,
         epochs: int = EPOCHS) -> None:
    "All trainings, a seed at a time, and the record."
    found = defaultdict(list)
    for seed in seeds:
        for way in ways: found[way].append(run(way, seed, out, data, epochs))
    results = []
    for way, rows in found.items():
        for quantity in rows[0]:
            known = [row[quantity] for row in rows if row[quantity] is not None]
            values = torch.tensor(known, dtype=torch.float64)  # a rank may be missing
            scatter = values.std().item() if len(values) > 1 else None
            results.append(Result(quantity, way, values.mean().item(), scatter))
    about = (f"PM LH, {data.n_sims} simulations; mini with width {WIDTH}, {epochs} "
             f"epochs; ± is the scatter of {len(seeds)} seeds")
    print(record("timetables", results, about, data.pixels,
                 folder=records_folder() / "timetables"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the trainings")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS)[:6])
    parser.add_argument("--data", help="folder of the maps (default: those that ship)")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    main(args.out, args.seeds, args.ways, open_maps("PM", "LH", args.data), args.epochs)

"""Which order each timetable teaches, and what it costs: the record of a chapter.

Networks that differ in their timetable alone learn from the shipped maps, with the
paper's loss, from several seeds. One more has a field sorted by hand. A stopped
training goes on. The last words are seeds:

    python nbs/experiments/_timetables.py build/timetables 0 1 2
"""
import csv
import sys
from collections import defaultdict
from pathlib import Path

import torch

from cosmoflow import CosmoFlow
from cosmoflow.core import BOX, read_json, write_json
from cosmoflow.data import MapData, Normalizer, open_maps
from cosmoflow.evaluate import compare, infer_parameters
from cosmoflow.results import Result, record, records_folder
from cosmoflow.scales import ChannelOrder, sorting_score, swap_changes
from cosmoflow.train import TrainConfig, train

EPOCHS, WIDTH = 10, 16  # of each training; of the UNet
WAYS = {name: {"timetable": name} for name in
        ("open", "fading", "nested", "waking", "bands")}
WAYS["fading, sorted field"] = {"waves": True}
MODES = 1, 2, 4


def order(model: CosmoFlow, maps: torch.Tensor) -> dict[str, float | None]:
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


def run(way: str, seed: int, out: Path, data: MapData) -> dict[str, float | None]:
    "Trains one network, or reads what was measured on it."
    folder = out / f"{way.replace(', ', '_').replace(' ', '_')}_{seed}"
    path = folder / "measured.json"
    if path.exists(): return read_json(path)
    parts = data.split()
    torch.manual_seed(seed)
    model = CosmoFlow.from_preset("mini", Normalizer.fit(parts[0].maps), width=WIDTH,
                                  **WAYS[way])
    config = TrainConfig(epochs=EPOCHS, lr=1e-3, schedule="cosine", norm_epochs=0.5,
                         ema=0.99, precision="auto", seed=seed)
    model = train(model, data, folder, config, resume=True)
    found = measured(model, folder, parts)
    write_json(path, found)
    print(way, seed, found)
    return found


def main(out: Path, seeds: list[int]) -> None:
    "All trainings, a seed at a time, and the record."
    data, found = open_maps("PM", "LH"), defaultdict(list)
    for seed in seeds:
        for way in WAYS: found[way].append(run(way, seed, out, data))
    results = []
    for way, rows in found.items():
        for quantity in rows[0]:
            known = [row[quantity] for row in rows if row[quantity] is not None]
            values = torch.tensor(known, dtype=torch.float64)  # a rank may be missing
            scatter = values.std().item() if len(values) > 1 else None
            results.append(Result(quantity, way, values.mean().item(), scatter))
    about = (f"PM LH, {data.n_sims} simulations; mini with width {WIDTH}, {EPOCHS} "
             f"epochs; ± is the scatter of {len(seeds)} seeds")
    print(record("timetables", results, about, data.pixels,
                 folder=records_folder() / "timetables"))


if __name__ == "__main__": main(Path(sys.argv[1]), [int(s) for s in sys.argv[2:]])

"""ResNet-18 on raw maps, the paper's rival, beside what `cosmoflow evaluate` measured.

It learns from the training part of some maps, and adds its errors on their test part to
the `metrics.json` of an evaluation on the same maps. The paper takes 200 epochs. The
lab reports take 40, for which one wants a GPU. Use:

    python nbs/experiments/_resnet18.py build/paper/maps build/paper/evaluation_8
"""
import argparse
from pathlib import Path

import torch

from cosmoflow.core import best_device, read_json, write_json
from cosmoflow.data import MapData, Normalizer, open_maps
from cosmoflow.inference import fit_resnet18, relative_error
from cosmoflow.train import MapLoader, fast_bf16

METHOD = "raw maps, ResNet-18"


def errors(data: MapData, epochs: int, seed: int = 0) -> dict[str, list[float]]:
    "Relative errors of Omega_m and sigma_8, as `infer_parameters` gives them."
    device, parts = best_device(), data.split()
    normalizer = Normalizer.fit(parts[0].maps)
    maps = [MapLoader(part, normalizer, device) for part in parts]
    truth = [torch.from_numpy(part.targets[:, :2]).float().to(device) for part in parts]
    fitted = fit_resnet18(maps[0], truth[0], maps[1], truth[1], epochs,
                          bf16=fast_bf16(device), seed=seed)
    found = relative_error(fitted.predict(maps[2]), truth[2], data.maps_per_simulation)
    return {"mean": found.mean.tolist(),
            "standard_error": found.standard_error.tolist()}


def main(maps: str, evaluation: Path, epochs: int) -> None:
    "Adds ResNet-18 to an evaluation."
    path = evaluation / "metrics.json"
    metrics = read_json(path)  # before hours of training
    data = open_maps(metrics["suite"], metrics["set"], maps)
    metrics["inference"][METHOD] = errors(data, epochs)
    write_json(path, metrics)
    print(path, METHOD, metrics["inference"][METHOD])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("maps", help="folder of the maps that were measured")
    parser.add_argument("evaluation", type=Path,
                        help="folder that `cosmoflow evaluate --out` left")
    parser.add_argument("--epochs", type=int, default=40, help="passes over the maps")
    given = parser.parse_args()
    main(given.maps, given.evaluation, given.epochs)

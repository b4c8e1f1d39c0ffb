"""What one of several processes of a training saw, for test_train.

Run by `accelerate launch tests/two_processes.py out results train ...`: first it is
this command."""
import json
import sys
from pathlib import Path

import torch

import cosmoflow.train
from cosmoflow import CosmoFlow
from cosmoflow.cli import main
from cosmoflow.core import digest
from cosmoflow.data import Normalizer, open_maps
from cosmoflow.train import TrainConfig, partly_pooled, train

first, second, *command = sys.argv[1:]
out, results = Path(first), Path(second)
pooled, rates = [], []
main(command)


def counted(field, n):
    "How many of these maps are decoded from their summary."
    pooled.append(n)
    return partly_pooled(field, n)


class Watched(torch.optim.AdamW):
    def step(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return super().step(*args)


cosmoflow.train.partly_pooled = counted
torch.optim.AdamW = Watched
data = open_maps("PM", "LH", sims=slice(0, 10), pixels=16)
config = TrainConfig(epochs=6, lr=5e-2, batch_size=24, patience=0, ema=0.5, pooled=0.12,
                     norm_epochs=0.7)
torch.manual_seed(0)
model = CosmoFlow.from_preset("tiny", Normalizer.fit(data.split()[0].maps))
model = train(model, data, out, config)
rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
weights = {name: digest([value]) for name, value in model.state_dict().items()}
files = sorted(path.name for path in out.iterdir())
saw = {"weights": weights, "pooled": pooled, "rates": rates, "files": files}
(results / f"{rank}.json").write_text(json.dumps(saw), encoding="utf-8")

"""Puts into the site what its live figures need: the engine, the models, the module.

Where npm, the network or the extra `export` is missing, the site is built all the same,
and pictures stand where figures could live.
"""
import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from os.path import relpath
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from cosmoflow import CosmoFlow
from cosmoflow.core import MAPS_PER_SIMULATION, noise_source
from cosmoflow.data import open_maps
from cosmoflow.model import find_model

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "cosmoflow" / "web"
KEPT = ROOT / "build" / "live"  # what one build has made, for the next
ENGINE = "onnxruntime-web@1.30.0"
DIGEST = ("q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1S"
          "igqR4CXAfKYQ==")  # sha512 of the archive, as the registry states it
# Held-out maps with which each figure starts, as the picture in its place shows them.
STARTS = {"universe": [90], "flow": [0], "scales": [90, 60]}
# Shipped maps for figures that show them: of each simulation one along each axis.
MAPS = {"1P": (0, 5, 10), "WDM": (0, 5, 10), "CDM": (0, 5, 10)}
FIGURE = r'<div class="cosmoflow-live" data-figure="(\w+)"([^>]*)>'


def fetch_engine() -> Path:  # folder with ort.mjs and ort.wasm.gz
    "Gets ONNX Runtime for browsers from npm, once. Raises `RuntimeError` without it."
    folder = KEPT / ENGINE
    if folder.exists(): return folder
    npm = shutil.which("npm")
    if not npm: raise RuntimeError("found no program `npm`")
    with TemporaryDirectory() as tmp:
        args = [npm, "pack", ENGINE, "--silent", "--pack-destination", tmp]
        try: subprocess.run(args, check=True, capture_output=True, timeout=300)
        except subprocess.SubprocessError:
            raise RuntimeError(f"npm could not fetch {ENGINE}") from None
        (archive,) = Path(tmp).glob("*.tgz")
        found = hashlib.sha512(archive.read_bytes()).digest()
        if base64.b64encode(found).decode() != DIGEST:
            raise RuntimeError(f"{ENGINE} is not the archive that we tested")
        with tarfile.open(archive) as tar:
            read = lambda name: tar.extractfile(f"package/dist/{name}").read()
            script = read("ort.wasm.bundle.min.mjs")
            binary = read("ort-wasm-simd-threaded.wasm")
        script = script.partition(b"//# sourceMappingURL")[0]
        made = Path(tmp) / "made"
        made.mkdir()
        (made / "ort.mjs").write_bytes(script)
        (made / "ort.wasm.gz").write_bytes(gzip.compress(binary, mtime=0))
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, folder)
    return folder


def terms(
    params: torch.Tensor,  # Omega_m and sigma_8, (n, 2)
) -> torch.Tensor:         # (n, 6)
    "What a spread is a polynomial in: maths.js has the same."
    a, b = ((params - torch.tensor([0.3, 0.8])) / 0.1).T
    return torch.stack([torch.ones_like(a), a, b, a * a, a * b, b * b], 1)


def fit_spreads(model: CosmoFlow) -> list:  # (6, C)
    "How the log scatter of each channel about its mean follows the cosmology."
    train, _, _ = open_maps("PM", "LH").split()
    spread = model.encode(train.maps[::5]).std((2, 3)).log()
    params = torch.tensor(train.targets[::5, :2], dtype=torch.float32)
    return torch.linalg.lstsq(terms(params), spread).solution.tolist()


def as_base64(numbers: np.ndarray) -> str:
    "The bytes of an array as base64."
    return base64.b64encode(numbers.tobytes()).decode()


def shipped(
    name: str,         # a set of `MAPS`
    model: CosmoFlow,
) -> dict:             # as figure.js reads it
    "Maps of a set, log10 in 256 steps, with parameters and the model's fields of them."
    data = open_maps("PM", name)
    first = MAPS_PER_SIMULATION * np.arange(data.n_sims)
    which = (first[:, None] + MAPS[name]).ravel()
    log = np.log10(data.maps[which])
    low, high = float(log.min()), float(log.max())
    steps = (log - low) / (high - low) * 255
    field = model.encode(data.maps[which]).float().numpy()
    return {"each": len(MAPS[name]), "range": [low, high],
            "params": data.params.round(5).tolist(),
            "maps": as_base64(steps.round().astype(np.uint8)),
            "fields": as_base64(field)}


def export_models() -> Path:  # folder with decoder.onnx, velocity.onnx, maps, *.json
    """Exports the decoder of `mini-fast`, the flow of `mini` and maps, once for all.

    Raises `RuntimeError` without what an export needs.
    """
    try: from cosmoflow import export
    except ImportError: raise RuntimeError("this cosmoflow cannot export") from None
    digest = hashlib.sha256()
    for file in (export.__file__, __file__): digest.update(Path(file).read_bytes())
    for name in ("mini", "mini-fast"):
        digest.update((find_model(name) / "model.safetensors").read_bytes())
    folder = KEPT / f"models-{digest.hexdigest()[:12]}"
    if folder.exists(): return folder
    load = lambda name: CosmoFlow.from_pretrained(name, device="cpu")
    KEPT.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=KEPT) as tmp:
        made = Path(tmp) / "made"
        fast = load("mini-fast")
        try: export.export(fast, open_maps("PM", "LH"), made, "mini-fast")
        except ImportError as e: raise RuntimeError(str(e)) from None
        spreads = json.dumps(fit_spreads(fast))
        (made / "spreads.json").write_text(spreads, encoding="utf-8")
        (made / "maps").mkdir()
        for name in MAPS:
            text = json.dumps(shipped(name, fast))
            (made / "maps" / f"{name}.json").write_text(text, encoding="utf-8")
        flow = export.graphs(load("mini"))["velocity"]
        halved = export._halved(flow).SerializeToString()
        (made / "velocity.onnx").write_bytes(halved)
        shutil.move(made, folder)
    return folder


def starts() -> dict[str, list[dict]]:
    "The universes with which each figure starts: field, noise, true parameters."
    test = open_maps("PM", "LH").split()[2]
    model = CosmoFlow.from_pretrained("mini-fast", device="cpu")
    noise = torch.randn(1, 1, 64, 64, generator=noise_source(None, 0))

    def start(i: int) -> dict:
        return {"field": model.encode(test.maps[i:i + 1]).flatten().tolist(),
                "noise": as_base64(noise.numpy()),
                "params": [float(v) for v in test.targets[i][:2]]}
    return {figure: [start(i) for i in which] for figure, which in STARTS.items()}


def about(
    folder: Path,  # _docs/live, with engine and models in it
) -> dict:         # what figure.js reads first
    "The model in numbers, and where its files are, under addresses that say which."
    told = json.loads((folder / "models" / "model.json").read_text(encoding="utf-8"))
    spreads = (folder / "models" / "spreads.json").read_text(encoding="utf-8")
    files = {"engine": "engine/ort.wasm.gz", "decoder": "models/decoder.onnx",
             "velocity": "models/velocity.onnx",
             **{name: f"maps/{name}.json" for name in MAPS}}
    models, sizes = {}, {}
    for name, path in files.items():
        content = (folder / path).read_bytes()
        models[name] = f"{path}?{hashlib.sha256(content).hexdigest()[:8]}"
        sizes[models[name]] = len(content)
    regressors = {kind: {"input": r["x"], "layers": r["layers"], "output": r["y"]}
                  for kind, r in told["regressors"].items()}
    return {"side": told["H"], "box": told["box"],
            "field": [told["channels"], told["h"], told["w"]],
            "mean": told["normalizer"]["mean"], "std": told["normalizer"]["std"],
            "params": told["regressors"]["parameters"]["outputs"],
            "toParams": regressors["parameters"], "toSummary": regressors["summaries"],
            "prior": told["prior"]["values"], "spreads": json.loads(spreads),
            "starts": starts(),
            "models": models, "bytes": sizes}


def put_files(
    out: Path,  # the site, _docs
) -> dict:      # as `about` tells it
    "Copies engine, models and module into the site."
    folder = out / "live"
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    shutil.copytree(fetch_engine(), folder / "engine", dirs_exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    for name in ("decoder.onnx", "velocity.onnx", "model.json", "spreads.json"):
        shutil.copy(export_models() / name, folder / "models" / name)
    shutil.copytree(export_models() / "maps", folder / "maps", dirs_exist_ok=True)
    told = about(folder)
    text = json.dumps(told)
    (folder / "about.json").write_text(text, encoding="utf-8")
    code = "".join(p.read_text(encoding="utf-8") for p in sorted(SOURCE.glob("*.*")))
    version = hashlib.sha256((text + code).encode()).hexdigest()[:12]
    worker = (folder / "sw.js").read_text(encoding="utf-8")
    (out / "sw.js").write_text(worker.replace("VERSION", version), encoding="utf-8")
    (folder / "sw.js").unlink()
    return told


def needs(figure: str) -> list[str]:
    "The models and maps that a figure asks for, as its own file states them."
    text = (SOURCE / f"{figure}.js").read_text(encoding="utf-8")
    lists = re.findall(r"^  (?:needs|maps): (\[.*\]),$", text, re.M)
    return [name for names in lists for name in json.loads(names)]


def add_live(
    out: Path,  # the site, _docs, with all its pages
) -> None:
    "Brings the figures of a site to life, where this machine can."
    try: told = put_files(out)
    except RuntimeError as e:
        shutil.rmtree(out / "live", ignore_errors=True)
        print(f"Live figures stay pictures: {e}.")
        return

    def sized(found: re.Match) -> str:
        files = [told["models"][name] for name in ["engine", *needs(found[1])]]
        size = sum(told["bytes"][file] for file in files) / 1e6
        return f'{found[0][:-1]} data-size="{size:.0f}">'

    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if not re.search(FIGURE, text): continue
        live = relpath(out / "live", page.parent)
        head = (f'<link rel="stylesheet" href="{live}/live.css">\n'
                f'<script type="module" src="{live}/page.js"></script>\n</head>')
        text = re.sub(FIGURE, sized, text).replace("</head>", head, 1)
        page.write_text(text, encoding="utf-8")

"""Puts into the site what its live figures need: engine, models, JavaScript.

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

from cosmoflow import CosmoFlow
from cosmoflow.data import open_maps
from cosmoflow.model import find_model

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "cosmoflow" / "web"
KEPT = ROOT / "build" / "live"  # what one build has made, for the next
ENGINE = "onnxruntime-web@1.30.0"
DIGEST = ("q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1S"
          "igqR4CXAfKYQ==")  # sha512 of the archive, as the registry states it
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


def export_models() -> Path:  # folder: *.onnx, about.json, maps
    """Exports the decoder of `mini-fast`, the flows of two other models and maps, once.

    Raises `RuntimeError` without what an export needs.
    """
    try: from cosmoflow import export, live
    except ImportError as e: raise RuntimeError(str(e)) from None
    digest = hashlib.sha256()
    for file in (export.__file__, live.__file__, __file__):
        digest.update(Path(file).read_bytes())
    for name in ("mini-fast", *live.FLOWS.values()):
        digest.update((find_model(name) / "model.safetensors").read_bytes())
    folder = KEPT / f"models-{digest.hexdigest()[:12]}"
    if folder.exists(): return folder
    load = lambda name: CosmoFlow.from_pretrained(name, device="cpu")
    fast, some = load("mini-fast"), open_maps("PM", "LH").split()[2].maps[::30]
    try: graphs = export.graphs(fast)
    except ImportError as e: raise RuntimeError(str(e)) from None
    x, std = fast.normalizer(some), fast.normalizer.std
    small = {"decoder": export.halved_safely(graphs, x, std)[0]["decoder"]}
    for name, of in live.FLOWS.items():
        small[name] = export.halved(export.graphs(load(of))["velocity"])
    about = live.about(fast)
    about["sorted"] = live.about_sorted(load(live.FLOWS["sorted"]))
    KEPT.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=KEPT) as tmp:
        made = Path(tmp) / "made"
        (made / "maps").mkdir(parents=True)
        for name, graph in small.items():
            (made / f"{name}.onnx").write_bytes(graph.SerializeToString())
        texts = {f"maps/{name}": live.shipped(fast, name) for name in live.MAPS}
        for name, text in (texts | {"about": about}).items():
            (made / f"{name}.json").write_text(json.dumps(text), encoding="utf-8")
        shutil.move(made, folder)
    return folder


def told(
    about: dict,   # as the package tells it
    folder: Path,  # _docs/live, with engine and models in it
) -> dict:         # what figure.js reads first
    "The model in numbers, and where its files are, under addresses that say which."
    files = {"engine": "engine/ort.wasm.gz"}
    for path in (*folder.glob("models/*.onnx"), *folder.glob("maps/*.json")):
        files[path.stem] = path.relative_to(folder).as_posix()
    models, sizes = {}, {}
    for name, path in files.items():
        content = (folder / path).read_bytes()
        models[name] = f"{path}?{hashlib.sha256(content).hexdigest()[:8]}"
        sizes[models[name]] = len(content)
    return about | {"models": models, "bytes": sizes}


def put_files(
    out: Path,  # the site, _docs
) -> dict:      # as `told` tells it
    "Copies engine, models and module into the site."
    folder = out / "live"
    code_alone = shutil.ignore_patterns("*.json")
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True, ignore=code_alone)
    shutil.copytree(fetch_engine(), folder / "engine", dirs_exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    made = export_models()
    for path in made.glob("*.onnx"): shutil.copy(path, folder / "models" / path.name)
    shutil.copytree(made / "maps", folder / "maps", dirs_exist_ok=True)
    about = json.loads((made / "about.json").read_text(encoding="utf-8"))
    about = told(about, folder)
    text = json.dumps(about)
    (folder / "about.json").write_text(text, encoding="utf-8")
    code = "".join(p.read_text(encoding="utf-8") for p in sorted(SOURCE.glob("*.*")))
    version = hashlib.sha256((text + code).encode()).hexdigest()[:12]
    worker = (folder / "sw.js").read_text(encoding="utf-8")
    (out / "sw.js").write_text(worker.replace("VERSION", version), encoding="utf-8")
    (folder / "sw.js").unlink()
    return about


def add_live(
    out: Path,  # the site, _docs, with all its pages
) -> None:
    "Brings the figures of a site to life, where this machine can."
    try: about = put_files(out)
    except RuntimeError as e:
        shutil.rmtree(out / "live", ignore_errors=True)
        print(f"Live figures stay pictures: {e}.")
        return

    def sized(found: re.Match) -> str:
        from cosmoflow.live import needs
        files = [about["models"][name] for name in ["engine", *needs(found[1])]]
        size = sum(about["bytes"][file] for file in files) / 1e6
        return f'{found[0][:-1]} data-size="{size:.0f}">'

    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if not re.search(FIGURE, text): continue
        live = relpath(out / "live", page.parent)
        head = (f'<link rel="stylesheet" href="{live}/live.css">\n'
                f'<script type="module" src="{live}/page.js"></script>\n</head>')
        text = re.sub(FIGURE, sized, text).replace("</head>", head, 1)
        page.write_text(text, encoding="utf-8")

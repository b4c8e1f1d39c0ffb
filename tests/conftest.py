"""What several tests share: the program, small data and models, the wheel, built once, an environment that holds it, the site, a browser."""
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not any(part.startswith(("_", ".")) for part in p.relative_to(ROOT).parts))
COSMOFLOW = Path(sys.executable).with_name("cosmoflow")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What one process of JAX has compiled, the others need not.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / "build" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


REPOSITORY = (ROOT / ".git").exists()  # a ZIP of the tree has none


def sources(git=REPOSITORY):
    "The files of the tree, as paths from its root: those that git knows or, without it, all but what commands make."
    if git:
        done = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
        return sorted(Path(name) for name in done.stdout.decode().split("\0") if name and (ROOT / name).exists())
    made = ["/.git/", *(ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]  # a slash in front: at the root alone
    ours = lambda path: not any(fnmatch(part, name.strip("/")) for name in made for part in path.parts[:1 if name.startswith("/") else None])
    found = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return sorted(filter(ours, found))


def kill_when(ready, *args, seconds=300):
    "Starts a program, and kills it once `ready()` holds, at whatever it is doing then."
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + seconds
    while not ready() and process.poll() is None and time.time() < deadline: time.sleep(0.005)
    process.kill()
    process.wait()


@contextmanager
def full_disk(room=20_000):
    "No file can grow beyond so many bytes, as on a disk that is almost full."
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def randomised(preset="tiny", **changes):
    "A model whose every weight is random, so that no layer hides behind a zero."
    import torch

    from cosmoflow import CosmoFlow
    from cosmoflow.data import Normalizer
    torch.manual_seed(0)
    model = CosmoFlow.from_preset(preset, Normalizer(11.0, 0.5, 1e8), **changes)
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def data():
    "The first ten of the shipped simulations."
    from cosmoflow.data import open_maps
    return open_maps("PM", "LH", sims=slice(0, 10))


@contextmanager
def once(tmp_path_factory, name):
    "A folder that all test processes share, and whether it is still to be filled."
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / name
    with FileLock(f"{folder}.lock"):
        done = folder / "done"
        yield folder, not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    "The wheel, built from a copy of the sources: a build leaves files in its tree."
    with once(tmp_path_factory, "dist") as (out, new):
        if new:
            source = out / "tree"
            source.mkdir(parents=True)
            for name in sources():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes((ROOT / name).read_bytes())
            subprocess.run([sys.executable, "-m", "build", "--outdir", out, source], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def environment(tmp_path_factory, name, *install, upon=None):
    "A virtual environment with these installed, upon what another one holds; all test processes share it."
    with once(tmp_path_factory, name) as (venv, new):
        path = lambda kind, base: Path(sysconfig.get_path(kind, "venv", {"base": base}))
        if new:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            if upon: (path("purelib", venv) / "upon.pth").write_text(f"{path('purelib', upon)}\n", encoding="utf-8")
            subprocess.run([path("scripts", venv) / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *install], check=True)
    return path("scripts", venv)


@pytest.fixture(scope="session")
def stranger(wheel, tmp_path_factory):
    "The programs of an environment with the wheel and what it needs, nothing else."
    return environment(tmp_path_factory, "stranger", wheel)


@pytest.fixture(scope="session")
def colab(wheel, stranger, tmp_path_factory):
    "The interpreter of an environment with the wheel's extras too, and of all else only what runs a notebook, as on Colab."
    return environment(tmp_path_factory, "colab", f"{wheel}[sim,viz,search]", "ipykernel", "nbclient", upon=stranger.parent) / "python"


@pytest.fixture(scope="session")
def built_site(tmp_path_factory):
    "The documentation site in _docs, built once, unless `make docs` has just done so."
    with once(tmp_path_factory, "site") as (folder, new):
        if new and not os.environ.get("SITE_IS_BUILT"): subprocess.run([sys.executable, ROOT / "nbs" / "site" / "_build.py"], check=True, capture_output=True)
        folder.mkdir(exist_ok=True)
    return ROOT / "_docs"


@pytest.fixture(scope="module")
def browser():
    "A real browser, without a window."
    if BROWSER is None: pytest.skip("needs Chromium or Chrome")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


def pytest_collection_modifyitems(items):
    "One notebook comes first: its process makes the environment of all while the other processes do other tests."
    first = next((i for i, item in enumerate(items) if item.name.startswith("test_runs")), 0)
    if items: items.insert(0, items.pop(first))

"""What several tests share: programs, small data and models, environments, the site."""
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path
from runpy import run_path

import pytest
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(
    path for path in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith(("_", ".")) for part in path.relative_to(ROOT).parts))
COSMOFLOW = Path(sys.executable).with_name("cosmoflow")
BROWSING = run_path(str(ROOT / "nbs" / "site" / "_browser.py"))
serve = BROWSING["serve"]
# Who reads notebooks imports it, by way of jsonschema, which can do without. It
# compiles the grammar of web addresses, for more than a second.
sys.modules["rfc3987_syntax"] = None
# What one process of JAX has compiled, the others need not.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / "build" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

REPOSITORY = (ROOT / ".git").exists()  # a ZIP of the tree has none


def cell_sources(path, kind=None):
    "What stands in the cells of a notebook: in all, or in those of one kind."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells
            if kind in (None, cell["cell_type"])]


def sources(git=REPOSITORY):
    """The files of the tree, as paths from its root.

    Those that git knows or, without it, all but what commands make."""
    if git:
        kinds = "--cached", "--others", "--exclude-standard"
        done = subprocess.run(["git", "ls-files", "-z", *kinds], cwd=ROOT,
                              capture_output=True, check=True)
        names = done.stdout.decode().split("\0")
        return sorted(Path(name) for name in names if name and (ROOT / name).exists())
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()

    def is_ours(path):
        for name in ["/.git/", *ignored]:  # a slash in front: at the root alone
            parts = path.parts[:1] if name.startswith("/") else path.parts
            if any(fnmatch(part, name.strip("/")) for part in parts): return False
        return True
    found = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return sorted(filter(is_ours, found))


def command(*args):
    "A command in this process. To start another one, torch and all, takes seconds."
    from cosmoflow.cli import main
    main([str(arg) for arg in args])


def kill_when(ready, *args, seconds=300):
    "Starts a program, and kills it once `ready()` holds, at whatever it is doing then."
    silent = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(args, **silent)
    deadline = time.time() + seconds
    while not ready() and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
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
    """An untrained model whose every weight is moved at random, the same each time.

    No layer hides behind a zero. Fields depend on the maps, and maps on the fields:
    small random weights alone would let the norms shrink every field to a constant."""
    import torch

    from cosmoflow import CosmoFlow
    from cosmoflow.data import Normalizer
    torch.manual_seed(0)
    model = CosmoFlow.from_preset(preset, Normalizer(11.0, 0.5, 1e8), **changes)
    with torch.no_grad():
        # with 0.1 fields are ten times as large, and rounding shows in maps: 1e-3 dex
        for p in model.parameters(): p += 0.07 * torch.randn_like(p)
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


# A source archive is pressed as hard as can be, which takes longer than all else in a
# build; here a light pressing does. The wheel is not touched.
PRESS_LIGHTLY = """
import zlib
compressobj = zlib.compressobj
zlib.compressobj = lambda level=-1, *more: compressobj(min(level, 1), *more)
"""


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
            setup = source / "setup.py"
            whole = PRESS_LIGHTLY + setup.read_text(encoding="utf-8")
            setup.write_text(whole, encoding="utf-8")
            build = [sys.executable, "-m", "build", "--outdir", out, source]
            subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def needed(wheel, *requirements):
    "The distributions here that these ask for, and all that they need in turn."
    found = {"cosmoflow": next(Distribution.discover(path=[str(wheel)]))}
    seen, waiting = set(), [Requirement(asked) for asked in requirements]
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), wanted.extras or {""}
        if (name, *sorted(extras)) in seen: continue
        seen.add((name, *sorted(extras)))
        if name not in found:
            try: found[name] = distribution(name)
            except PackageNotFoundError: continue  # pip gets it
        for more in map(Requirement, found[name].requires or ()):
            asks = more.marker.evaluate if more.marker else lambda _: True
            if any(asks({"extra": extra}) for extra in extras): waiting.append(more)
    del found["cosmoflow"]
    return found.values()


def link(here, there):
    "Gives a file a second name or, where a disk cannot do that, copies it."
    there.parent.mkdir(parents=True, exist_ok=True)
    try: os.link(here, there)
    except FileExistsError: pass
    except OSError: shutil.copy2(here, there)


def lend(library, distributions):
    "Links what these hold into another library, compiled, all but their programs."
    for held in distributions:
        for file in held.files:
            here, there = Path(held.locate_file(file)), library / file
            if ".." in file.parts or not here.is_file(): continue
            link(here, there)
            if here.suffix != ".py": continue
            compiled = Path(cache_from_source(here))  # pip need not have listed it
            if compiled.is_file(): link(compiled, Path(cache_from_source(there)))


def environment(tmp_path_factory, wheel, name, extras, *more):
    """A virtual environment with the wheel, and with nothing that nobody asked for.

    What it needs is here already, in the same versions, unpacked and compiled. The
    rest is for pip, which sees that nothing is missing. All test processes share it."""
    with once(tmp_path_factory, name) as (venv, new):
        path = lambda kind: Path(sysconfig.get_path(kind, "venv", {"base": venv}))
        if new:
            bare = [sys.executable, "-m", "venv", "--without-pip", venv]
            subprocess.run(bare, check=True)
            lend(path("purelib"), needed(wheel, f"cosmoflow{extras}", *more))
            pip = [sys.executable, "-m", "pip", "--python", path("scripts") / "python"]
            pinned = ["--quiet", "--constraint", ROOT / "constraints.txt"]
            install = ["install", *pinned, f"{wheel}{extras}", *more]
            subprocess.run([*pip, *install], check=True)
    return path("scripts")


@pytest.fixture(scope="session")
def stranger(wheel, tmp_path_factory):
    "The programs of an environment with the wheel and what it needs, nothing else."
    return environment(tmp_path_factory, wheel, "stranger", "")


@pytest.fixture(scope="session")
def colab(wheel, tmp_path_factory):
    """The interpreter of an environment as on Colab.

    With the wheel's extras, and of all else only what runs a notebook, and the codes
    that a report compares ours with."""
    extras = "[sim,viz,search,export,posterior,compress]"
    more = "ipykernel", "nbclient", "pysz", "zfpy"
    return environment(tmp_path_factory, wheel, "colab", extras, *more) / "python"


@pytest.fixture(scope="session")
def built_site(tmp_path_factory):
    "The documentation site in _docs, built once, unless `make docs` has just done so."
    with once(tmp_path_factory, "site") as (folder, new):
        if new and not os.environ.get("SITE_IS_BUILT"):
            build = [sys.executable, ROOT / "nbs" / "site" / "_build.py"]
            subprocess.run(build, check=True, capture_output=True)
        folder.mkdir(exist_ok=True)
    return ROOT / "_docs"


@pytest.fixture(scope="module")
def browser():
    "A real browser, without a window."
    if BROWSING["PROGRAM"] is None: pytest.skip("needs Chromium or Chrome")
    with BROWSING["browse"]() as browser: yield browser


@pytest.fixture(scope="module")
def site(built_site):
    with serve(built_site) as address: yield address


def watched(page, site):
    "A page that notes console errors, and requests that leave the site or fail."
    page.trouble = []
    note = page.trouble.append
    is_ours = lambda request: request.url.startswith((site, "data:", f"blob:{site}"))
    page.on("console", lambda m: m.type == "error" and note(m.text))
    page.on("pageerror", lambda e: note(str(e)))
    page.on("request", lambda r: is_ours(r) or note(f"asks {r.url}"))
    page.on("response", lambda r: r.status >= 400 and note(f"{r.status} {r.url}"))
    return page


@pytest.fixture
def page(browser, site):
    "A page of the usual width, `watched`."
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    yield watched(page, site)
    page.close()


LONG = ("test_site", "test_live", "test_notebooks", "test_train", "test_workshop",
        "test_workshop_answers", "test_wheel", "test_simulate")


# What their fixtures make is dear, so one process runs all tests of each.
TOGETHER = ("test_anomaly", "test_compress", "test_device", "test_onnx", "test_play",
            "test_posterior", "test_run", "test_simulate", "test_workshop")


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_make_scheduler(config, log):
    "Test by test, in the order below, but for the files of `TOGETHER`."
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            name = Path(nodeid.partition("::")[0]).stem
            return name if name in TOGETHER else nodeid

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """Long tests come first, so that no process works alone at the end.

    One notebook comes before all: its process makes the environment of all notebooks
    while the others build the site."""
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))
    names = [item.name for item in items]
    first = next((i for i, name in enumerate(names) if name.startswith("test_runs")), 0)
    if items: items.insert(0, items.pop(first))

"""What README, cards and pages say of the package: code, links, counts and lists."""
import ast
import json
import math
import re
import shlex
import subprocess
import sys

import pytest
from conftest import NOTEBOOKS, ROOT, cell_sources


CARDS = sorted((ROOT / "cosmoflow").glob("**/README.md"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_the_first_lines_of_a_card_run(card):
    from cosmoflow.data import open_maps
    code = re.search(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.S)[1]
    there = {"maps": open_maps("PM", "LH").maps[:2]}
    exec(code, there)
    if card.parent.name == "suite":
        assert there["data"].maps.shape == (1800, 64, 64)
        assert there["data"].params.shape == (120, 2)
        return
    size = (1024, 3) if card.parent.name == "points" else (64, 64)
    assert there["drawn"].shape == (2, *size)
    if "summary" in there: assert there["summary"].shape == (2, 8)
    if "field" in there: assert there["field"].shape == (2, 8, 4, 4)


def page(name):
    "The text of a page; of a notebook, what its reader reads."
    path = ROOT / name
    if path.suffix != ".ipynb": return path.read_text(encoding="utf-8")
    return "\n\n".join(cell_sources(path, "markdown"))


def example():
    "The one example in Python that README shows."
    (code,) = re.findall(r"```python\n(.*?)\n```", page("README.md"), re.S)
    return code


def test_example_runs(tmp_path):
    code = example()
    assert len([line for line in code.splitlines() if line]) <= 10
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shapes, *_ = done.stdout.split("\n")
    assert shapes == (
        "torch.Size([4, 8, 4, 4]) torch.Size([4, 8]) torch.Size([4, 64, 64])")


def test_home_page_runs_the_same_example():
    assert example() in cell_sources(ROOT / "nbs" / "index.ipynb")


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
         *sorted((ROOT / "cosmoflow").glob("**/README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    here = "https://raw.githubusercontent.com/cosmoflow/cosmoflow/main/"
    inside = [ROOT / u.removeprefix(here) for u in links if u.startswith(here)]
    inside += [page.parent / u for u in links if not u.startswith("http")]
    dead = [path for path in inside if not path.exists()]
    assert not dead


def words(text, pattern):
    "The names in a list, which a pattern finds as its one group."
    (found,) = re.findall(pattern, text)
    return [word.strip(" `").removeprefix("cosmoflow ") for word in found.split(",")]


def recorded(experiment, quantity, method):
    "A value of a record and its error, as the text writes it: one decimal."
    from cosmoflow.results import read_record
    found = read_record(experiment)["results"]
    (result,) = [r for r in found if (r["quantity"], r["method"]) == (quantity, method)]
    return f"{result['value']:.1f}", f"{result['error']:.1f}"


def millions(model): return sum(p.numel() for p in model.parameters()) / 1e6


def test_lists_of_commands_are_whole():
    from cosmoflow.cli import COMMANDS
    listed = words(page("README.md"), r"The command line\]\(.*?\) \| (.*?) \|")
    assert sorted(listed) == sorted(COMMANDS)
    listed = words(page("nbs/tools/cli.ipynb"), r"Everything from a shell: (.*?)\.")
    assert sorted(listed) == sorted(COMMANDS)


NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
           "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
           "seventeen", "eighteen"]


def test_chapters_and_lessons_are_as_many_as_pages_say():
    there = {"chapters": "course", "lessons": "workshop"}
    there = {name: len(list((ROOT / "nbs" / folder).glob("[0-9]*.ipynb")))
             for name, folder in there.items()}
    paths = [*PAGES, ROOT / "CHANGELOG.md", *NOTEBOOKS, *(ROOT / "nbs").glob("*/*.md")]
    count = re.compile(rf"\b({'|'.join(NUMBERS)}) (chapters|lessons)\b", re.I)
    said = [(number.lower(), name) for path in paths
            for number, name in count.findall(page(path.relative_to(ROOT)))]
    assert {name for _, name in said} == set(there)
    wrong = [(number, name) for number, name in said
             if NUMBERS.index(number) + 1 != there[name]]
    assert not wrong


@pytest.mark.parametrize("name", ["README.md", "nbs/index.ipynb"])
def test_lists_of_experiments_are_whole(name):
    linked = re.findall(r"experiments/(\d\d_\w+)\.ipynb", page(name))
    assert set(linked) == {p.stem for p in (ROOT / "nbs/experiments").glob("*.ipynb")}


def test_every_experiment_with_numbers_has_its_record():
    from cosmoflow.results import read_records
    pages = sorted((ROOT / "nbs/experiments").glob("*.ipynb"))
    assert [r["experiment"] for r in read_records()] == [p.stem for p in pages]


@pytest.mark.parametrize("command", ["bench", "train"])
def test_commands_take_every_preset(command):
    from cosmoflow.model import PRESETS
    done = subprocess.run([sys.executable, "-m", "cosmoflow", command, "--help"],
                          capture_output=True, text=True, check=True)
    assert f"--preset {{{','.join(PRESETS)}}}" in done.stdout


START = r"^(?:accelerate launch .* -m |timeout \w+ )?cosmoflow (?=\w)"


def commands(name):
    "What a page's blocks of code ask of the program, each without the program's name."
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", page(name), re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    told = [re.subn(START, "", line.strip()) for line in lines]
    return [rest for rest, found in told if found]


TELLING = [path.relative_to(ROOT) for path in [
    *PAGES, *(ROOT / ".github/release").glob("*/README.md"), *NOTEBOOKS,
    *(ROOT / "nbs").glob("*/*.md")]]
TELLING = [name for name in TELLING if name.parent.name != "experiments"
           and commands(name)]  # those of lab reports: test_reports


@pytest.mark.parametrize("name", TELLING, ids=str)
def test_the_program_takes_the_commands_of_a_page(name):
    from cosmoflow.cli import _parser
    for rest in commands(name): _parser().parse_args(shlex.split(rest, comments=True))


def test_list_of_presets_is_whole():
    from cosmoflow.model import PRESETS
    chapter = page("nbs/course/08_model.ipynb")
    (sizes,) = re.findall(r"Four of them have names.*", chapter)
    assert len(PRESETS) == 4 and list(PRESETS) == re.findall(r"`(\w+)`", sizes)


def test_list_of_modules_is_whole():
    from test_export import ORDER
    listed = words(page("CONTRIBUTING.md"), r"\*\*Modules depend one way\*\*: (.*?)\.")
    assert listed == list(ORDER)


def test_every_model_has_a_card_that_readme_links():
    linked = re.findall(r"\(cosmoflow/weights/([\w-]+)/README\.md\)", page("README.md"))
    models = (ROOT / "cosmoflow/weights").iterdir()
    assert sorted(linked) == sorted(folder.name for folder in models)


COUNTED = [ROOT / "cosmoflow/weights" / name
           for name in ("mini", "mini-scales", "base", "vae")]
COUNTED += sorted((ROOT / ".github/release").glob("*"))


@pytest.mark.parametrize("folder", COUNTED, ids=lambda folder: folder.name)
def test_card_counts_the_weights(folder):
    from cosmoflow import CosmoFlow
    from cosmoflow.vae import VAE
    card = page(folder / "README.md")
    said = re.search(r"([\d.]+) million weights", card)[1]
    model = (VAE if folder.name == "vae" else CosmoFlow).from_pretrained(folder)
    assert said == f"{millions(model):.2f}"
    size = (folder / "model.safetensors").stat().st_size
    for said in re.findall(r"on disk, (\d+) MB", card):
        assert said == f"{size / 1e6:.0f}"


def network_of(card):
    "The untrained network that a card's command makes, or its code. It has no numbers."
    import torch

    from cosmoflow import CosmoFlow
    from cosmoflow.cli import _parser
    from cosmoflow.data import Normalizer
    unknown = Normalizer(11.0, 0.5, 1e8)
    commands = re.findall(r"^cosmoflow (train .*)$", card, re.M)
    with torch.device("meta"):
        if commands:
            given = vars(_parser().parse_args(commands[0].split()))
            waves = bool(given.get("waves"))
            return CosmoFlow.from_preset(given["preset"], unknown, waves=waves)
        code = ast.parse(re.findall(r"```python\n(.*?)```", card, re.S)[-1])
        call, = (node for node in ast.walk(code) if isinstance(node, ast.Call)
                 and ast.unparse(node.func) == "CosmoFlow")
        given = {part.arg: ast.literal_eval(part.value) for part in call.keywords}
        return CosmoFlow(unknown, **given)


@pytest.mark.parametrize("name", ("mini", "mini-scales", "base", "mini-128",
                                  "mini-flow"))
def test_the_command_of_a_card_makes_the_network_of_its_weights(name):
    from safetensors import safe_open
    folder, = (f for f in COUNTED if f.name == name)
    made = network_of(page(folder / "README.md")).state_dict()
    with safe_open(folder / "model.safetensors", "pt") as weights:
        shapes = {k: tuple(weights.get_slice(k).get_shape()) for k in weights.keys()}
    shapes.pop("prior")  # training measures it
    assert shapes == {k: tuple(v.shape) for k, v in made.items() if k in shapes}
    assert made.keys() - shapes.keys() <= {"prior"}


def test_pages_count_the_weights_of_the_paper_alike():
    import torch

    from cosmoflow import CosmoFlow
    from cosmoflow.data import Normalizer
    with torch.device("meta"):
        ours = CosmoFlow.from_preset("paper", Normalizer(11.0, 0.5, 1e8))
    assert f"{millions(ours):.1f}" == "38.3"  # the authors' own code builds 55.8
    for name in ("experiments/02_scales", "experiments/10_base", "experiments/11_paper",
                 "tools/results"):
        text = page(f"nbs/{name}.ipynb")
        assert "38.3" in text and "55.8" in text, name


def test_data_card_counts_the_simulations():
    from cosmoflow.data import open_maps
    card = page("cosmoflow/suite/README.md")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", card, re.M)
    for name, sims in rows:
        assert int(sims) == len(open_maps("PM", name).params), name
    tables = (ROOT / "cosmoflow/suite").glob("params_*")
    sets = [path.stem.split("_")[1] for path in tables]
    assert sorted(name for name, _ in rows) == sorted(sets)
    (maps,) = re.findall(r"([\d,]+) N-body maps ship", page("README.md"))
    assert int(maps.replace(",", "")) == len(open_maps("PM", "LH"))


RIVAL = "raw maps, the encoder's network, 53 epochs"
PARAMETERS = "Omega_m", "sigma_8"


def errors(experiment, method):
    "The relative errors of both parameters, each with its own error."
    return [recorded(experiment, f"relative error of {parameter}, %", method)
            for parameter in PARAMETERS]


@pytest.mark.parametrize("name", ["README.md", "nbs/index.ipynb"])
def test_verdict_on_eight_numbers_is_what_the_record_says(name):
    (claim,) = re.findall(r"- \*The mean of the field.*", page(name))
    pairs = re.findall(r"([\d.]+) and ([\d.]+) %", claim)
    taught = {"249,600 maps seen": "19_alone", "power spectrum": "12_siblings",
              "siblings": "12_siblings", RIVAL: "04_inference"}
    found = [errors(experiment, by) for by, experiment in taught.items()]
    flow, spectrum, *others = [(om, s8) for (om, _), (s8, _) in found]
    card = page(".github/release/mini-128/README.md")
    larger = re.search(r"error of ([\d.]+) .*?with ([\d.]+) ± [\d.]+ %", card).groups()
    rival = re.search(r"gives ([\d.]+) and ([\d.]+) %", card).groups()
    assert pairs == [flow, spectrum, larger, rival, *others]
    apart = [(float(ours) - float(theirs)) / math.hypot(float(e), float(f))
             for (ours, e), (theirs, f) in zip(*found[:2])]
    told = re.search(r"([\d.]+) and ([\d.]+) error bars apart", claim).groups()
    assert [float(n) for n in told] == pytest.approx(apart, abs=0.1)


EXPERIMENTS = [f"nbs/experiments/{name}.ipynb"
               for name in ("04_inference", "10_base", "12_siblings")]


@pytest.mark.parametrize("name", [*EXPERIMENTS, "cosmoflow/weights/mini/README.md"])
def test_pages_repeat_the_rival_that_decides(name):
    om, s8 = (" ± ".join(found) for found in errors("04_inference", RIVAL))
    assert f"{om} and {s8} %" in page(name) or f"{om} %, {s8} %" in page(name)


def test_the_ratios_over_the_rival_are_the_record_s():
    record = page("cosmoflow/records/04_inference.json")
    found = json.loads(record)["results"]
    ratios = [r for r in found if r["quantity"].endswith("summaries / raw maps")]
    said = [f"{r['value']:.2f} ± {r['error']:.2f}" for r in ratios]
    assert f"the ratios are {' and '.join(said)}" in page(EXPERIMENTS[0])
    short = " and ".join(ratio.split()[0] for ratio in said)
    assert f"ratios are {short}," in page(EXPERIMENTS[1])


@pytest.mark.parametrize("name", ["mini", "base"])
def test_card_repeats_the_record(name):
    card = page(f"cosmoflow/weights/{name}/README.md")
    rows = {
        "summaries": r"from the 8 summaries",
        "spectrum": r"from the power spectrum",
        "raw maps": r"by a small CNN",
    }
    for method, row in rows.items():
        line = re.search(rf"^\|.*{row}.*$", card, re.M)[0]
        said = re.findall(r"([\d.]+) ± ([\d.]+) %", line)
        assert said == errors("10_base", f"{name}, {method}")


def test_every_source_is_cited_and_every_citation_has_its_source():
    sources = re.findall(r"^@\w+\{(\w+),", page("nbs/site/references.bib"), re.M)
    pages = [*NOTEBOOKS, *(ROOT / "nbs").glob("*/*.md")]
    cited = {key for path in pages for key in re.findall(
        r"references\.md#(\w+)", path.read_text(encoding="utf-8"))}
    assert len(sources) == len(set(sources)) and cited == set(sources)

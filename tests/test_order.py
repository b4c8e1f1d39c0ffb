"""One reading order: side bar, README, home page and "Where next" lead the same way.

Numbers of chapters follow that order and move with it: text names chapters by title.
"""
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import NOTEBOOKS, ROOT, cell_sources

NBS = ROOT / "nbs"
SITE = "https://cosmoflow.github.io/cosmoflow"
COLAB = "https://colab.research.google.com/github/cosmoflow/cosmoflow/blob/main"
README, HOME = ROOT / "README.md", NBS / "index.ipynb"


def name(path): return path.relative_to(NBS).as_posix()


def side_bar():
    "Every page of the site in the order of its side bar, but those that code makes."
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    bar = site["website"]["sidebar"]
    pages = []
    for entry in bar["contents"]:
        pages += entry["contents"] if isinstance(entry, dict) else [entry]
    made = ("site/api.md", "site/references.md")
    return [page for page in pages if page not in made]


def links(text, page):
    "The pages that a text names, each once, in the order of their first mention."
    found = re.findall(r"\]\(([^)#:]+)", text)
    paths = [(page.parent / link).resolve() for link in found]
    pages = [p for p in paths if p.suffix in (".ipynb", ".md") and NBS in p.parents]
    return list(dict.fromkeys(name(p) for p in pages if p.parent.name != "_students"))


def test_side_bar_holds_every_page_once_and_numbers_rise():
    pages = side_bar()
    assert sorted(pages) == sorted(map(name, [*NOTEBOOKS, *NBS.glob("*/*.md")]))
    for folder in ("course", "howto", "experiments", "workshop"):
        numbered = [page for page in pages if re.match(rf"{folder}/\d\d_", page)]
        assert numbered and numbered == sorted(numbered)


def test_where_next_leads_on():
    handed_out = ("workshop/slides.ipynb", "workshop/handout.md")
    chain = [p for p in side_bar() if not p.startswith("site/") and p not in handed_out]
    astray = {}
    for page, following in pairwise(chain):
        path = NBS / page
        whole = path.suffix != ".ipynb"
        text = (path.read_text(encoding="utf-8") if whole
                else cell_sources(path, "markdown")[-1])
        _, found, end = text.rpartition("Where next")
        first = links(end, path)[:1] if found else "no `Where next` in the last cell"
        if first != [following]: astray[page] = f"should lead to {following}: {first}"
    assert not astray


def test_readme_lists_the_same_order():
    _, _, listed = README.read_text(encoding="utf-8").partition("## The notebooks")
    pages, named = side_bar(), links(listed, README)
    assert named == [p for p in pages if p in named]
    parts = ("00_demo", "course/", "howto/", "tools/", "experiments/")
    missing = [p for p in pages if p.startswith(parts) and p not in named]
    assert not missing


@pytest.mark.parametrize("part", ["course/", "howto/", "experiments/"])
def test_home_page_lists_the_same_order(part):
    asked = [page for page in side_bar() if page.startswith(part)]
    paragraphs = [p for cell in cell_sources(HOME, "markdown")
                  for p in cell.split("\n\n")]
    named = [links(paragraph, HOME) for paragraph in paragraphs]
    lists = [[page for page in pages if page.startswith(part)] for pages in named]
    assert asked in lists, f"no paragraph names all of {part} in order"


# A table may put a file's own number before its title: [05 The encoder](05_e.ipynb).
OWN_NUMBER = r"\[(\d\d) [^\]]*\]\([^)]*\b\1_\w+\.ipynb\)"
NOT_PROSE = (r"```.*?```", r"`[^`\n]*`", r"\$[^$]*\$", OWN_NUMBER, r"\]\([^)]*\)")
BARE_NUMBER = r".{0,20}(?<!experiment )(?<![\w.,:/–-])0\d(?![\w%:/–-]|[.,]\d).{0,20}"


def test_text_names_chapters_by_title():
    "`experiment 04` is a name; `notebook 04`, `[04]` and a bare 04 are not."
    written = [*NBS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md")]
    written = [*written, *ROOT.glob("cosmoflow/**/*.md")]
    prose = {path: path.read_text(encoding="utf-8") for path in written}
    prose |= {p: "\n".join(cell_sources(p, "markdown")) for p in NOTEBOOKS}
    programs = [*ROOT.glob("cosmoflow/*.py"), *ROOT.glob("tests/*.py")]
    programs = {*programs, *NBS.glob("*/*.py"), ROOT / "Makefile"} - {Path(__file__)}
    code = {p: p.read_text(encoding="utf-8") for p in programs}
    code |= {p.with_suffix(".py"): "\n".join(cell_sources(p, "code"))
             for p in NOTEBOOKS}
    found = []
    for path, text in (prose | code).items():
        numbered = re.finditer(r"(?i)\b(?:notebook|chapter)s?[\s\[(]{1,3}\d+", text)
        found += [(path.name, m[0]) for m in numbered]
    for path, text in prose.items():
        for pattern in NOT_PROSE: text = re.sub(pattern, "", text, flags=re.S)
        found += [(path.name, m[0]) for m in re.finditer(BARE_NUMBER, text)]
    assert not found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_badge_opens_this_notebook(path):
    "A lesson's opens the students' version."
    text = "\n".join(cell_sources(path, "markdown"))
    badges = re.findall(r"\]\((https://colab[^)]*/blob/[^)]*)\)", text)
    lesson = path.parent.name == "workshop" and path.name[0].isdigit()
    opened = f"nbs/workshop/_students/{path.name}" if lesson else f"nbs/{name(path)}"
    assert badges == [f"{COLAB}/{opened}"] and (ROOT / opened).exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_docstring_names_the_page_of_its_chapter(path):
    code = "\n".join(cell_sources(path, "code"))
    module = re.search(r"^#\| default_exp (\w+)", code, re.M)
    if not module: return
    page = path.with_name(re.sub(r"^\d\d_", "", path.stem) + ".html")
    exported = (ROOT / "cosmoflow" / f"{module[1]}.py").read_text(encoding="utf-8")
    docstring = exported.split('"""')[1]
    line = f"Docs: {SITE}/{name(page)}"
    assert docstring.endswith(f"\n\n{line}"), f"end the first cell with\n> \n> {line}"

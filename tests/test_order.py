"""One reading order: side bar, README, home page and "Where next" lead the same way, and text names a chapter by its title, since numbers move."""
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
NBS = ROOT / "nbs"
SITE = "https://cosmoflow.github.io/cosmoflow"
COLAB = "https://colab.research.google.com/github/cosmoflow/cosmoflow/blob/main"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
name = lambda path: path.relative_to(NBS).as_posix()


def side_bar():
    "Every page of the site, as its side bar has them, but those that are made by code."
    entries = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["sidebar"]["contents"]
    pages = [page for e in entries for page in (e["contents"] if isinstance(e, dict) else [e])]
    return [page for page in pages if page not in ("site/api.md", "site/references.md")]


def cells(path, kind="markdown"): return ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def links(text, page):
    "What a page links under nbs/, each once, in the order in which it is first named."
    targets = [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)", text)]
    return list(dict.fromkeys(name(t) for t in targets if t.is_relative_to(NBS) and t.suffix in (".ipynb", ".md")))


def test_side_bar_holds_every_page_once_and_numbers_rise():
    pages = side_bar()
    assert sorted(pages) == sorted([name(p) for p in NOTEBOOKS] + [name(p) for p in NBS.rglob("*.md")])
    for folder in ("course", "experiments", "workshop"):
        numbered = [page for page in pages if re.match(rf"{folder}/\d\d_", page)]
        assert numbered == sorted(numbered)


def test_where_next_leads_on():
    chain = [p for p in side_bar() if not p.startswith("site/") and p not in ("workshop/slides.ipynb", "workshop/handout.md")]
    astray = {}
    for page, after in pairwise(chain):
        text = cells(NBS / page)[-1] if page.endswith(".ipynb") else (NBS / page).read_text()
        _, found, end = text.rpartition("Where next")
        if not found or links(end, NBS / page)[:1] != [after]: astray[page] = f"should first lead to {after}: {end.strip() or 'no `Where next` in the last cell'}"
    assert not astray


def test_readme_and_home_page_list_the_same_order():
    pages = side_bar()
    readme = links((ROOT / "README.md").read_text(), ROOT / "README.md")
    assert readme == [p for p in pages if p in readme]
    asked = [p for p in pages if p == "00_demo.ipynb" or p.startswith(("course/", "tools/", "experiments/"))]
    assert set(asked) <= set(readme), "README names no " + ", ".join(p for p in asked if p not in readme)
    home = [links(paragraph, NBS / "index.ipynb") for paragraph in "\n\n".join(cells(NBS / "index.ipynb")).split("\n\n")]
    for folder in ("course/", "experiments/"):
        asked = [p for p in pages if p.startswith(folder)]
        assert asked in [[p for p in paragraph if p.startswith(folder)] for paragraph in home], f"no paragraph of the home page lists all of {folder} in order"


def test_text_names_chapters_by_title():
    "`experiment 04` is a name, `notebook 04`, `[04]` and a bare 04 are not; a table may put a file's own number before its title."
    prose = {name(p): "\n\n".join(cells(p)) for p in NOTEBOOKS}
    pages = [*NBS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "cosmoflow").rglob("*.md")]
    prose |= {p.relative_to(ROOT).as_posix(): p.read_text() for p in pages}
    code = {name(p): "\n\n".join(cells(p, "code")) for p in NOTEBOOKS}
    code |= {p.relative_to(ROOT).as_posix(): p.read_text() for p in [*ROOT.glob("cosmoflow/*.py"), *ROOT.glob("tests/*.py"), *NBS.glob("*/*.py"), ROOT / "Makefile"] if p != Path(__file__)}
    found = [(page, m[0]) for texts in (prose, code) for page, text in texts.items() for m in re.finditer(r"(?i)\b(?:notebook|chapter)s?[\s\[(]{1,3}\d+", text)]
    for page, text in prose.items():
        for pattern in (r"```.*?```", r"`[^`\n]*`", r"\$[^$]*\$", r"\[(\d\d) [^\]]*\]\([^)]*\b\1_\w+\.ipynb\)", r"\]\([^)]*\)"): text = re.sub(pattern, "", text, flags=re.S)
        found += [(page, m[0]) for m in re.finditer(r".{0,20}(?<!experiment )(?<![\w.,:/–-])0\d(?![\w%:/–-]|[.,]\d).{0,20}", text)]
    assert not found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_head_links_itself(path):
    "The badge opens this very notebook, and the docstring of a module names the page of its own chapter."
    assert re.findall(r"\]\((https://colab[^)]*/blob/[^)]*)\)", "\n".join(cells(path))) == [f"{COLAB}/nbs/{name(path)}"]
    page = f"{SITE}/{(path.parent.relative_to(NBS) / re.sub(r'^[0-9]{2}_', '', path.stem)).as_posix()}.html"
    module = re.findall(r"^#\| default_exp (\w+)", "\n".join(cells(path, "code")), re.M)
    if module: assert (ROOT / "cosmoflow" / f"{module[0]}.py").read_text().split('"""')[1].endswith(f"\n\nDocs: {page}"), f"end the first cell of the notebook with\n> \n> Docs: {page}"

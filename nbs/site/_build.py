"""Builds the documentation site into _docs, with smalldocs, whose pages the tests look at.

Use: python nbs/site/_build.py [--quarto]
"""
import argparse
import ast
import builtins
import importlib
import inspect
import json
import re
import runpy
import shutil
import subprocess
from os.path import relpath
from pathlib import Path

import matplotlib
import yaml
from nbdev.serve import proc_nbs
from nbdev.showdoc import show_doc
from pybtex.database import parse_file
from pybtex.plugin import find_plugin
from smalldocs import layout, site

ROOT = Path(__file__).parents[2]
PROCESSED, OUT = ROOT / "_proc", ROOT / "_docs"
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")


def reading_order() -> list[Path]:
    "The sources of all pages, in the order of the side bar."
    bar = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]["sidebar"]
    pages = []
    for entry in bar["contents"]:
        pages += entry["contents"] if isinstance(entry, dict) else [entry]
    return [ROOT / "nbs" / page for page in pages]


def references() -> str:
    "The page of references, from the .bib: an anchor a key, sorted by author."
    style, backend = find_plugin("pybtex.style.formatting", "plain")(), find_plugin("pybtex.backends", "markdown")()
    entries = style.format_entries(parse_file(ROOT / "nbs" / "site" / "references.bib").entries.values())
    lines = [f'<span id="{e.key}"></span>{e.text.render(backend)}' for e in sorted(entries, key=lambda e: e.key)]
    head = "---\ntitle: References\ndescription: What the notebooks cite; made from references.bib.\n---\n"
    return "\n\n".join([head, *(re.sub(r"\\([^\\])", r"\1", line.replace("\n", " ")) for line in lines)]) + "\n"


# What most people call, in the order in which they do.
FIRST = ("data.open_maps", "model.Pretrained.from_pretrained", "model.CosmoFlow.encode",
         "model.CosmoFlow.summarise", "model.CosmoFlow.decode",
         "model.CosmoFlow.generate", "spectra.power_spectrum",
         "spectra.cross_correlation", "train.train", "evaluate.evaluate")


def first_names() -> str:
    "The ten names to begin with: a table with the first line of what each says."
    rows = ["| | |", "|---|---|"]
    for path in FIRST:
        module, _, name = path.partition(".")
        value = importlib.import_module(f"cosmoflow.{module}")
        for part in name.split("."): value = getattr(value, part)
        shown = name.replace("Pretrained", "CosmoFlow")  # which has it from there
        line = inspect.getdoc(value).splitlines()[0]
        rows.append(f"| [`{shown}`](#{name.lower()}) | {line} |")
    return "## Ten to begin with\n\n" + "\n".join(rows)


def api_reference() -> str:
    "Every public name: signature, shape and unit of each argument, link to its source."
    repo = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]["repo-url"]
    head = "---\ntitle: API reference\ndescription: Every public name of the package, module by module.\n---"
    text = [head, first_names()]
    for path in reading_order():
        if path.suffix != ".ipynb": continue
        found = re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8"))
        if not found: continue
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0]
        title = first.removeprefix("# ").strip()
        link = relpath(path, ROOT / "nbs" / "site")
        module = importlib.import_module(f"cosmoflow.{found[1]}")
        text.append(f"## cosmoflow.{found[1]}\n\n{module.__doc__.splitlines()[0]} Explained in [{title}]({link}).")
        names = [(name, getattr(module, name)) for name in module.__all__]
        methods = [(f"{n}.{m}", getattr(c, m)) for n, c in names if inspect.isclass(c) for m, f in vars(c).items() if not m.startswith("_") and m != "forward" and callable(getattr(c, m))]
        for name, value in names + methods:
            if not callable(value):
                text.append(f"### {name}\n\n`{name} = {value!r}`" if len(repr(value)) < 300 else f"### {name}\n\nA constant of type `{type(value).__name__}`.")
                continue
            doc = show_doc(value)._repr_markdown_().split("###", 1)[1].split("\n", 1)[1]
            line = inspect.getsourcelines(inspect.unwrap(value))[1]
            text.append(f"### {name}\n{doc.rstrip().removesuffix('---').rstrip()}\n\n[source]({repo}/blob/main/cosmoflow/{found[1]}.py#L{line})")
    return "\n\n".join(text) + "\n"


def is_ceremony(
    cell: dict,  # of a notebook
) -> bool:
    "Whether a code cell only installs and imports."
    if cell["cell_type"] != "code" or cell.get("outputs"): return False
    source = "".join(cell["source"])
    if 'find_spec("cosmoflow")' in source: return True
    try: lines = ast.parse(source).body
    except SyntaxError: return False
    return all(isinstance(line, ast.Import | ast.ImportFrom) for line in lines)


def unfolded(
    source: str,  # of a code cell, with nbdev's directives
) -> str:         # without those on folding and export
    "A cell's code as it stands open on the page."
    return re.sub(r"^#\| ?(?:code-fold|code-summary|exports?)\b.*\n", "", source, flags=re.M)


def fold(
    cell: dict,    # changed in place
    summary: str,  # what stands in its place
) -> None:
    "Folds a code cell to one line that opens at a click."
    source = unfolded("".join(cell["source"]))
    cell["source"] = f'#| code-fold: true\n#| code-summary: "{summary}"\n' + source


def arrange(
    cells: list[dict],  # of a notebook, as nbdev has documented it
    lesson: bool,       # a chapter, whose code is read; else its names are looked up
) -> list[dict]:        # as the site shows them
    """Folds what is the same on every page, and shows each signature once.

    A chapter shows the code itself, and what only serves it stays folded. Other pages
    show the documentation that nbdev makes, with the source folded.
    """
    found: list[dict] = []
    for cell in cells:
        source = "".join(cell["source"])
        if is_ceremony(cell):
            bare = re.sub(r"^#\|.*\n", "", source, flags=re.M)
            if found and is_ceremony(found[-1]):
                found[-1]["source"] += "\n\n" + bare
                continue
            cell["source"] = bare
            fold(cell, "Set-up: imports, and installation on Colab")
        elif lesson and source.startswith("#| echo: false") and "show_doc(" in source:
            continue
        elif exercise := cell.get("metadata", {}).get("nbgrader", {}):
            number = exercise["grade_id"].rpartition("-")[2]
            what = "A solution" if exercise["solution"] else "The check"
            fold(cell, f"{what} of exercise {number}")
        elif "#| exports" in source:
            name = re.search(r"^(?:class|def) (\w+)", source, re.M)
            if not lesson or name and name[1].startswith("_"):
                fold(cell, f"Source of {name[1]}" if name else "Source")
            else:
                cell["source"] = unfolded(source)
        found.append(cell)
    return found


GLOSSARY = ROOT / "nbs" / "site" / "glossary.md"
EVERYDAY = {"box", "h", "k", "batch", "channel", "phases", "mask", "solver", "summary",
            "velocity", "decoder", "encoder", "cold", "residual", "CMD", "LH"}
# Where a link would break something, or stands already: code, maths, links, tags,
# headings, table rows.
TAKEN = re.compile(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|"
                   r"<[^>]*>|^\#.*?$|^\|.*?$|^>.*?$", re.S | re.M)


def glossary_terms() -> dict[str, str]:
    "What the glossary explains, but for everyday words: term -> its anchor."
    names = re.findall(r"^\| \*\*(.+?)\*\*", GLOSSARY.read_text(encoding="utf-8"), re.M)
    return {term: re.sub(r"\W+", "-", name).strip("-").lower() for name in names
            for term in name.split(", ") if term not in EVERYDAY}


def link_terms(
    cells: list[dict],  # of a page, changed in place
    glossary: str,      # address of the glossary, seen from the page
) -> None:
    "Links each term to the glossary where the page's text first has it."
    terms = glossary_terms()
    for cell in [c for c in cells if c["cell_type"] == "markdown"]:
        text, parts, end = "".join(cell["source"]), [], 0
        for taken in [*TAKEN.finditer(text), None]:
            plain = text[end:taken.start() if taken else None]
            for term in sorted(terms, key=len, reverse=True):
                word = rf"(?<![\w\[-]){re.escape(term)}(?![\w\]-])"
                linked = rf"[\g<0>]({glossary}#{terms[term]}){{.term}}"
                plain, found = re.subn(word, linked, plain, count=1)
                if found: del terms[term]
            parts.append(plain)
            if taken:
                parts.append(taken[0])
                end = taken.end()
        cell["source"] = "".join(parts)


def process() -> None:
    """Fills _proc with the notebooks as nbdev documents them.

    Numbers move from file names into titles, so that an address lasts when chapters move.
    """
    builtins.matplotlib = matplotlib  # show_doc evaluates annotations, where functions import it only when called
    shutil.rmtree(PROCESSED, ignore_errors=True)
    proc_nbs(str(ROOT / "nbs"), n_workers=0, force=True)
    for path in PROCESSED.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"] = arrange(notebook["cells"], lesson=path.parent.name == "course")
        glossary = relpath(PROCESSED / "site" / "glossary.md", path.parent)
        link_terms(notebook["cells"][2:], glossary)
        path.write_text(json.dumps(notebook), encoding="utf-8")
    workshop = runpy.run_path(str(ROOT / "nbs" / "workshop" / "_build.py"))
    workshop["write_slides"](PROCESSED / "workshop" / "deck" / "index.html")
    glossary = GLOSSARY.read_text(encoding="utf-8")
    anchor = lambda row: re.sub(r"\W+", "-", row[1]).strip("-").lower()
    (PROCESSED / "site" / "glossary.md").write_text(
        re.sub(r"^\| \*\*(.+?)\*\*", lambda row: f'| <span id="{anchor(row)}"></span>**{row[1]}**',
               glossary, flags=re.M), encoding="utf-8")
    (PROCESSED / "site" / "references.md").write_text(references(), encoding="utf-8")
    (PROCESSED / "site" / "api.md").write_text(api_reference(), encoding="utf-8")
    for path in [p for p in PROCESSED.rglob("*") if p.suffix in (".ipynb", ".md")]:
        text = BADGE.sub(r"<a class='colab' href='\1'>Open in Colab</a>", path.read_text(encoding="utf-8"))
        text = re.sub(r"\]\(((?:[\w.]+/)*)\d\d_(\w+)\.ipynb", r"](\1\2.ipynb", text)
        api = relpath(PROCESSED / "site" / "api.md", path.parent)
        text = re.sub(r"\]\(/[\w/]+\.html#([\w.]+)\)", rf"]({api}#\1)", text)  # nbdev's
        number = re.match(r"\d\d(?=_)", path.name)
        if number:
            text = re.sub(r"""("title: (?:'|\\")?)""", rf"\g<1>{number[0]} ", text, count=1)
        path.unlink()
        path.with_name(re.sub(r"^\d\d_", "", path.name)).write_text(text, encoding="utf-8")
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    (PROCESSED / "_quarto.yml").write_text(re.sub(r"\b\d\d_(\w+\.ipynb)", r"\1", config), encoding="utf-8")
    for left in (ROOT / "nbs").glob("*.yml"): left.unlink()  # nbdev writes Quarto settings of its own beside the notebooks


def picture_sizes() -> dict[str, str]:
    "How large each picture of double density stands: base64 -> attributes of `<img>`."
    sizes = {}
    for path in PROCESSED.rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in (o for cell in cells for o in cell.get("outputs", [])):
            size = output.get("metadata", {}).get("image/png")
            if not size: continue
            picture = "".join(output["data"]["image/png"]).strip()
            sizes[picture] = 'width="{width}" height="{height}"'.format(**size)
    return sizes


def render(
    quarto: bool,  # with Quarto, instead of smalldocs
) -> None:
    "Renders _proc into _docs."
    shutil.rmtree(OUT, ignore_errors=True)
    if quarto:
        subprocess.run(["quarto", "render", PROCESSED, "--no-execute"], check=True)
    else:
        layout.KATEX = "KATEX"  # a place that each page can find, wherever it stands
        broken = site.build(PROCESSED).broken
        broken = sorted({f"{page}: {link}" for page, link in broken})
        if broken: raise SystemExit("broken links: " + "; ".join(broken))
    shutil.copytree(ROOT / "nbs" / "site" / "katex", OUT / "katex", dirs_exist_ok=True)
    sizes = picture_sizes()
    sized = lambda m: f"{m[0]} {sizes[m[1]]}" if m[1] in sizes else m[0]
    for page in OUT.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r'"(?:KATEX|katex)/', f'"{relpath(OUT / "katex", page.parent)}/', text)
        text = re.sub(r'src="data:image/png;base64,([^"]*)"', sized, text)
        page.write_text(re.sub(r'<(pre|span class="math display")(?=[ >])(?![^>]*tabindex)', r'<\1 tabindex="0"', text), encoding="utf-8")  # scroll by keyboard too
    for sheet in OUT.rglob("*.css"):  # themes ask another host for their fonts; the system's serve as well
        sheet.write_text(re.sub(r"@import\s+url\([^)]*\)\s*;|@import\s+[\"']https?:[^;]*;", "", sheet.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarto", action="store_true",
        help="render with Quarto, which must be installed; no test has seen its pages")
    args = parser.parse_args()
    if args.quarto and not shutil.which("quarto"):
        parser.error("--quarto: found no program `quarto`; install it, or leave this out")
    process()
    render(args.quarto)
    if args.quarto: print("Quarto made these pages. No test has seen them: look at them.")
    print(f"open {OUT / 'index.html'}")

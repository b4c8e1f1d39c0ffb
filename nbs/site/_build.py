"""Builds the documentation site into _docs, with smalldocs; tests look at its pages.

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
import sys
from functools import cache
from os.path import relpath
from pathlib import Path

import matplotlib
import nbdev.processors
import yaml
from _live import FIGURE, add_live
from nbdev.serve import proc_nbs
from nbdev.showdoc import show_doc
from pybtex.database import parse_file
from pybtex.plugin import find_plugin
from smalldocs import layout, site

ROOT = Path(__file__).parents[2]
PROCESSED, OUT = ROOT / "_proc", ROOT / "_docs"
# nbdev would read its settings anew for every cell, and jsonschema compile a grammar of
# web addresses, which no page needs.
nbdev.processors.get_config = cache(nbdev.processors.get_config)
sys.modules["rfc3987_syntax"] = None
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")


def website() -> dict:
    "What _quarto.yml says of the site."
    text = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["website"]


def reading_order() -> list[Path]:
    "The sources of all pages, in the order of the side bar."
    pages = []
    for entry in website()["sidebar"]["contents"]:
        pages += entry["contents"] if isinstance(entry, dict) else [entry]
    return [ROOT / "nbs" / page for page in pages]


def references() -> str:
    "The page of references, from the .bib: an anchor a key, sorted by author."
    style = find_plugin("pybtex.style.formatting", "plain")()
    backend = find_plugin("pybtex.backends", "markdown")()
    sources = parse_file(ROOT / "nbs" / "site" / "references.bib").entries.values()
    text = ["---\ntitle: References\n"
            "description: What the notebooks cite; made from references.bib.\n---\n"]
    for e in sorted(style.format_entries(sources), key=lambda e: e.key):
        line = f'<span id="{e.key}"></span>{e.text.render(backend)}'.replace("\n", " ")
        text.append(re.sub(r"\\([^\\])", r"\1", line))
    return "\n\n".join(text) + "\n"


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
    repo = website()["repo-url"]
    head = ("---\ntitle: API reference\n"
            "description: Every public name of the package, module by module.\n---")
    text = [head, first_names()]
    for path in reading_order():
        if path.suffix != ".ipynb": continue
        found = re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8"))
        if not found: continue
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0]
        title = first.removeprefix("# ").strip()
        link = relpath(path, ROOT / "nbs" / "site")
        module = importlib.import_module(f"cosmoflow.{found[1]}")
        says = module.__doc__.splitlines()[0]
        says += f" Explained in [{title}]({link})."
        text.append(f"## cosmoflow.{found[1]}\n\n{says}")
        names = [(name, getattr(module, name)) for name in module.__all__]
        methods = [(f"{n}.{m}", getattr(c, m))
                   for n, c in names if inspect.isclass(c) for m in vars(c)
                   if m[0] != "_" and m != "forward" and callable(getattr(c, m))]
        for name, value in names + methods:
            if not callable(value):
                short = len(repr(value)) < 300
                says = (f"`{name} = {value!r}`" if short else
                        f"A constant of type `{type(value).__name__}`.")
                text.append(f"### {name}\n\n{says}")
                continue
            doc = show_doc(value)._repr_markdown_().split("###", 1)[1].split("\n", 1)[1]
            line = inspect.getsourcelines(inspect.unwrap(value))[1]
            doc = doc.rstrip().removesuffix("---").rstrip()
            source = f"{repo}/blob/main/cosmoflow/{found[1]}.py#L{line}"
            text.append(f"### {name}\n{doc}\n\n[source]({source})")
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
    directives = r"^#\| ?(?:code-fold|code-summary|exports?)\b.*\n"
    return re.sub(directives, "", source, flags=re.M)


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
            # A method like `__call__` belongs to a class that is the lesson.
            if not lesson or name and re.match(r"_(?!\w*__$)", name[1]):
                fold(cell, f"Source of {name[1]}" if name else "Source")
            else:
                cell["source"] = unfolded(source)
        found.append(cell)
    return found


def first_picture(
    cell: dict,    # of a notebook
) -> dict | None:  # the output that holds it
    "The first picture that a cell draws."
    found = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    return found[0] if found else None


def image(
    output: dict,  # of a cell, with a picture
    alt: str,      # what it shows, in words
    style: str,    # its class
) -> str:
    "A picture as HTML, as wide as it is meant to be."
    size = output.get("metadata", {}).get("image/png", {})
    size = " ".join(f'{side}="{pixels}"' for side, pixels in size.items())
    data = "".join(output["data"]["image/png"]).strip()
    source = f'src="data:image/png;base64,{data}"'
    return f'<img class="{style}" {source} {size} alt="{alt}">'


def frame_pictures(
    cells: list[dict],  # of a page; changed in place
) -> None:
    "Moves the picture above each place for a live figure into it."
    for before, cell in zip(cells, cells[1:]):
        source = "".join(cell["source"])
        place = re.search(FIGURE, source)
        if cell["cell_type"] != "markdown" or not place: continue
        output, code = first_picture(before), "".join(before["source"])
        alt = re.search(r'^#\| fig-alt: "(.*)"$', code, re.M)[1]
        before["outputs"].remove(output)
        framed = f"{place[0]}\n{image(output, alt, 'still')}\n"
        cell["source"] = source.replace(place[0], framed)


def open_with_picture(
    cells: list[dict],  # of a chapter, as `arrange` returns them; changed in place
) -> None:
    """Puts a chapter's first picture right below its question.

    The picture of a section also stays in its section. One that stands before all
    sections moves, and its code is folded.
    """
    texts = ["".join(cell["source"]) for cell in cells]
    head = next(i for i, text in enumerate(texts) if "**The question.**" in text)
    drawn = next((i for i, cell in enumerate(cells) if first_picture(cell)), None)
    if drawn is None: return
    output = first_picture(cells[drawn])
    alt = re.search(r'^#\| fig-alt: "(.*)"$', texts[drawn], re.M)[1]
    shown = image(output, alt, "opening")
    above = "\n".join(text for cell, text in zip(cells[:drawn], texts)
                      if cell["cell_type"] == "markdown")
    if headings := re.findall(r"^##+ (.*)$", above, re.M):
        name = re.sub(r"[^\w -]", "", headings[-1]).strip().lower().replace(" ", "-")
        shown += f"\n\n*From the section [{headings[-1]}](#{name}).*"
    else:
        fold(cells[drawn], "How we drew the picture above")
        cells[drawn]["outputs"].remove(output)
    opening, mark, rest = texts[head].partition("**You will learn**")
    cells[head:head + 1] = [{"cell_type": "markdown", "metadata": {}, "source": part}
                            for part in (opening, shown, mark + rest)]


GLOSSARY = ROOT / "nbs" / "site" / "glossary.md"
ROW = r"^\| \*\*(.+?)\*\*"  # of its tables: the name
EVERYDAY = {"1P", "CMD", "CV", "LH", "WDM", "batch", "box", "channel", "cold",
            "decoder", "encoder", "epoch", "filaments", "h", "k", "kernel",
            "learning by heart", "learning rate", "mask", "mode", "phases", "prior",
            "residual", "ring", "schedule", "score", "seed", "set", "slab", "solver",
            "stride", "student", "suite", "summary", "symmetries", "teacher", "test",
            "training", "validation", "velocity", "voids"}
# Where a link would break something, or stands already: code, maths, links, tags,
# summaries, headings, table rows.
TAKEN = re.compile(r"```.*?```|<details class=.*?</details>|<summary>.*?</summary>|"
                   r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|"
                   r"^\#.*?$|^\|.*?$|^>.*?$", re.S | re.M)


def anchor(
    name: str,  # as the glossary has it, for example "k, wavenumber"
) -> str:
    "Where a name of the glossary stands on its page."
    return re.sub(r"\W+", "-", name).strip("-").lower()


def glossary_terms() -> dict[str, str]:
    "What the glossary explains, but for everyday words: term -> its anchor."
    names = re.findall(ROW, GLOSSARY.read_text(encoding="utf-8"), re.M)
    return {term: anchor(name) for name in names
            for term in name.split(", ") if term not in EVERYDAY}


def link_terms(
    cells: list[dict],      # of a page, changed in place
    glossary: str,          # address of the glossary, seen from the page
    terms: dict[str, str],  # what it explains: term -> its anchor
) -> None:
    "Links each term to the glossary where the page's text first has it."
    for cell in [c for c in cells if c["cell_type"] == "markdown"]:
        text, parts, end = "".join(cell["source"]), [], 0
        for taken in [*TAKEN.finditer(text), None]:
            plain = text[end:taken.start() if taken else None]
            for term in sorted(terms, key=len, reverse=True):
                if term not in plain: continue  # to look is faster than to search
                if term not in terms: continue  # another name of the entry was linked
                word = rf"(?<![\w\[-]){re.escape(term)}(?:e?s)?(?![\w\]-])"
                word += r"(?![^][]*\]\()"  # not in what a longer term has linked
                linked = rf"[\g<0>]({glossary}#{terms[term]}){{.term}}"
                plain, found = re.subn(word, linked, plain, count=1)
                if not found: continue
                entry = terms[term]
                terms = {t: a for t, a in terms.items() if a != entry}
            parts.append(plain)
            if taken:
                parts.append(taken[0])
                end = taken.end()
        cell["source"] = "".join(parts)


def process() -> None:
    """Fills _proc with the notebooks as nbdev documents them.

    Numbers move from file names into titles: an address lasts when chapters move.
    """
    # show_doc evaluates annotations; some functions import these only when called.
    builtins.matplotlib = matplotlib
    builtins.ModelProto = type("ModelProto", (), {})  # ONNX's; the site needs no extra
    shutil.rmtree(PROCESSED, ignore_errors=True)
    proc_nbs(str(ROOT / "nbs"), n_workers=0, force=True)
    terms = glossary_terms()
    for path in PROCESSED.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        lesson = path.parent.name == "course"
        notebook["cells"] = arrange(notebook["cells"], lesson)
        glossary = relpath(PROCESSED / "site" / "glossary.md", path.parent)
        link_terms(notebook["cells"][2:], glossary, terms)
        if lesson: open_with_picture(notebook["cells"])
        frame_pictures(notebook["cells"])
        path.write_text(json.dumps(notebook), encoding="utf-8")
    workshop = runpy.run_path(str(ROOT / "nbs" / "workshop" / "_build.py"))
    workshop["write_slides"](PROCESSED / "workshop" / "deck" / "index.html")
    row = lambda m: f'| <span id="{anchor(m[1])}"></span>**{m[1]}**'
    text = re.sub(ROW, row, GLOSSARY.read_text(encoding="utf-8"), flags=re.M)
    (PROCESSED / "site" / "glossary.md").write_text(text, encoding="utf-8")
    (PROCESSED / "site" / "references.md").write_text(references(), encoding="utf-8")
    (PROCESSED / "site" / "api.md").write_text(api_reference(), encoding="utf-8")
    for path in [p for p in PROCESSED.rglob("*") if p.suffix in (".ipynb", ".md")]:
        text = path.read_text(encoding="utf-8")
        text = BADGE.sub(r"<a class='colab' href='\1'>Open in Colab</a>", text)
        numbered = r"\]\(((?:[\w.]+/)*)\d\d_(\w+\.(?:ipynb|md))"
        text = re.sub(numbered, r"](\1\2", text)
        api = relpath(PROCESSED / "site" / "api.md", path.parent)
        twice = r"\[\[(`[^`]+`)\]\([^)]*\)\](?=\()"  # by us, and by nbdev once more
        text = re.sub(twice, r"[\1]", text)
        private = r"\[(`_\w+`)\]\(/[\w/]+\.html#_\w+\)"  # nbdev links these, too
        text = re.sub(private, r"\1", text)
        text = re.sub(r"\]\(/[\w/]+\.html#([\w.]+)\)", rf"]({api}#\1)", text)  # nbdev's
        number = re.match(r"\d\d(?=_)", path.name)
        if number:
            title = r"""("title: (?:'|\\")?)"""
            text = re.sub(title, rf"\g<1>{number[0]} ", text, count=1)
        path.unlink()
        name = re.sub(r"^\d\d_", "", path.name)
        path.with_name(name).write_text(text, encoding="utf-8")
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    config = re.sub(r"\b\d\d_(\w+\.(?:ipynb|md))", r"\1", config)
    (PROCESSED / "_quarto.yml").write_text(config, encoding="utf-8")
    # nbdev writes Quarto settings of its own beside the notebooks.
    for left in (ROOT / "nbs").glob("*.yml"): left.unlink()


def picture_sizes() -> dict[str, str]:
    "How large each picture of double density stands: base64 -> attributes of `<img>`."
    sizes = {}
    for path in PROCESSED.rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in (o for cell in cells for o in cell.get("outputs", [])):
            size = output.get("metadata", {}).get("image/png")
            if not size: continue
            picture = "".join(output["data"]["image/png"]).strip()
            said = (side for side in ("width", "height") if side in size)
            sizes[picture] = " ".join(f'{side}="{size[side]}"' for side in said)
    return sizes


def framed(
    picture: re.Match,  # an `<img>`
) -> str:
    "A picture, in a frame in which it can scroll on a phone if it is a wide one."
    width = re.search(r' width="(\d+)"', picture[0])
    if not width or int(width[1]) <= 600: return picture[0]
    frame = f'<span class="wide" style="--natural: {width[1]}px" tabindex="0">'
    return f"{frame}{picture[0]}</span>"


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
        katex = relpath(OUT / "katex", page.parent)
        text = re.sub(r'"(?:KATEX|katex)/', f'"{katex}/', text)
        bare = r'(?<!opening" )(?<!still" )src="data:image/png;base64,([^"]*)"'
        text = re.sub(bare, sized, text)
        text = re.sub(r'<img\b(?:[^>"]|"[^"]*")*>', framed, text)
        wide = r'<(pre|span class="math display")(?=[ >])(?![^>]*tabindex)'
        text = re.sub(wide, r'<\1 tabindex="0"', text)  # scrolls by keyboard, too
        page.write_text(text, encoding="utf-8")
    # Themes ask another host for their fonts. Those of the system serve as well.
    fonts = r"@import\s+url\([^)]*\)\s*;|@import\s+[\"']https?:[^;]*;"
    for sheet in OUT.rglob("*.css"):
        text = re.sub(fonts, "", sheet.read_text(encoding="utf-8"))
        sheet.write_text(text, encoding="utf-8")
    add_live(OUT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarto", action="store_true",
        help="render with Quarto, which must be installed; no test has seen its pages")
    args = parser.parse_args()
    if args.quarto and not shutil.which("quarto"):
        parser.error("--quarto: found no program `quarto`; "
                     "install it, or leave this out")
    process()
    render(args.quarto)
    if args.quarto: print("Quarto made these pages, and no test has seen them: look!")
    print(f"open {OUT / 'index.html'}")

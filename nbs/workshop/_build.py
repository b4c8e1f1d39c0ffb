"""Writes what is handed out: the student versions of the lessons, as nbgrader's generate_assignment makes them, and the slides.

Use: python nbs/workshop/_build.py FOLDER
"""
import json
import re
import shutil
import sys
from os.path import normpath
from pathlib import Path

from nbconvert import SlidesExporter

HERE = Path(__file__).parent
SITE = "https://cosmoflow.github.io/cosmoflow"  # where links of the slides lead
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.S | re.M)


def without_solution(source: str) -> str:
    "The source of a cell with each solution replaced by an invitation."
    return SOLUTION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", source)


def student_version(notebook: dict) -> dict:
    "A lesson without solutions and without outputs, which would give them away."
    cells = []
    for cell in notebook["cells"]:
        cell = {**cell, "source": without_solution("".join(cell["source"])).splitlines(keepends=True)}
        if cell["cell_type"] == "code": cell |= {"outputs": [], "execution_count": None}
        cells.append(cell)
    return {**notebook, "cells": cells}


def slides() -> str:
    "The slides as one page of HTML that needs the folders reveal and katex beside it, and no network."
    exporter = SlidesExporter(template_name="slides", extra_template_basedirs=[str(HERE)], exclude_input=True, reveal_url_prefix="reveal", reveal_theme="white")
    page = exporter.from_filename(str(HERE / "slides.ipynb"))[0]
    link = lambda m: f'href="{SITE}/{re.sub(r"[0-9][0-9]_", "", normpath(f"workshop/{m[1]}"))}.html"'
    return re.sub(r'href="((?!https?:)[^"#]+)\.(?:ipynb|md)"', link, page)


def write_slides(
    page: Path,  # of the slides; what they need goes beside it
) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(slides(), encoding="utf-8")
    for folder in (HERE / "slides" / "reveal", HERE.parent / "site" / "katex"):
        shutil.copytree(folder, page.parent / folder.name, dirs_exist_ok=True)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.glob("[0-9]*.ipynb")):
        text = json.dumps(student_version(json.loads(path.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False) + "\n"
        (out / path.name).write_text(text, encoding="utf-8")
    write_slides(out / "slides.html")
    print(f"open {out / 'slides.html'}, hand out {out}/*.ipynb")

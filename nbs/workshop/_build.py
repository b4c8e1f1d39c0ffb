"""Writes what is made from the lessons.

The students' versions in nbs/workshop/_students/, the solutions for `lesson.catch_up`
in the package, and in FOLDER all that is handed out, with the slides.

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
ROOT = HERE.parents[1]
STUDENTS = HERE / "_students"  # nbdev and the site leave such folders out
SITE = "https://cosmoflow.github.io/cosmoflow"  # where links of the slides lead
LESSONS = sorted(HERE.glob("[0-9]*.ipynb"))
SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION[ \t]*\n?", re.S | re.M)
TEACHERS = ("*The badge opens the lesson without solutions; on this page they are "
            "there to compare.*\n\n")


def exercise(cell: dict) -> str | None:
    "The number of the exercise that a cell holds the solution of, if it does."
    meta = cell["metadata"].get("nbgrader", {})
    return meta["grade_id"].removeprefix("exercise-") if meta.get("solution") else None


def student_cell(cell: dict) -> dict:
    "A cell without its solution and its outputs, which would give it away."
    source, number = "".join(cell["source"]), exercise(cell)
    if number:
        stub = (r"\1# YOUR CODE HERE, in place of the next line\n"
                rf"\1raise lesson.not_started({number})\n")
        source = SOLUTION.sub(stub, source)
    if cell["cell_type"] == "markdown":
        source = source.replace(TEACHERS, "").replace("](../", "](../../")
    is_code = cell["cell_type"] == "code"
    emptied = {"outputs": [], "execution_count": None} if is_code else {}
    return {**cell, "source": source.splitlines(keepends=True), **emptied}


def student_version(lesson: dict) -> dict:
    "A lesson as students get it."
    return {**lesson, "cells": [student_cell(cell) for cell in lesson["cells"]]}


def solutions(lesson: dict) -> dict[str, str]:
    "Exercise -> its cell with the solution."
    cells = {exercise(cell): "".join(cell["source"]) for cell in lesson["cells"]}
    return {n: SOLUTION.sub(r"\2", source) for n, source in cells.items() if n}


def build(students: Path, solved: Path) -> None:
    "Writes the students' versions into a folder, and the file of solutions."
    students.mkdir(parents=True, exist_ok=True)
    all_solutions = {}
    for path in LESSONS:
        lesson = json.loads(path.read_text(encoding="utf-8"))
        all_solutions[str(int(path.name[:2]))] = solutions(lesson)
        write(students / path.name, student_version(lesson))
    write(solved, all_solutions)


def write(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def slides() -> str:
    "The slides as one page; it needs the folders reveal and katex, and no network."
    exporter = SlidesExporter(
        template_name="slides", extra_template_basedirs=[str(HERE)], exclude_input=True,
        reveal_url_prefix="reveal", reveal_theme="white")
    page = exporter.from_filename(str(HERE / "slides.ipynb"))[0]
    address = lambda m: re.sub(r"[0-9][0-9]_", "", normpath(f"workshop/{m[1]}"))
    link = lambda m: f'href="{SITE}/{address(m)}.html"'
    return re.sub(r'href="((?!https?:)[^"#]+)\.(?:ipynb|md)"', link, page)


def write_slides(
    page: Path,  # of the slides; what they need goes beside it
) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(slides(), encoding="utf-8")
    for folder in (HERE / "slides" / "reveal", HERE.parent / "site" / "katex"):
        shutil.copytree(folder, page.parent / folder.name, dirs_exist_ok=True)


def hand_out(out: Path) -> None:
    "Copies the students' versions into a folder, and the slides with what they need."
    shutil.copytree(STUDENTS, out, ignore=shutil.ignore_patterns("README.md"),
                    dirs_exist_ok=True)
    write_slides(out / "slides.html")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    build(STUDENTS, ROOT / "cosmoflow" / "solutions.json")
    hand_out(out)
    print(f"open {out / 'slides.html'}, hand out {out}/*.ipynb")

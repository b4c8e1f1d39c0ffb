"""Lessons: the solutions pass their checks, an empty answer fails each of them, and the student version holds no solution."""
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

LESSONS = sorted((ROOT / "nbs" / "workshop").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    out = tmp_path_factory.mktemp("students")
    subprocess.run([sys.executable, ROOT / "nbs" / "workshop" / "_build.py", out], check=True, capture_output=True)
    return out


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
def test_student_version_holds_no_solution(lesson, students):
    solved, student = (json.loads(p.read_text(encoding="utf-8"))["cells"] for p in (lesson, students / lesson.name))
    assert len(solved) == len(student)
    for a, b in zip(solved, student):
        meta, a, b = a["metadata"].get("nbgrader", {}), "".join(a["source"]), "".join(b["source"])
        if meta.get("solution"): assert "### BEGIN SOLUTION" in a and "NotImplementedError" in b and "SOLUTION" not in b
        else: assert a == b
    assert not any(c.get("outputs") for c in student)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
def test_every_check_refuses_an_empty_answer_and_accepts_the_solution(lesson, students):
    "Up to the last check, in one process: before each solution is given, its check must fail with the student's cell."
    code = """
import json, sys
import matplotlib
matplotlib.use("Agg")
solved, student = (json.load(open(p))["cells"] for p in sys.argv[1:])
names, checks, empty = {}, 0, None
run = lambda source, where: exec(compile("".join(line for line in source if not line.lstrip().startswith("%")), where, "exec"), where_names)
for a, b in zip(solved, student):
    if a["cell_type"] != "code": continue
    meta = a["metadata"].get("nbgrader", {})
    if meta.get("solution"): solution, empty = a["source"], b["source"]
    if meta.get("grade"):
        where_names = dict(names)
        try: run(empty, "student"); run(a["source"], meta["grade_id"])
        except NotImplementedError: checks += 1
        else: sys.exit(meta["grade_id"] + " accepts an empty answer")
    where_names = names
    run(["pass\\n"] if "find_spec" in "".join(a["source"]) else a["source"], meta.get("grade_id", "cell"))
print(checks)
"""
    done = subprocess.run([sys.executable, "-c", code, lesson, students / lesson.name], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) == sum(c["metadata"].get("nbgrader", {}).get("grade", False) for c in json.loads(lesson.read_text(encoding="utf-8"))["cells"]) >= 3


def test_slides_show_without_a_network(students, browser):
    page, trouble = browser.new_page(viewport={"width": 1280, "height": 800}), []
    page.on("console", lambda m: m.type == "error" and trouble.append(m.text))
    page.on("pageerror", lambda e: trouble.append(str(e)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or trouble.append(f"asks {r.url}"))
    page.goto((students / "slides.html").as_uri())
    pictures = page.locator("section img")
    for i in range(1, page.evaluate("Reveal.getTotalSlides()")):
        page.keyboard.press("ArrowRight")
        while page.evaluate("Reveal.availableFragments().next"): page.keyboard.press("ArrowRight")
        assert page.evaluate("Reveal.getCurrentSlide().scrollHeight") <= 700, f"slide {i} is higher than the screen"
        assert page.evaluate("Reveal.getIndices().h") == i
    assert pictures.count() == 7 and page.locator(".katex-html").count() and not page.locator(".highlight").count()
    assert not trouble
    page.close()


def test_slides_show_every_exercise_and_keep_notes_apart():
    cells = json.loads((ROOT / "nbs/workshop/slides.ipynb").read_text())["cells"]
    told = [("".join(c["source"]), c["metadata"].get("slideshow", {}).get("slide_type")) for c in cells if c["cell_type"] == "markdown"]
    shown = [text for text, kind in told if kind == "slide" and "Now you" in text]
    assert len(shown) == len(LESSONS)
    for slide, lesson in zip(shown, LESSONS):
        texts = ["".join(c["source"]) for c in json.loads(lesson.read_text())["cells"] if c["cell_type"] == "markdown"]
        asked = [title for text in texts for title in re.findall(r"^#+ (?:\d )?✏️ (.*)", text, re.M)]
        assert [line.replace("★", "⭐") for line in re.findall(r"^- (.*)", slide, re.M)] == asked
    assert [kind for text, kind in told if re.search("instructors|make workshop", text)] == ["notes"]


def test_words_in_the_slides_pictures_are_large_enough():
    "At least 14 points where a picture fills its slide, which is 900 points wide."
    code = "\n".join("".join(c["source"]) for c in json.loads((ROOT / "nbs/workshop/slides.ipynb").read_text())["cells"] if c["cell_type"] == "code")
    size = float(re.search(r'"font.size": (\d+)', code)[1])
    widths = [float(w) for w in re.findall(r"figsize=\(([\d.]+)", code)]
    assert len(widths) >= 3 and size * 900 / (72 * max(widths)) >= 14 and "fontsize" not in code

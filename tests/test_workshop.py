"""What the workshop hands out: students' lessons, the guide's numbers, the slides."""
import json
import re
import sys
from collections import Counter

import nbformat
import pytest
from conftest import ROOT, cell_sources
from nbclient import NotebookClient

WORKSHOP = ROOT / "nbs" / "workshop"
STUDENTS = WORKSHOP / "_students"
LESSONS = sorted(WORKSHOP.glob("[0-9]*.ipynb"))
SLIDES = WORKSHOP / "slides.ipynb"
GUIDE = (WORKSHOP / "guide.md").read_text(encoding="utf-8")


def cells(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]


def graded(path):
    found = [cell["metadata"] for cell in cells(path)]
    return [metadata["nbgrader"] for metadata in found if "nbgrader" in metadata]


def printed(path):
    "All text that a notebook's outputs hold."
    outputs = [o for cell in cells(path) for o in cell.get("outputs", [])]
    return "".join("".join(o.get("text", "")) for o in outputs)


@pytest.fixture(scope="module")
def build():
    sys.path.insert(0, str(WORKSHOP))
    import _build
    return _build


@pytest.fixture(scope="module")
def handed_out(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("workshop")
    build.hand_out(out)
    return out


def by_name(paths): return {p.name: p.read_text(encoding="utf-8") for p in paths}


def test_students_versions_and_solutions_are_in_step(build, tmp_path):
    build.build(tmp_path / "students", tmp_path / "solutions.json")
    made = by_name((tmp_path / "students").iterdir())
    kept = by_name(STUDENTS.glob("*.ipynb"))
    assert made == kept, "run `make workshop` and commit nbs/workshop/_students/"
    made = (tmp_path / "solutions.json").read_text(encoding="utf-8")
    kept = (ROOT / "cosmoflow" / "solutions.json").read_text(encoding="utf-8")
    assert made == kept, "run `make workshop` and commit it"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
def test_student_version_holds_no_solution(lesson, build):
    student = STUDENTS / lesson.name
    # what the build leaves out is there to be left out: the sentence may have changed
    assert build.TEACHERS in "".join(cell_sources(lesson, "markdown"))
    assert "on this page they are" not in student.read_text(encoding="utf-8")
    assert student.stat().st_size < 60_000
    for a, b in zip(cells(lesson), cells(student), strict=True):
        meta = a["metadata"].get("nbgrader", {})
        a, b = "".join(a["source"]), "".join(b["source"])
        if meta.get("solution"):
            number = meta["grade_id"].removeprefix("exercise-")
            assert "### BEGIN SOLUTION" in a and "SOLUTION" not in b
            assert f"raise lesson.not_started({number})" in b
        elif a.startswith(("[![", "**", "#")) or "](../" in a:
            assert "](../../" in b or "](../" not in b
        else: assert a == b
    assert not any(c.get("outputs") for c in cells(student))
    for link in re.findall(r"\]\(([^)#:]+)\)", student.read_text(encoding="utf-8")):
        assert (student.parent / link).exists(), link


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
def test_nbgrader_knows_every_cell(lesson):
    "Each exercise has its check; those with a star carry no points, the others two."
    notebook = nbformat.read(lesson, 4)
    nbformat.validate(notebook)
    found = graded(lesson)
    ids = [m["grade_id"] for m in found]
    exercises = [i.removeprefix("exercise-") for i in ids if i.startswith("exercise-")]
    assert ids == [f"{kind}-{n}" for n in exercises for kind in ("exercise", "check")]
    assert exercises == [str(n + 1) for n in range(len(exercises))]
    text = "\n".join(cell_sources(lesson, "markdown"))
    starred = set(re.findall(r"^## (\d) ✏️ ⭐", text, re.M))
    for m in found:
        number = m["grade_id"][-1]
        assert m["locked"] == m["grade"] != m["solution"] and m["schema_version"] == 3
        if m["grade"]: assert m["points"] == (0 if number in starred else 2)


def run(notebook, folder):
    "What goes wrong in a lesson: errors of each check, and all errors."
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True,
                            timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute()
    errors = lambda cell: [output for output in cell.get("outputs", [])
                           if output.output_type == "error"]
    checks = [cell for cell in notebook.cells
              if cell.metadata.get("nbgrader", {}).get("grade")]
    return ([errors(cell) for cell in checks],
            [error for cell in notebook.cells for error in errors(cell)])


NOT_STARTED = r"✏️ Exercise \d is not started\. .*lesson\.catch_up\(\d\)"


def test_lesson_that_nobody_started_says_one_line_a_check_and_can_be_caught_up_with(
        tmp_path):
    "In a real kernel, as on Colab: the student's notebook alone, and the package."
    path = STUDENTS / LESSONS[0].name
    errors, everything = run(nbformat.read(path, 4), tmp_path)
    for number, found in enumerate(errors, 1):
        (error,) = found
        (line,) = error.traceback
        assert re.match(NOT_STARTED, line) and "\n" not in line
        if number <= 3: assert f"Exercise {number} " in line  # later ones need earlier
    assert not [error for error in everything if "not started" not in error.evalue]
    notebook = nbformat.read(path, 4)
    for cell in list(notebook.cells):
        meta = cell.metadata.get("nbgrader", {})
        if not meta.get("solution"): continue
        i = notebook.cells.index(cell)
        catch_up = nbformat.v4.new_code_cell(f"lesson.catch_up({meta.grade_id[-1]})")
        notebook.cells.insert(i + 1, catch_up)
    _, everything = run(notebook, tmp_path)
    assert not everything


def test_guide_gives_each_lesson_its_time_and_its_page():
    row = r"^\| (\d+)–(\d+) \| \[(\d): .*?\]\((\w+\.ipynb)\)"
    rows = re.findall(row, GUIDE, re.M)
    assert [page for *_, page in rows] == [p.name for p in LESSONS]
    for start, end, number, page in rows:
        head = "".join(cell_sources(WORKSHOP / page)[:2])
        said = {int(m) for m in re.findall(r"(\d+) minutes", head)}
        assert said == {int(end) - int(start)}, page
        part = re.search(rf"### Lesson {number}\n(.*?)(?=\n###? )", GUIDE, re.S)[1]
        spans = re.findall(r"^\| (\d+)–(\d+) \|", part, re.M)
        spans = [tuple(map(int, span)) for span in spans]
        assert spans[0][0] == 0 and spans[-1][1] == int(end) - int(start)
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:]))
        named = set(re.findall(r"Exercises? (\d)(?: and (\d))?", part))
        named = {n for pair in named for n in pair if n}
        points = {m["grade_id"][-1] for m in graded(WORKSHOP / page) if m.get("points")}
        assert points <= named, f"lesson {number}: {points - named} have no minutes"


def test_guide_counts_exercises_and_points():
    points = [m["points"] for p in LESSONS for m in graded(p) if m["grade"]]
    numbers = Counter(points)
    counts = r"(\d+) exercises, (\d+) of them starred.*?(\d+) points in all"
    (said,) = re.findall(counts, GUIDE, re.S)
    assert tuple(map(int, said)) == (len(points), numbers[0], sum(points))


def test_guide_and_lessons_repeat_what_the_lessons_print():
    single, mean, pca = map(float, re.search(
        r"single samples ([\d.]+), mean of twelve ([\d.]+), "
        r"principal components ([\d.]+)", printed(LESSONS[1])).groups())
    assert (f"Single {single:.2f}, mean {mean:.2f}, and principal components, {pca:.2f}"
            in GUIDE)
    assert f"{(25 / 64) ** 2:.3f}" in GUIDE
    share = re.search(r"the fine ones: ([\d.]+)", printed(LESSONS[3]))[1]
    assert float(share) < 0.5 and "It says *no*" in GUIDE
    table = dict(re.findall(r"^([a-z ]+?) +Omega_m +([\d.]+ .*?sigma_8 +[\d.]+)",
                            printed(LESSONS[4]), re.M))
    said = re.search(
        r"eight numbers ([\d.]+) and ([\d.]+) %, the linear fit on the spectrum "
        r"([\d.]+) and ([\d.]+), the weak one ([\d.]+) and (\d+\.\d)", GUIDE).groups()
    rows = [re.findall(r"(?:^|sigma_8 +)([\d.]+)", table[name])
            for name in ("summaries", "spectrum", "weak spectrum")]
    assert list(said) == [number for row in rows for number in row]


FOLDED = (r"<details class=.code-fold.>\s*"
          r"<summary>(A solution|The check) of exercise (\d)</summary>")
BADGE = r"colab\.research[^'\"]*/blob/main/([^'\"]*)"


def test_site_folds_every_solution_and_check_and_its_badge_opens_the_lesson_without(
        built_site):
    for path in LESSONS:
        page = built_site / "workshop" / f"{path.stem[3:]}.html"
        page = page.read_text(encoding="utf-8")
        parts = [("A solution" if m["solution"] else "The check", m["grade_id"][-1])
                 for m in graded(path)]
        assert re.findall(FOLDED, page) == parts
        assert re.findall(BADGE, page) == [f"nbs/workshop/_students/{path.name}"]
        outside = re.sub(r"<details.*?</details>", "", page, flags=re.S)
        assert "BEGIN SOLUTION" in page and "BEGIN SOLUTION" not in outside


def test_slides_show_without_a_network(handed_out, browser):
    page, trouble = browser.new_page(viewport={"width": 1280, "height": 800}), []
    is_local = lambda request: request.url.startswith(("file:", "data:"))
    page.on("console", lambda m: m.type == "error" and trouble.append(m.text))
    page.on("pageerror", lambda e: trouble.append(str(e)))
    page.on("request", lambda r: is_local(r) or trouble.append(f"asks {r.url}"))
    page.goto((handed_out / "slides.html").as_uri())
    pictures = page.locator("section img")
    for i in range(1, page.evaluate("Reveal.getTotalSlides()")):
        page.keyboard.press("ArrowRight")
        while page.evaluate("Reveal.availableFragments().next"):
            page.keyboard.press("ArrowRight")
        height = page.evaluate("Reveal.getCurrentSlide().scrollHeight")
        assert height <= 700, f"slide {i} is higher than the screen"
        assert page.evaluate("Reveal.getIndices().h") == i
    assert pictures.count() == 7 and page.locator(".katex-html").count()
    assert not page.locator(".highlight").count()
    assert not trouble
    page.close()


def test_slides_show_every_exercise_and_keep_notes_apart():
    told = [("".join(c["source"]), c["metadata"].get("slideshow", {}).get("slide_type"))
            for c in cells(SLIDES) if c["cell_type"] == "markdown"]
    shown = [text for text, kind in told if kind == "slide" and "Now you" in text]
    assert len(shown) == len(LESSONS)
    for slide, lesson in zip(shown, LESSONS):
        texts = cell_sources(lesson, "markdown")
        asked = [title for text in texts
                 for title in re.findall(r"^#+ (?:\d )?✏️ (.*)", text, re.M)]
        named = re.findall(r"^- (.*)", slide, re.M)
        assert [line.replace("★", "⭐") for line in named] == asked
    for_instructors = re.compile("instructors|make workshop")
    assert [kind for text, kind in told if for_instructors.search(text)] == ["notes"]


def test_words_in_the_slides_pictures_are_large_enough():
    "At least 14 points where a picture fills its slide, which is 900 points wide."
    code = "\n".join(cell_sources(SLIDES, "code"))
    size = float(re.search(r'"font.size": (\d+)', code)[1])
    widths = [float(w) for w in re.findall(r"figsize=\(([\d.]+)", code)]
    assert len(widths) >= 3 and size * 900 / (72 * max(widths)) >= 14
    assert "fontsize" not in code

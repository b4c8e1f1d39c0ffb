"""The site in a browser: nothing missing, nothing from elsewhere, fit for a phone."""
import functools
import json
import re
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import NOTEBOOKS, ROOT, sources, watched


def pages(site_root=ROOT / "_docs"):
    found = site_root.rglob("*.html")
    return sorted(path.relative_to(site_root).as_posix() for path in found)


def address(source):
    "Where the site shows a notebook or a text: its path without the number."
    path = source.relative_to(ROOT / "nbs")
    return (path.parent / re.sub(r"^\d\d_", "", path.stem)).as_posix() + ".html"


# From the code, from references.bib and from the slides:
MADE = ["site/api.html", "site/references.html", "workshop/deck/index.html"]
SOURCES = sorted([*NOTEBOOKS, *(ROOT / "nbs").glob("*/*.md")])


def test_every_source_has_its_page(site):
    assert sorted([*MADE, *map(address, SOURCES)]) == pages()


def test_titles_and_side_bar_show_the_numbers_of_the_files(built_site):
    for source in [p for p in NOTEBOOKS if re.match(r"\d\d_", p.name)]:
        number, name = source.stem.split("_", 1)
        folder = built_site / source.parent.relative_to(ROOT / "nbs")
        page = (folder / f"{name}.html").read_text(encoding="utf-8")
        for place in ("title", "sidebar-item-text sidebar-link active"):
            start = rf'class="{place}"[^>]*>(?:<span[^>]*>)?{number} \w'
            assert re.search(start, page), f"{source.name}: no number in {place}"


@functools.cache
def anchors(page):
    "All that an address can point at in a page."
    return {*re.findall(r'\bid="([^"]*)"', page.read_text(encoding="utf-8"))}


def has(page, anchor):
    "Whether there is this page with this anchor, if one is asked for."
    return page.is_file() and (not anchor or anchor in anchors(page))


def test_addresses_of_the_site_exist(built_site):
    "Those that stand in the package, its cards, README and notebooks."
    kinds = ".py", ".md", ".toml", ".ipynb"
    texts = [ROOT / path for path in sources() if path.suffix in kinds]
    base = r"https://cosmoflow.github.io/cosmoflow([\w./-]*)(#[\w.-]+)?"
    checked, gone = 0, []
    for text in texts:
        if text.parent.name == "tests": continue
        for path, anchor in re.findall(base, text.read_text(encoding="utf-8")):
            page = built_site / (path.strip("/").rstrip(".") or "index.html")
            if not has(page, anchor[1:]): gone.append((text.name, path + anchor))
            checked += 1
    assert checked > 15, "found none: does this test still see them?"
    assert not gone


NAMES = [*MADE, *map(address, SOURCES)]
BLANK = "i => i.filter(i => !i.naturalWidth).map(i => i.src)"
TOO_WIDE = """tables => tables.filter(
  t => t.parentElement.scrollWidth > t.parentElement.clientWidth
).map(t => t.rows[0].innerText)"""


def dead_links(page, site):
    "Links of a page into the site that lead nowhere."
    links = page.eval_on_selector_all("a[href]", "a => a.map(a => a.href)")
    for link in {link for link in links if link.startswith(site)}:
        path, _, anchor = unquote(link).removeprefix(f"{site}/").partition("#")
        target = ROOT / "_docs" / (path or "index.html")
        if not target.exists() or anchor and not has(target, anchor): yield link


def misplaced(page, width):
    "What does not fit a page into a window of this width."
    page.set_viewport_size({"width": width, "height": 844})
    scroll = page.evaluate("document.documentElement.scrollWidth")
    if scroll > width: yield f"scrolls sideways at {width} pixels"
    cut = page.eval_on_selector_all("main table", TOO_WIDE)
    if cut: yield f"tables wider than the page at {width} pixels: {cut}"
    if not page.locator("h1").first.is_visible(): yield f"no heading at {width} pixels"


# Code and formulas are thousands of spans, whose colours hang on their classes. One of
# each kind stays for axe, which takes half the time then. Of the others the text stays,
# and of all formulas but the first in MathML, too. The side bar is the same on all
# pages. The home page keeps it whole, and the others the link to themselves.
ONE_OF_A_KIND = """home => {
  const spans = [...document.querySelectorAll("pre span, .katex-html span")];
  const kinds = spans.map(span => {
    const whole = span.closest("pre, .katex-html");
    return JSON.stringify([
      span.checkVisibility(), whole.parentElement.className, whole.className,
      span.parentElement.className, span.className, span.style.cssText]);
  });
  const seen = new Set();
  spans.forEach((span, i) => {
    if (seen.has(kinds[i])) span.replaceWith(...span.childNodes);
    else seen.add(kinds[i]);
  });
  const formulas = [...document.querySelectorAll(".katex-mathml")];
  for (const f of formulas.slice(1)) f.replaceChildren(f.textContent);
  if (home) return;
  const others = "#quarto-sidebar .sidebar-item:not(:has(.active))";
  for (const item of document.querySelectorAll(others)) item.remove();
}"""
# What takes long, though what it finds is never serious.
SKIPPED = {"region": {"enabled": False}}


def inaccessible(page, home):
    "What axe finds serious: by rule, its first place and how many there are."
    page.evaluate(ONE_OF_A_KIND, home)
    options = {"resultTypes": ["violations"], "rules": SKIPPED}
    axed = Axe().run(page, options=options)
    for found in axed.response["violations"]:
        if found["impact"] in ("serious", "critical"):
            first, *_ = places = found["nodes"]
            yield found["id"], first["html"][:150], len(places)


@pytest.fixture(scope="module")
def tab(browser, site):
    "One for all pages: to open another takes as long as to look at a short page."
    page = watched(browser.new_page(), site)
    yield page
    page.close()


@pytest.mark.parametrize("name", NAMES)
def test_page_is_whole_fits_phone_and_desk_and_is_accessible(tab, site, name):
    "All of it at one visit, which takes most of the time."
    page = tab
    page.trouble.clear()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}/{name}", wait_until="load")
    assert not [*misplaced(page, 390), *misplaced(page, 1400)]
    dead = list(dead_links(page, site))  # before axe, for which some of them go
    assert not dead
    assert not list(inaccessible(page, home=name == "index.html"))
    assert not page.eval_on_selector_all("main img", BLANK)
    assert not page.trouble


def test_words_lead_to_the_glossary_once_a_page(page, site):
    for name in ("course/spectra", "course/simulate", "experiments/warm"):
        page.goto(f"{site}/{name}.html")
        links = page.eval_on_selector_all("main a.term", "a => a.map(a => a.href)")
        assert len(links) > 2 and len(links) == len(set(links)), name
        assert all("/site/glossary.html#" in link for link in links)
        assert not page.locator("main :is(h1, h2, h3, pre, table, a) a.term").count()


def test_no_link_stands_as_its_source(built_site):
    "A link in a link, or in the summary of a fold, would not become one."
    left = re.compile(r"\{\.term\}|</a>\]\(")
    found = [p.name for p in built_site.rglob("*.html")
             if left.search(p.read_text(encoding="utf-8"))]
    assert not found


def section(page, name):
    "The head of a page, and the section that an anchor leads to."
    text, depth, found = "", 0, ""
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        lines = cell["source"]
        if cell["cell_type"] != "markdown": lines = ["    " + line for line in lines]
        text += "\n" + "".join(lines)
    head, *parts = re.split(r"^(?=##+ )", text, flags=re.M)
    for part in parts:
        marks, heading = re.match(r"(#+) (.*)", part).groups()
        if depth and len(marks) <= depth: break
        if re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") == name:
            depth = len(marks)
        if depth: found += part
    return head, found


def test_each_word_of_the_glossary_leads_to_the_section_that_has_it(built_site):
    glossary = (ROOT / "nbs" / "site" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", glossary, re.M)
    assert len(rows) > 80
    plain = lambda text: re.sub(r"[\\{}$*`-]", " ", text).lower()
    for names, says in rows:
        link = re.search(r"\[[^\]]+\]\((\.\./[\w/.]+)#([^)]+)\)$", says)
        assert link, f"{names}: its last words lead to no section"
        source = (ROOT / "nbs" / "site" / link[1]).resolve()
        page = (built_site / address(source)).read_text(encoding="utf-8")
        place = f"{names}: the section {link[2]} of {source.name}"
        assert f'data-anchor-id="{link[2]}"' in page, f"{place} is not there"
        head, found = section(source, link[2])
        stems = [word[:6] for word in re.findall(r"\w{3,}", names.lower())]
        stems = stems or [names.split(", ")[0].lower()]
        read = plain(head + found)
        assert found and any(stem in read for stem in stems), f"{place} lacks it"


def test_headings_hold_no_mathematics():
    "A list of contents and a search show its source instead."
    for path in [*NOTEBOOKS, *(ROOT / "nbs").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r'^(?:\s*")?#+ [^"\n]*\$', text, re.M), path.name


def test_pictures_have_two_pixels_for_one(page, site):
    "The runner draws at double density; the site says how wide a picture stands."
    page.goto(f"{site}/course/spectra.html")
    shown = page.eval_on_selector_all(
        "main .cell-output-display img", "i => i.map(i => [i.naturalWidth, i.width])")
    assert len(shown) > 4
    for pixels, width in shown:
        assert 1.9 * width < pixels, "smaller on the page than half its pixels"


FRAMES = """frames => frames.map(frame => {
  const picture = frame.querySelector("img");
  const share = picture.width / picture.getAttribute("width");
  const hint = getComputedStyle(frame, "::after").content;
  return [frame.clientWidth, frame.scrollWidth, share, hint];
})"""


def test_wide_pictures_scroll_on_a_phone(page, site):
    "As narrow as a phone, the words of several panels would be too small to read."
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}/course/flow.html")
    frames = page.eval_on_selector_all("main .wide", FRAMES)
    assert len(frames) > 4
    for shown, whole, share, hint in frames:
        assert shown < 390 < whole and share > 0.69 and "Swipe" in hint
    page.set_viewport_size({"width": 1400, "height": 900})
    for shown, whole, _, hint in page.eval_on_selector_all("main .wide", FRAMES):
        assert whole <= shown and hint == "none"


def test_a_chapter_opens_with_its_question_and_its_picture(page, site):
    "Both stand whole on the first screen."
    for source in (ROOT / "nbs" / "course").glob("[0-9]*.ipynb"):
        page.goto(f"{site}/course/{source.stem[3:]}.html", wait_until="networkidle")
        assert page.get_by_text("The question.").bounding_box()["y"] < 400, source.name
        box = page.locator("main img").first.bounding_box()
        end = box["y"] + box["height"]
        assert end < 900, f"{source.name}: its first picture ends at {end:.0f} pixels"


def test_public_methods_of_a_lesson_stand_open(built_site):
    text = (built_site / "course" / "data.html").read_text(encoding="utf-8")
    folded = re.findall(r"Source of (\w+)", text)
    assert "_load_maps" in folded and "__call__" not in folded


def test_mathematics_is_rendered(page, site):
    page.goto(f"{site}/course/flow.html", wait_until="networkidle")
    assert page.locator(".katex-html").count() > 10
    assert page.locator(".katex-error").count() == 0
    assert "$" not in page.locator("main p").first.inner_text()
    assert page.evaluate("document.fonts.check('16px KaTeX_Math')")


CONTRASTS = """texts => {
  const numbers = colour => {
    const c = colour.match(/[\\d.]+/g).map(Number);
    return c.length < 4 ? [...c, 1] : c;
  };
  const over = (above, below) =>
    below.map((v, i) => above[i] * above[3] + v * (1 - above[3]));
  const light = c => c
    .map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return texts.map(text => {
    const layers = [];
    for (let e = text; e; e = e.parentElement)
      layers.unshift(numbers(getComputedStyle(e).backgroundColor));
    const ground = layers.reduce((below, above) => over(above, below), [255, 255, 255]);
    const ink = over(numbers(getComputedStyle(text).color), ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), text.innerText];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_found_pages_can_be_read(page, site, scheme, width):
    "The contrast that the WCAG ask for, of every text in the panel of the search."
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(site, wait_until="networkidle")
    if width < 1000: page.locator(".navbar-toggler").click()
    page.locator("#quarto-search input").fill("AdaGN")
    page.locator(".search-result-text").first.wait_for()
    found = page.eval_on_selector_all(".smalldocs-search-results *", CONTRASTS)
    assert len(found) > 10 and min(found)[0] >= 4.5, min(found)


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_handout_is_one_page(page, site, paper):
    page.goto(f"{site}/workshop/handout.html", wait_until="networkidle")
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format=paper))) == 1


def test_search_finds_a_term(page, site):
    page.goto(site, wait_until="networkidle")
    page.locator("input[type=search], #quarto-search input").first.fill("AdaGN")
    page.get_by_text("The velocity field").last.wait_for()
    hit = page.locator("a[href*='unet.html']:visible", has_text="AdaGN").first
    hit.click()
    page.wait_for_url("**/unet.html*")

"""Builds the documentation site into _docs: with Quarto where it is installed, else with smalldocs. Same pages, same order."""
import builtins
import re
import shutil
import subprocess
from os.path import relpath
from pathlib import Path

import matplotlib
from nbdev.serve import proc_nbs
from smalldocs import layout, site

ROOT = Path(__file__).parents[1]
PROCESSED, OUT = ROOT / "_proc", ROOT / "_docs"
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")


def process() -> None:
    "Fills _proc with the notebooks as nbdev documents them; pages lose their numbers, as nbdev's own links expect."
    builtins.matplotlib = matplotlib  # show_doc evaluates annotations, where functions import it only when called
    shutil.rmtree(PROCESSED, ignore_errors=True)
    proc_nbs(str(ROOT / "nbs"), n_workers=0, force=True)
    for path in [p for p in PROCESSED.rglob("*") if p.suffix in (".ipynb", ".md")]:
        text = BADGE.sub(r"<a class='colab' href='\1'>Open in Colab</a>", path.read_text())
        text = re.sub(r"\]\(((?:[\w.]+/)*)\d\d_(\w+)\.ipynb", r"](\1\2.ipynb", text)
        path.unlink()
        path.with_name(re.sub(r"^\d\d_", "", path.name)).write_text(text)
    config = (ROOT / "_quarto.yml").read_text()
    (PROCESSED / "_quarto.yml").write_text(re.sub(r"\b\d\d_(\w+\.ipynb)", r"\1", config))
    for left in (ROOT / "nbs").glob("*.yml"): left.unlink()  # nbdev writes Quarto settings of its own beside the notebooks


def render() -> None:
    "Renders _proc into _docs."
    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", PROCESSED, "--no-execute"], check=True)
    else:
        layout.KATEX = "KATEX"  # a place that each page can find, wherever it stands
        broken = site.build(PROCESSED).broken
        if broken: raise SystemExit("broken links: " + "; ".join(f"{page}: {link}" for page, link in broken))
    shutil.copytree(ROOT / "nbs" / "katex", OUT / "katex", dirs_exist_ok=True)
    for page in OUT.rglob("*.html"):
        text = page.read_text().replace('"KATEX/', f'"{relpath(OUT / "katex", page.parent)}/')
        page.write_text(re.sub(r'<(pre|span class="math display")(?=[ >])(?![^>]*tabindex)', r'<\1 tabindex="0"', text))  # scroll by keyboard too
    for sheet in OUT.rglob("*.css"):  # themes ask another host for their fonts; the system's serve as well
        sheet.write_text(re.sub(r"@import\s+url\([^)]*\)\s*;|@import\s+[\"']https?:[^;]*;", "", sheet.read_text()))


if __name__ == "__main__":
    process()
    render()
    print(f"open {OUT / 'index.html'}")

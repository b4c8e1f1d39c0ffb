"""Writes the set-up cell of every notebook: what Colab installs is said here alone.

Use: python nbs/site/_setup.py
"""
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAIN = """\
# On Colab this installs cosmoflow. Elsewhere there is nothing to do.
import importlib.util
if importlib.util.find_spec("cosmoflow") is None:
    %pip install -q "cosmoflow{extras} @ git+https://github.com/cosmoflow/cosmoflow\""""

# pip may replace Colab's jax, and would replace torch and numpy as readily.
SIMULATION = """\
# On Colab this installs cosmoflow and keeps torch and numpy. Elsewhere it does nothing.
# PM++ wants jax from 0.9.1 to below 0.11, so pip may replace Colab's jax.
import importlib.util
import sys
from importlib.metadata import version
if importlib.util.find_spec("cosmoflow") is None:
    with open("kept.txt", "w", encoding="utf-8") as f:
        f.writelines(f"{name}=={version(name)}\\n" for name in ("torch", "numpy"))
    source = "cosmoflow{extras} @ git+https://github.com/cosmoflow/cosmoflow"
    %pip install -q "{source}" -c kept.txt
    if "jax" in sys.modules:
        print("The old jax is still loaded: choose Runtime > Restart session, "
              "then run this page from its top.")"""


def is_setup(
    cell: dict,  # of a notebook
) -> bool:
    "Whether this is the cell that installs the package."
    source = "".join(cell["source"])
    return cell["cell_type"] == "code" and 'find_spec("cosmoflow")' in source


def setup_cell(
    extras: str,  # of the package, for example "viz", or "sim,viz"; "": none
) -> str:         # source of the cell
    "The set-up cell of a page that needs these extras."
    cell = SIMULATION if "sim" in extras else PLAIN
    return cell.replace("{extras}", f"[{extras}]" if extras else "")


def extras_of(
    cell: dict,  # the set-up cell of a notebook
) -> str:        # as `setup_cell` takes them
    "The extras that a page asks for."
    found = re.search(r"cosmoflow\[([\w,]+)\] @", "".join(cell["source"]))
    return found[1] if found else ""


if __name__ == "__main__":
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in filter(is_setup, notebook["cells"]):
            cell["source"] = setup_cell(extras_of(cell)).splitlines(keepends=True)
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")

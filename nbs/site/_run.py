"""Runs notebooks top to bottom, each in a kernel of its own, and keeps their outputs.

Use: python nbs/site/_run.py [--out FOLDER] NOTEBOOK...    (without --out, in place)
"""
import argparse
import re
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode
from PIL import Image


# Twice as many pixels as a page shows; a picture's width on the page stands beside it.
DOUBLE = "--InlineBackend.figure_formats={'retina'}"
# Drawn once, not a second time without its margins, and small: nobody looks at it.
PLAIN = "--InlineBackend.print_figure_kwargs={'bbox_inches': None, 'dpi': 40}"


class SilentOutput(OutputWidget):
    """nbclient's, but it tells the kernel nothing.

    Such a message can make nbclient miss the end of the cell (its issue 312).
    """
    def send(self, *args, **kwargs) -> None: pass


def smaller(
    picture: str,  # a PNG, base64
) -> str:          # the same
    "A picture in at most 256 colours, or as it came where that is no smaller."
    image = Image.open(BytesIO(b64decode(picture))).convert("RGB")
    file = BytesIO()
    image.quantize(256, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True)
    return min(b64encode(file.getvalue()).decode(), picture, key=len)


def shrink_pictures(
    notebook: NotebookNode,  # changed in place
) -> None:
    "Pictures are most of what a notebook weighs, and of what a clone downloads."
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    for data in (output.get("data", {}) for output in outputs):
        if "image/png" in data: data["image/png"] = smaller(data["image/png"])


WIDGET = "application/vnd.jupyter.widget-view+json"
STILL = "Here this stands still. It moves in Jupyter and on Colab."


STATE = "application/vnd.jupyter.widget-state+json"


def still_figures(
    notebook: NotebookNode,  # changed in place
) -> None:
    "A live figure is nothing without its kernel: only the text for readers stays."
    kept = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
        data = output.get("data", {})
        widget = kept.get(data.get(WIDGET, {}).get("model_id"), {})
        if "about" not in widget.get("state", {}): continue  # another widget, or none
        del data[WIDGET]
        data["text/plain"] = STILL


def name_widgets(
    notebook: NotebookNode,  # changed in place
) -> None:
    "Where no kernel runs, a page shows a widget's text: make it one for readers."
    for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
        if WIDGET in output.get("data", {}): output.data["text/plain"] = STILL


def drop_bars(
    notebook: NotebookNode,  # changed in place
) -> None:
    "Takes out progress bars, which say nothing once a run has ended."
    plain = lambda output: output.get("data", {}).get("text/plain", "")
    for cell in notebook.cells:
        if "outputs" not in cell: continue
        cell.outputs = [o for o in cell.outputs if not re.search(r"\d%\|", plain(o))]
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    alive = any(WIDGET in output.get("data", {}) for output in outputs)
    if not alive: notebook.metadata.pop("widgets", None)


def run(
    path: Path,  # notebook
    out: Path,   # where the run one goes; may be the same
    draft: bool = False,  # nobody will look at the pictures
) -> None:
    """Executes a notebook in its own folder.

    Raises `CellExecutionError` where a cell fails, and writes nothing then.
    """
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3",
                            coalesce_streams=True,
                            resources={"metadata": {"path": str(path.parent)}})
    client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": SilentOutput}}
    client.extra_arguments = [PLAIN if draft else DOUBLE]
    client.execute()
    still_figures(notebook)
    drop_bars(notebook)
    name_widgets(notebook)
    if not draft: shrink_pictures(notebook)
    nbformat.write(notebook, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the run notebooks")
    args = parser.parse_args()
    if args.out: args.out.mkdir(parents=True, exist_ok=True)
    for path in args.notebooks:
        print(path, flush=True)
        run(path, args.out / path.name if args.out else path)

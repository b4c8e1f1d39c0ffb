"""Text is UTF-8 wherever it is read or written, whatever the locale says."""
import ast
import json

import pytest
from conftest import NOTEBOOKS, ROOT

PROGRAMS = sorted(p for pattern in ("cosmoflow/*.py", "tests/*.py", "nbs/*/*.py", "*.py") for p in ROOT.glob(pattern))
TEXT = ("read_text", "write_text")


def code_of(path):
    "A program, or the code cells of a notebook, without what only IPython reads."
    if path.suffix == ".py": return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code").splitlines()
    return "\n".join("pass".rjust(len(line) - len(line.lstrip()) + 4) if line.lstrip().startswith(("%", "!")) else line for line in lines)


def names_no_encoding(code):
    "Calls that open text and leave its encoding to the locale; files of bytes have a mode with b."
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call): continue
        of = call.func
        name = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
        owner = of.value.id if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name) else ""
        if name not in (*TEXT, "open") or owner in ("os", "webbrowser", "Image", "zipfile", "tarfile"): continue
        given = [k.arg for k in call.keywords] + ["encoding"] * any(k.arg is None for k in call.keywords)
        modes = [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        of_bytes = name == "open" and any("b" in mode and set(mode) <= set("rwxab+") for mode in modes)
        if "encoding" not in given and not of_bytes: yield call


@pytest.mark.parametrize("path", [*PROGRAMS, *NOTEBOOKS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_text_names_its_encoding(path):
    code = code_of(path)
    assert not [ast.get_source_segment(code, call) for call in names_no_encoding(code)]


def test_it_would_be_found():
    bad = ["p.read_text()", "p.write_text(t)", "open(p)", "open(p, 'w')", "p.open()", "p.open('a', newline='')", "(a / b).open(mode='w')"]
    good = ["p.read_text(encoding='utf-8')", "open(p, 'rb')", "p.open('ab')", "p.open(mode='wb')", "os.open(p, 0)", "open(p, **how)"]
    assert [code for code in bad + good if list(names_no_encoding(code))] == bad

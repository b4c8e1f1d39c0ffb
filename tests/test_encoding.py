"""Text is UTF-8 wherever it is read or written, whatever the locale says."""
import ast

import pytest
from conftest import NOTEBOOKS, ROOT, cell_sources

PATTERNS = "cosmoflow/*.py", "tests/*.py", "nbs/*/*.py", "*.py"
PROGRAMS = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
TEXT = "read_text", "write_text", "open"
OTHERS = "os", "webbrowser", "Image", "zipfile", "tarfile"  # whose `open` differs


def plain(line):
    "A line of code, or `pass` as far to the right for what only IPython reads."
    code = line.lstrip()
    if not code.startswith(("%", "!")): return line
    return " " * (len(line) - len(code)) + "pass"


def code_of(path):
    "A program, or the code cells of a notebook, without what only IPython reads."
    if path.suffix == ".py": return path.read_text(encoding="utf-8")
    code = "\n".join(cell_sources(path, "code"))
    return "\n".join(map(plain, code.splitlines()))


def names_no_encoding(code):
    "Calls that open text in the locale's encoding; files of bytes have a mode with b."
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call): continue
        of = call.func
        name = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
        owner = getattr(getattr(of, "value", None), "id", "")
        if name not in TEXT or owner in OTHERS: continue
        given = [k.arg or "encoding" for k in call.keywords]  # ** may hold it
        values = [*call.args, *(k.value for k in call.keywords)]
        modes = [v.value for v in values
                 if isinstance(v, ast.Constant) and isinstance(v.value, str)]
        of_bytes = name == "open" and any(
            "b" in mode and set(mode) <= set("rwxab+") for mode in modes)
        if "encoding" not in given and not of_bytes: yield call


@pytest.mark.parametrize("path", [*PROGRAMS, *NOTEBOOKS],
                         ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_text_names_its_encoding(path):
    code = code_of(path)
    assert not [ast.get_source_segment(code, call) for call in names_no_encoding(code)]


def test_it_would_be_found():
    bad = ["p.read_text()", "p.write_text(t)", "open(p)", "open(p, 'w')", "p.open()",
           "p.open('a', newline='')", "(a / b).open(mode='w')"]
    good = ["p.read_text(encoding='utf-8')", "open(p, 'rb')", "p.open('ab')",
            "p.open(mode='wb')", "os.open(p, 0)", "open(p, **how)"]
    assert [code for code in bad + good if list(names_no_encoding(code))] == bad

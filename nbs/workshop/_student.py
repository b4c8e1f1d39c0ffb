"""Writes the student versions of the lessons: solutions out, "your code here" in, as nbgrader's generate_assignment does.

Use: python nbs/workshop/_student.py FOLDER
"""
import json
import re
import sys
from pathlib import Path

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


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(__file__).parent.glob("[0-9]*.ipynb")):
        text = json.dumps(student_version(json.loads(path.read_text())), indent=1, ensure_ascii=False) + "\n"
        (out / path.name).write_text(text)
        print(out / path.name)

"""What the README and the model card promise: code that runs, links that lead somewhere."""
import re
import subprocess
import sys

import pytest
from conftest import ROOT


def test_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len([line for line in code.splitlines() if line]) <= 10
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "torch.Size([4, 8, 4, 4]) torch.Size([4, 8]) torch.Size([4, 64, 64])"


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "cosmoflow").glob("**/README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    here = "https://raw.githubusercontent.com/cosmoflow/cosmoflow/main/"
    local = [ROOT / u.removeprefix(here) if u.startswith(here) else page.parent / u for u in links if u.startswith(here) or not u.startswith("http")]
    assert all(p.exists() for p in local), [p for p in local if not p.exists()]

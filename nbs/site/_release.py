"""Weights that are too large to ship: their table, and the files of a release.

python nbs/site/_release.py              from .github/release into the table
python nbs/site/_release.py v0.1.0 OUT   what this tag releases, into the folder OUT
"""
import json
import shutil
import sys
from configparser import ConfigParser
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "cosmoflow" / "released.json"
FOLDERS = ROOT / ".github" / "release"


def read_table(): return json.loads(TABLE.read_text(encoding="utf-8"))


def describe(folder: Path) -> dict:
    "What the table says of each file."
    return {path.name: {"bytes": path.stat().st_size,
                        "sha256": sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())}


def write_table() -> None:
    "New or changed files belong to the next version; what is not here stays as it was."
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    table = read_table() if TABLE.exists() else {}
    for folder in sorted(FOLDERS.iterdir()):
        files, old = describe(folder), table.get(folder.name, {})
        card = (folder / "README.md").read_text(encoding="utf-8")
        tag = f"v{settings['DEFAULT']['version']}"
        if files == old.get("files"): tag = old["tag"]
        about = card.splitlines()[2].split(". ")[0] + "."
        table[folder.name] = {"about": about, "tag": tag, "files": files}
    text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    TABLE.write_text(text, encoding="utf-8")


def gather(tag: str, out: Path) -> None:
    "Copy the files that belong to a tag; one that is not as the table says stops it."
    out.mkdir(parents=True, exist_ok=True)
    for name, entry in read_table().items():
        if entry["tag"] != tag: continue
        if describe(FOLDERS / name) != entry["files"]:
            sys.exit(f".github/release/{name}: not as the table says; "
                     "run python nbs/site/_release.py")
        for file in entry["files"]:
            shutil.copy(FOLDERS / name / file, out / f"{name}.{file}")


if __name__ == "__main__":
    if len(sys.argv) == 3: gather(sys.argv[1], Path(sys.argv[2]))
    else: write_table()

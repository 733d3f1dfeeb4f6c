"""Puts the site's pages together: every Markdown file of the checkout where it is, and the command line's reference.

    python docs/site.py build/site-source && mkdocs build --strict

Links are those that a reader of the checkout follows. A link to a file that is no page (a source, a result) leads to a
copy of it. MkDocs checks the links between pages, this program that all lead somewhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
LINK = re.compile(r"\]\(([^)#\s]+)")


def main() -> int:
    """Make the folder anew; 1 if a link leads nowhere."""
    target = Path(sys.argv[1])
    broken = []
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        page = ROOT / name
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, place)
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" in link or page.parent / link == REFERENCE:
                continue
            if not (page.parent / link).exists():
                broken.append(f"{name}: {link}")
            copy_file(page.parent / link, target)
    reference(target / REFERENCE.relative_to(ROOT))
    for line in broken:
        print(f"docs/site.py: a link that leads nowhere: {line}", file=sys.stderr)
    return 1 if broken else 0


def copy_file(source: Path, target: Path) -> None:
    """What a page links to, if it is a file of the checkout and no page; of a folder, its files."""
    if source.is_dir():
        for file in source.iterdir():
            copy_file(file, target)
    elif source.is_file() and source.suffix != ".md":
        place = target / source.resolve().relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def reference(page: Path) -> None:
    """The commands and their options, as the program itself lists them."""
    command = ["-m", "typer", "x2ct.cli", "utils", "docs", "--name", "x2ct", "--title", "Reference", "--output", page]
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    raise SystemExit(main())

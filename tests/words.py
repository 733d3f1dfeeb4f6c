"""Count words that docs/glossary.md's readers do not know, and names that say nothing, and refuse new ones.

    python tests/words.py            # exit code 1 if there are more than tests/words.json allows
    python tests/words.py --write    # lower the allowance to what is there

Words are counted in help texts, documentation and comments' docstrings; bare participles among the names that Python
code binds. The allowance only falls: what is left of the older text goes as files are touched.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = Path(__file__).with_suffix(".json")

WORDS = {
    "person": "patient, or case in an evaluation",
    "persons": "patients, or cases in an evaluation",
    "people": "patients, or cases in an evaluation",
    "pull": "data-consistency step",
    "pulled": "corrected",
    "pulls": "corrects",
    "sketch": "coarse prediction",
    "artefact": "compiled engine",
    "artefacts": "compiled engines",
    "agreement": "solver error",
    "rehearse": "dry run",
    "planted": "inserted, synthetic lesion",
    "ancestor": "baseline",
    "slabs": "3D Patch Diffusion baseline",
    "room": "module or package",
    "rooms": "modules or packages",
    "house": "architecture",
    "door": "entry point",
    "likewise": "say it again",
}
NAMES = {"found", "given", "told", "made", "said", "asked", "wanted", "known", "mine", "theirs", "done"}


def main() -> int:
    counts = {"words": words(), "names": names()}
    if "--write" in sys.argv:
        ALLOWED.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
        return 0
    allowed = json.loads(ALLOWED.read_text())
    more = 0
    for kind, hint in (("words", WORDS), ("names", {})):
        for word, count in counts[kind].items():
            if count > allowed[kind].get(word, 0):
                more += 1
                print(
                    f"{word!r}: found {count} times in {kind}, at most {allowed[kind].get(word, 0)} are allowed", end=""
                )
                print(f"; write {hint[word]}" if word in hint else "; name what it holds")
    return int(more > 0)


def words() -> dict[str, int]:
    """Count in Markdown, and in the strings (docstrings and help texts) of Python."""
    counts: Counter[str] = Counter()
    for path in _tracked("*.md", "*.py"):
        text = path.read_text()
        if path.suffix == ".py":
            strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
            text = "\n".join(value for value in strings if isinstance(value, str))
        counts.update(word for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS)
    return dict(counts)


def names() -> dict[str, int]:
    """Count the bindings of each name in Python code."""
    counts: Counter[str] = Counter()
    for path in _tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NAMES:
                counts[node.id] += 1
            elif isinstance(node, ast.arg) and node.arg in NAMES:
                counts[node.arg] += 1
    return dict(counts)


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = (ROOT / name for name in listed.split("\n") if name)
    apart = ("tests/", "benchmarks/results/", "CHANGELOG.md")
    kept = (path for path in paths if not str(path.relative_to(ROOT)).startswith(apart))
    return [path for path in kept if path.is_file() and not path.is_symlink()]


if __name__ == "__main__":
    sys.exit(main())

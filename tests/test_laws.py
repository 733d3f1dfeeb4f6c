"""The laws of the house (docs/architecture.md) that a linter can't state, each with the offence that it catches.

The import contracts themselves stand in pyproject.toml; `lint-imports` checks them, lazily imported modules included.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY_PACKAGES = ("x2ct.data", "x2ct.model", "x2ct.training", "x2ct.export")
COMMAND_LINE = ("x2ct.cli", "x2ct.__main__", "x2ct.commands", "x2ct.serve")
HEAVY_MODULES = ("torch", "openvino", "onnxruntime", "onnx", "tensorrt", "tensorboard")

Law = Callable[[str], list[str]]


def library_sources() -> list[Path]:
    """Every Python file that is installed."""
    return sorted((ROOT / "x2ct").rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def dotted(node: ast.expr) -> str:
    """The dotted name that an expression spells, or the last parts of it that are names."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


# ------------------------------------------------------------------------------------------------ laws on Python text


def law_no_print(source: str) -> list[str]:
    return [f"line {call.lineno}: {name}" for name, call in calls(ast.parse(source)) if name in {"print", "pprint"}]


def law_no_exit(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [
        f"line {call.lineno}: {name}"
        for name, call in calls(tree)
        if name in {"exit", "quit", "sys.exit", "os._exit", "os.abort"}
    ]
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "SystemExit")
    return found + [f"line {node.lineno}: SystemExit" for node in names]


def law_no_global_seed(source: str) -> list[str]:
    seeds = re.compile(r"^(np|numpy)\.random\.(seed|set_state|rand|randn|randint|normal|uniform|shuffle|permutation)$")
    others = {"random.seed", "torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}
    return [f"line {c.lineno}: {name}" for name, c in calls(ast.parse(source)) if seeds.match(name) or name in others]


def law_files_never_execute(source: str) -> list[str]:
    """No pickle in any form: bundles, shards and checkpoints are data."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        offences = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in offences]  # type: ignore[attr-defined]
    for name, call in calls(tree):
        arguments = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
        if name == "torch.load" and arguments.get("weights_only") is not True:
            found.append(f"line {call.lineno}: torch.load without weights_only=True")
        if arguments.get("allow_pickle", False) is not False:
            found.append(f"line {call.lineno}: allow_pickle")
        # What holds code is opened by the torch backend in C++, after the question of trust.
        opened = name.rpartition(".")[2] in {"aoti_load_package", "AOTIModelPackageLoader"}
        if opened or name in {"eval", "exec", "torch.jit.load", "torch.package.PackageImporter"}:
            found.append(f"line {call.lineno}: {name}")
    return found


LIBRARY_LAWS: dict[str, tuple[Law, str]] = {
    "no print": (law_no_print, "def f():\n    print('x')\n"),
    "no exit": (law_no_exit, "import sys\ndef f():\n    sys.exit(1)\n"),
    "no SystemExit": (law_no_exit, "def f():\n    raise SystemExit(2)\n"),
    "no global seed": (law_no_global_seed, "import numpy as np\nnp.random.seed(0)\n"),
    "no global torch seed": (law_no_global_seed, "import torch\ntorch.manual_seed(0)\n"),
    "no pickle": (law_files_never_execute, "import pickle\n"),
    "no pickle in torch.load": (law_files_never_execute, "import torch\ntorch.load('x', weights_only=False)\n"),
    "no TorchScript opened in Python": (law_files_never_execute, "import torch\ntorch.jit.load('x.pt')\n"),
    "no package opened in Python": (
        law_files_never_execute,
        "import torch._inductor\ntorch._inductor.aoti_load_package('x.pt2')\n",
    ),
    "no pickle in numpy.load": (law_files_never_execute, "import numpy as np\nnp.load('x', allow_pickle=True)\n"),
}


@pytest.mark.parametrize("law", LIBRARY_LAWS)
def test_library_keeps_the_law(law: str) -> None:
    check, offence = LIBRARY_LAWS[law]
    assert check(offence), "the law does not catch its own offence"
    # The command line alone turns an error into an exit code. What MONAI builds from a MONAI bundle loads TorchScript,
    # as MONAI itself would, and its docstring says so; x2ct never builds it.
    exempt = {law_no_exit: "x2ct.cli", law_files_never_execute: "x2ct.export.monai"}
    sources = [p for p in library_sources() if exempt.get(check) != module_of(p)]
    found = {str(path.relative_to(ROOT)): offences for path in sources if (offences := check(path.read_text()))}
    assert not found


# ------------------------------------------------------------------------------------------------ who may import what


def contracts() -> list[dict[str, object]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(settings["tool"]["importlinter"]["contracts"])


def test_every_inference_module_is_under_the_import_contract() -> None:
    """A new module of the inference side can't be forgotten in pyproject's list."""
    modules = {module_of(path) for path in library_sources()}
    # The package itself has lazy names only; the doors to every room have a contract of their own.
    apart = (*HEAVY_PACKAGES, *COMMAND_LINE)
    inference = {m for m in modules - {"x2ct"} if not any(m == room or m.startswith(f"{room}.") for room in apart)}
    listed = next(c["source_modules"] for c in contracts() if c["id"] == "inference-is-light")
    assert isinstance(listed, list)
    missing = {m for m in inference if not any(m == s or m.startswith(f"{s}.") for s in listed)}
    assert not missing
    assert not {s for s in listed if s not in modules}, "the contract names modules that are gone"


REFUSE = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError("the inference side imports " + name)
sys.meta_path.insert(0, Refuse())
import {modules}
"""


def refused_imports(modules: list[str]) -> str:
    code = REFUSE.format(heavy=set(HEAVY_MODULES), modules=", ".join(modules))
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stderr


def test_inference_modules_load_where_no_heavy_package_is_installed() -> None:
    modules = [module_of(path) for path in library_sources()]
    light = [m for m in modules if not m.startswith(HEAVY_PACKAGES) and m != "x2ct.__main__"]
    assert "x2ct.engine.sampler" in light
    assert "x2ct.cli" in light
    assert refused_imports(light) == ""


def test_the_refusal_catches_a_heavy_import() -> None:
    assert "the inference side imports torch" in refused_imports(["x2ct.model"])


def test_no_test_file_imports_from_another() -> None:
    """What two of them need is in conftest.py or in a module beside them."""
    sources = {path.name: ast.parse(path.read_text()) for path in sorted((ROOT / "tests").glob("test_*.py"))}
    found = {
        name: node.module
        for name, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.test_")
    }
    assert sources and not found


def offered(module: str) -> set[str] | None:
    """The names that a module of x2ct or benchmarks has, as its text says; None where there is no such module."""
    base = ROOT.joinpath(*module.split("."))
    files = [
        path for path in (base / "__init__.py", base.with_suffix(".py"), base.with_suffix(".pyi")) if path.is_file()
    ]
    names = {path.stem for path in base.iterdir()} if base.is_dir() else set()
    for node in ast.walk(ast.parse(files[0].read_text())) if files else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names if files or base.is_dir() else None


def gone(source: str) -> list[str]:
    """What a source imports of x2ct and benchmarks that isn't there."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("x2ct", "benchmarks"):
            names = offered(str(node.module))
            missing = ["*"] if names is None else [alias.name for alias in node.names if alias.name not in names]
            found += [f"line {node.lineno}: {node.module}.{name}" for name in missing]
    return found


def test_no_script_and_no_test_imports_what_is_gone() -> None:
    """An import where it is needed fails only when it runs, and some of it runs on a GPU alone."""
    assert gone("def f():\n    from x2ct.runtimes.cache.artefacts import Cache\n") == [
        "line 2: x2ct.runtimes.cache.artefacts.*"
    ]
    assert gone("from x2ct.errors import InputError, NoError\n") == ["line 1: x2ct.errors.NoError"]
    paths = [path for folder in ("benchmarks", "tests", "extras") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    assert not {path.relative_to(ROOT).as_posix(): lines for path in paths if (lines := gone(path.read_text()))}


def test_the_architecture_page_has_every_package() -> None:
    """docs/architecture.md names each module and package below x2ct/, and each folder of the C++ side."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index("## Packages") : page.index("## Invariants")]
    named = {part.removesuffix(".py") for path in re.findall("`([^`]+)`", table) for part in path.split("/")}
    modules = {module_of(path).split(".")[1] for path in library_sources() if module_of(path) != "x2ct"}
    folders = modules - {"__main__"} | {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    assert "engine" in folders and "core" in folders
    assert not folders - named


# ------------------------------------------------------------------------------------------------ the C++ rooms

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
FOREIGN = re.compile(r"^(pybind11/|Python\.h|openvino/|onnxruntime|NvInfer|torch/|ATen/|c10/|cuda)")


def offending_includes(text: str, room: str) -> list[str]:
    """What a file of `room` (core, devices/cpu, include/x2ct, backends/openvino...) must not include."""
    found = []
    for header in INCLUDE.findall(text):
        foreign = FOREIGN.match(header) is not None
        if room.startswith(("core", "include", "kernels")):
            bad = foreign or re.search(r"(^|/)(backends|devices)/", header) is not None
        elif room.startswith("devices/cpu"):
            bad = foreign or re.search(r"(^|/)backends/", header) is not None
        else:
            bad = re.match(r"pybind11/|Python\.h", header) is not None and not room.startswith("python")
        found += [header] if bad else []
    return found


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("core", '#include "backends/openvino/network.h"'),
        ("core", '#include "../devices/cpu/kernels.h"'),
        ("core", "#include <pybind11/pybind11.h>"),
        ("include/x2ct", "#include <openvino/openvino.hpp>"),
        ("kernels", "#include <cuda_runtime_api.h>"),
        ("devices/cpu", '#include "backends/loader.h"'),
        ("devices/cpu", "#include <cuda_runtime_api.h>"),
        ("backends/openvino", "#include <Python.h>"),
    ],
)
def test_include_law_catches(room: str, line: str) -> None:
    assert offending_includes(line + "\n", room)


def test_core_knows_backends_and_devices_only_by_their_interfaces() -> None:
    files = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".cu"}]
    assert any(p.parent.name == "core" for p in files)
    found = {
        str(path.relative_to(ROOT)): offences
        for path in files
        if (offences := offending_includes(path.read_text(), path.relative_to(ROOT / "csrc").parent.as_posix()))
    }
    assert not found


# ------------------------------------------------------------------------------------------------ the whole checkout

# Spelled in pieces, so that this file keeps its own law.
MACHINE = re.compile(
    "|".join(["/wo" + r"rk\b", r"\.\./sha" + r"red\b", r"\.libr" + r"ary/", "/ro" + "ot/", "/home/" + r"\w"])
)
UNFINISHED = re.compile(
    "|".join([r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b", "raise NotImpl" + "emented"])
)
TEXT = {".py", ".pyi", ".cpp", ".h", ".cu", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".in", ".sh", ""}


def offending_lines(pattern: re.Pattern[str], text: str) -> list[str]:
    return [f"line {n}: {line.strip()[:80]}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


@pytest.mark.parametrize(
    ("pattern", "offence"),
    [(MACHINE, "open('/wo" + "rk/x')"), (MACHINE, "see ../sha" + "red/x"), (UNFINISHED, "# TO" + "DO: later")],
    ids=["absolute path", "outside path", "unfinished"],
)
def test_checkout_keeps_the_law(pattern: re.Pattern[str], offence: str) -> None:
    assert offending_lines(pattern, offence)
    found = {}
    for path in tracked_files():
        if path.suffix in TEXT and path.name != "LICENSE" and path.stat().st_size < 1_000_000:
            offences = offending_lines(pattern, path.read_text(encoding="utf-8"))
            found.update({str(path.relative_to(ROOT)): offences} if offences else {})
    assert not found

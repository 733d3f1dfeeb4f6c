"""The 3D Slicer module as far as it runs without Slicer: the command that it runs, and what Slicer looks for in it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests import tiny_bundle
from x2ct.io.ct.volume import Volume

MODULE = Path(__file__).resolve().parent.parent / "extras" / "slicer"


@pytest.fixture(scope="module")
def command() -> ModuleType:
    """The module's part that needs no Slicer, loaded as Slicer does: by its path, without x2ct."""
    spec = importlib.util.spec_from_file_location("x2ct_slicer_command", MODULE / "X2CTLib" / "command.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("slicer")
    tiny_bundle.write(place / "tiny.x2ct")
    np.save(place / "ap.npy", np.random.default_rng(0).uniform(0, 5, tiny_bundle.DETECTOR).astype(np.float32))
    program = place / "x2ct"  # as pip's console script is, but of this checkout
    root = MODULE.parent.parent
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\nfrom x2ct.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    return place


def test_the_command_writes_the_ct_that_is_loaded(command: ModuleType, folder: Path, tmp_path: Path) -> None:
    options = {"executable": str(folder / "x2ct"), "model": str(folder / "tiny.x2ct"), "device": "cpu"}
    chosen = command.SampleCommand(frontal=str(folder / "ap.npy"), seed=3, **options)
    ct = command.run(chosen, tmp_path / "ct.nii.gz")
    assert Volume.load(ct).shape == tiny_bundle.GRID
    chosen = command.SampleCommand(lateral=str(folder / "no.npy"), **options)
    with pytest.raises(command.CommandError, match=r"no\.npy.*found nothing there") as caught:
        command.run(chosen, tmp_path / "none.nii.gz")
    assert caught.value.code == 2 and not (tmp_path / "none.nii.gz").exists()


def test_a_cancelled_command_is_ended_and_leaves_no_ct(command: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "x2ct"
    program.write_text(
        f"#!{sys.executable}\nimport time\nprint('x2ct: sampling: 1 of 9', flush=True)\ntime.sleep(600)\n"
    )
    program.chmod(0o755)
    lines: list[str] = []

    def tick(line: str) -> bool:
        lines.append(line)
        return not line

    with pytest.raises(command.CommandError, match="sampling: 1 of 9") as caught:
        command.run(command.SampleCommand(str(program), "ap.png"), tmp_path / "ct.nii.gz", tick=tick)
    assert caught.value.code == -15 and lines[-1] == "x2ct: sampling: 1 of 9"


def test_what_can_not_be_run_is_one_line(command: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(command.CommandError, match=r"can't be run: .*; choose the program x2ct"):
        command.run(command.SampleCommand(str(tmp_path / "none"), "ap.png"), tmp_path / "ct.nii.gz")
    with pytest.raises(command.CommandError, match="X-rays: found none"):
        command.SampleCommand("x2ct").arguments(tmp_path / "ct.nii.gz")
    with pytest.raises(command.CommandError, match="found lao, expected ap or pa"):
        command.SampleCommand("x2ct", "a.png", "lao").arguments(tmp_path / "ct.nii.gz")
    both = command.SampleCommand("x2ct", "a.png", "pa", "b.png", mean=True).arguments(tmp_path / "ct.nii.gz")
    assert both[2:6] == ["--pa", "a.png", "--lateral", "b.png"] and "--mean" in both


def test_slicer_finds_its_four_classes_and_x2ct_is_never_imported() -> None:
    """Slicer's Python is its own: what the module needs of x2ct is a program."""
    tree = ast.parse((MODULE / "X2CT.py").read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes == {"X2CT", "X2CTWidget", "X2CTLogic", "X2CTTest"}
    for path in (MODULE / "X2CT.py", MODULE / "X2CTLib" / "command.py"):
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [alias.name for node in imports for alias in node.names] + [
            getattr(node, "module", "") for node in imports
        ]
        assert not [name for name in names if name and name.partition(".")[0] == "x2ct"]

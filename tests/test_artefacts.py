"""The cache of artefacts: what its key covers, who builds, what a killed builder leaves, and what is not taken.

The builder is a real one, OpenVINO, whose compiled network is written, read back and run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tests import tiny_bundle
from x2ct.built.artefacts import Artefact, Cache, Recipe
from x2ct.built.cachefolder import default_folder
from x2ct.built.recipe import key_of
from x2ct.built.sidecar import SIDECAR
from x2ct.errors import InputError, X2CTError

ROOT = Path(__file__).parents[1]
SHAPES = {"x": [1, 1, 8, 8, 8], "sigma": [1], "c0": [1, 1, 4, 4, 4]}


def compile_and_write(source: Path, target: Path) -> None:
    import openvino

    core = openvino.Core()
    model = core.read_model(source)
    model.reshape(SHAPES)
    target.write_bytes(core.compile_model(model, "CPU").export_model().getvalue())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "denoiser.onnx"
    onnx.save(tiny_bundle.denoiser(), path)
    return path


@pytest.fixture
def recipe(source: Path) -> Recipe:
    return Recipe(
        kind="openvino",
        file="denoiser.blob",
        sources=(source,),
        runtime="openvino 2026.4.1",
        device="cpu",
        precision="f32",
        profile={name: (tuple(shape),) for name, shape in SHAPES.items()},
        flags={"threads": "1"},
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def obtain(cache: Cache, recipe: Recipe) -> Artefact:
    return cache.obtain(recipe, lambda target: compile_and_write(recipe.sources[0], target))


def refuse(_: Path) -> None:
    raise AssertionError("built again")


def files(cache: Cache) -> list[str]:
    """What is in the cache, but for locks and the secret."""
    found = (path.relative_to(cache.folder).as_posix() for path in cache.folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock") and name != "secret")


# ------------------------------------------------------------------------------------------------ built once


def test_what_was_built_runs_and_is_taken_from_then_on(cache: Cache, recipe: Recipe) -> None:
    import openvino

    made = obtain(cache, recipe)
    assert made.built
    again = cache.obtain(recipe, refuse)
    assert not again.built
    assert (again.path, again.sha256, again.key) == (made.path, made.sha256, made.key)
    found = cache.find(recipe)
    assert found is not None
    assert found.path == made.path
    network = openvino.Core().import_model(found.path.read_bytes(), "CPU")
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=shape).astype(np.float32) ** 2 for name, shape in SHAPES.items()}
    wanted = ReferenceEvaluator(str(recipe.sources[0])).run(None, inputs)[0]
    np.testing.assert_allclose(network(inputs)[0], wanted, atol=1e-4)


def test_looking_changes_nothing(cache: Cache, recipe: Recipe) -> None:
    assert cache.find(recipe) is None
    assert not cache.folder.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "tensorrt"},
        {"runtime": "openvino 2026.4.2"},
        {"device": "NVIDIA H200, compute capability 9.0"},
        {"precision": "bf16"},
        {"profile": {"x": ((1, 1, 8, 8, 8), (1, 1, 16, 16, 16), (1, 1, 32, 32, 32))}},
        {"flags": {"threads": "2"}},
        {"flags": {}},
    ],
    ids=lambda change: "-".join(change),
)
def test_the_key_changes_with_each_ingredient(recipe: Recipe, change: dict[str, object]) -> None:
    other = replace(recipe, **change)  # type: ignore[arg-type]
    assert key_of(other.ingredients()) != key_of(recipe.ingredients())


def test_the_key_changes_with_our_schema(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(recipe.ingredients())
    monkeypatch.setattr("x2ct.built.recipe.SCHEMA", 10**6)
    assert key_of(recipe.ingredients()) != before


def test_the_key_changes_with_a_weight_and_not_with_a_name(recipe: Recipe, tmp_path: Path) -> None:
    before = key_of(recipe.ingredients())
    moved = tmp_path / "moved.onnx"
    shutil.copy(recipe.sources[0], moved)
    assert key_of(replace(recipe, sources=(moved,)).ingredients()) == before
    model = onnx.load(moved)
    constant = next(one for one in model.graph.initializer if one.name == "three")
    constant.CopyFrom(numpy_helper.from_array(np.nextafter(np.float32(3), np.float32(4)), "three"))
    onnx.save(model, moved)
    assert key_of(replace(recipe, sources=(moved,)).ingredients()) != before


def test_the_folder_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "ours"
    monkeypatch.delenv("X2CT_CACHE")
    assert default_folder() == tmp_path / "xdg" / "x2ct"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative: the standard says to pass it over")
    assert default_folder() == Path.home() / ".cache" / "x2ct"


# ------------------------------------------------------------------------------------------------ several processes

BUILDER = """
import sys, time
from pathlib import Path
from tests.test_artefacts import Cache, Recipe, SHAPES, compile_and_write
source, folder, marks = (Path(name) for name in sys.argv[1:4])
name = sys.argv[4]
recipe = Recipe("openvino", "denoiser.blob", (source,), "openvino", "cpu", "f32")

def build(target):
    target.write_bytes(b"half")
    (marks / f"{name}-building").touch()
    while not (marks / "go").exists():
        time.sleep(0.01)
    compile_and_write(source, target)

made = Cache(folder).obtain(recipe, build, say=lambda line: (marks / f"{name}-waiting").touch())
(marks / f"{name}-done").write_text(f"{made.built} {made.sha256}")
"""


def start(source: Path, cache: Cache, marks: Path, name: str) -> subprocess.Popen[bytes]:
    marks.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILDER, str(source), str(cache.folder), str(marks), name]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def wait_for(mark: Path, process: subprocess.Popen[bytes], never: Path | None = None) -> None:
    while not mark.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        if never is not None and never.exists():
            process.kill()
            pytest.fail(f"{never.name} before {mark.name}")
        time.sleep(0.01)


def test_of_two_processes_one_builds_and_the_other_takes_it(source: Path, cache: Cache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    first = start(source, cache, marks, "first")
    wait_for(marks / "first-building", first)
    second = start(source, cache, marks, "second")
    wait_for(marks / "second-waiting", second, never=marks / "second-building")
    (marks / "go").touch()
    assert (first.wait(), second.wait()) == (0, 0)
    assert not (marks / "second-building").exists()
    (built, one), (taken, other) = ((marks / f"{n}-done").read_text().split() for n in ("first", "second"))
    assert (built, taken) == ("True", "False")
    assert one == other


def test_a_killed_builder_leaves_nothing_and_blocks_nobody(source: Path, cache: Cache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    process = start(source, cache, marks, "killed")
    wait_for(marks / "killed-building", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()
    recipe = Recipe("openvino", "denoiser.blob", (source,), "openvino", "cpu", "f32")
    assert cache.find(recipe) is None
    other = replace(recipe, precision="bf16")  # another key's builder sweeps too
    assert obtain(cache, other).built
    assert files(cache) == sorted(f"openvino/{key_of(other.ingredients())}/{n}" for n in ("denoiser.blob", SIDECAR))
    assert obtain(cache, recipe).built


def test_a_builder_at_work_is_not_swept(source: Path, cache: Cache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    process = start(source, cache, marks, "slow")
    wait_for(marks / "slow-building", process)
    recipe = Recipe("openvino", "denoiser.blob", (source,), "openvino", "cpu", "bf16")
    assert obtain(cache, recipe).built
    (marks / "go").touch()
    assert process.wait() == 0, process.communicate()[1].decode()
    assert (marks / "slow-done").read_text().startswith("True")


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("error", [X2CTError("no"), KeyboardInterrupt(), OSError("no compiler")])
def test_a_builder_that_fails_leaves_nothing(cache: Cache, recipe: Recipe, error: BaseException) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        cache.obtain(recipe, fail)
    assert caught.value is error
    assert files(cache) == []
    assert obtain(cache, recipe).built


def test_a_builder_that_writes_nothing_is_an_error(cache: Cache, recipe: Recipe) -> None:
    with pytest.raises(X2CTError, match=r"openvino: the builder wrote no denoiser\.blob"):
        cache.obtain(recipe, lambda target: None)
    assert files(cache) == []


def test_a_source_that_changes_meanwhile_is_an_error(cache: Cache, recipe: Recipe) -> None:
    def build(target: Path) -> None:
        compile_and_write(recipe.sources[0], target)
        recipe.sources[0].write_bytes(recipe.sources[0].read_bytes() + b"\n")

    with pytest.raises(X2CTError, match="it changed while"):
        cache.obtain(recipe, build)
    assert files(cache) == []


def cut(made: Artefact, _: Path) -> None:
    made.path.write_bytes(made.path.read_bytes()[:-1])


def flip(made: Artefact, _: Path) -> None:
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2] ^= 1
    made.path.write_bytes(data)


def remove(made: Artefact, _: Path) -> None:
    made.path.unlink()


def forget(made: Artefact, _: Path) -> None:
    (made.path.parent / SIDECAR).unlink()


def scribble(made: Artefact, _: Path) -> None:
    (made.path.parent / SIDECAR).write_text("{")


def plant(made: Artefact, tmp_path: Path) -> None:
    """Whole, of the same recipe, with a sidecar of its own: built in another cache."""
    other = Cache(tmp_path / "other")
    source = tmp_path / "denoiser.onnx"
    content = json.loads((made.path.parent / SIDECAR).read_bytes())["ingredients"]
    recipe = Recipe("openvino", "denoiser.blob", (source,), content["runtime"], content["device"], "f32")
    recipe = replace(recipe, profile={n: tuple(map(tuple, s)) for n, s in content["profile"].items()})
    theirs = obtain(other, replace(recipe, flags=content["flags"]))
    assert theirs.key == made.key
    shutil.rmtree(made.path.parent)
    shutil.copytree(theirs.path.parent, made.path.parent)


REASONS = {
    cut: "damaged: its .* bytes are not the .* that were written",
    flip: "damaged",
    remove: "its file is missing",
    forget: r"no artefact\.json beside it says what it is",
    scribble: r"artefact\.json: file: found .*, expected JSON",
    plant: "one that was built elsewhere",
}


@pytest.mark.parametrize("harm", REASONS)
def test_what_will_not_do_is_built_again_with_the_reason(
    cache: Cache, recipe: Recipe, harm: object, tmp_path: Path
) -> None:
    made = obtain(cache, recipe)
    harm(made, tmp_path)  # type: ignore[operator]
    assert cache.find(recipe) is None
    said: list[str] = []
    again = cache.obtain(recipe, lambda target: compile_and_write(recipe.sources[0], target), said.append)
    assert again.built
    [line] = said
    assert line.endswith("; building it again")
    with pytest.raises(AssertionError, match="built again"):
        cache.obtain(replace(recipe, device="another"), refuse)
    assert re.search(REASONS[harm], line)  # type: ignore[index]
    assert cache.find(recipe) is not None


def test_a_copy_is_taken_where_it_was_built_and_needs_trust_elsewhere(
    cache: Cache, recipe: Recipe, tmp_path: Path
) -> None:
    made = obtain(cache, recipe)
    copy = cache.copy_to(made, tmp_path / "mine.blob")
    assert cache.open(copy, recipe).sha256 == made.sha256
    elsewhere = Cache(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"mine\.blob: origin: found one that was built elsewhere, .* --trust"):
        elsewhere.open(copy, recipe)
    assert elsewhere.open(copy, recipe, trust=True).path == copy
    copy.with_name("mine.blob.json").unlink()
    with pytest.raises(InputError, match=r"no mine\.blob\.json beside it"):
        cache.open(copy, recipe, trust=True)


def test_trust_takes_nothing_stale_or_damaged(cache: Cache, recipe: Recipe, tmp_path: Path) -> None:
    copy = cache.copy_to(obtain(cache, recipe), tmp_path / "mine.blob")
    for change, words in (
        ({"runtime": "openvino 2027.0.0"}, 'stale: runtime "openvino 2026.4.1" where "openvino 2027.0.0" is wanted'),
        ({"device": "NVIDIA H200"}, 'stale: device "cpu" where "NVIDIA H200" is wanted'),
        ({"sources": (Path(__file__),)}, "stale: made from another network"),
    ):
        with pytest.raises(InputError) as caught:
            cache.open(copy, replace(recipe, **change), trust=True)  # type: ignore[arg-type]
        assert words in str(caught.value)
    copy.write_bytes(copy.read_bytes() + b"x")
    with pytest.raises(InputError, match="damaged"):
        cache.open(copy, recipe, trust=True)


def test_a_forged_sidecar_is_foreign(cache: Cache, recipe: Recipe, tmp_path: Path) -> None:
    """Whoever changes the bytes and the checksum has not the seal."""
    import hashlib

    copy = cache.copy_to(obtain(cache, recipe), tmp_path / "mine.blob")
    copy.write_bytes(b"something else")
    sidecar = copy.with_name("mine.blob.json")
    content = json.loads(sidecar.read_bytes())
    content |= {"sha256": hashlib.sha256(b"something else").hexdigest(), "bytes": 14}
    sidecar.write_text(json.dumps(content))
    with pytest.raises(InputError, match="built elsewhere"):
        cache.open(copy, recipe)


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_cache_that_cannot_be_written_is_a_line(recipe: Recipe, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache: found .*, expected a folder that can be written; .*X2CT_CACHE"):
        Cache(tmp_path / below).obtain(recipe, refuse)


def test_the_secret_is_the_users_own(cache: Cache, recipe: Recipe) -> None:
    obtain(cache, recipe)
    assert os.stat(cache.folder / "secret").st_mode & 0o777 == 0o600

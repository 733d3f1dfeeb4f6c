"""The cache of compiled engines: what its key covers, who builds, what a killed builder leaves, and what is trusted.

One test has a real builder, OpenVINO, whose compiled network is written, read back and run; the others need no runtime.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from x2ct.errors import InputError, X2CTError
from x2ct.io.report import sha256
from x2ct.runtimes.cache.cache import NOTE, Cache, Engine, Recipe, copy_to, open_copy, unchanged

ROOT = Path(__file__).parents[1]
SHAPES = {"x": [1, 1, 8, 8, 8], "sigma": [1], "c0": [1, 1, 4, 4, 4]}


def write(target: Path) -> None:
    """A builder."""
    target.write_bytes(b"native code")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "denoiser.onnx"
    path.write_bytes(b"a graph")
    return path


@pytest.fixture
def recipe(source: Path) -> Recipe:
    return Recipe(
        kind="openvino",
        file="denoiser.blob",
        sources=(sha256(source),),
        runtime="openvino 2026.4.1",
        device="cpu",
        precision="f32",
        profile={name: (tuple(shape),) for name, shape in SHAPES.items()},
        flags={"threads": "1"},
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def obtain(cache: Cache, recipe: Recipe) -> Engine:
    return cache.obtain(recipe, write)


def refuse(_: Path) -> None:
    raise AssertionError("built again")


def files(cache: Cache) -> list[str]:
    """What is in the cache, but for locks."""
    found = (path.relative_to(cache.folder).as_posix() for path in cache.folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))


# ------------------------------------------------------------------------------------------------ built once


def test_what_was_built_runs_and_is_taken_from_then_on(cache: Cache, recipe: Recipe, source: Path) -> None:
    import onnx
    import openvino
    from onnx.reference import ReferenceEvaluator

    from tests import tiny_bundle

    def compile_and_write(target: Path) -> None:
        core = openvino.Core()
        model = core.read_model(source)
        model.reshape(SHAPES)
        target.write_bytes(core.compile_model(model, "CPU").export_model().getvalue())

    onnx.save(tiny_bundle.denoiser(), source)
    made = cache.obtain(recipe, compile_and_write)
    assert made.built
    again = cache.obtain(recipe, refuse)
    assert not again.built
    assert (again.path, again.note) == (made.path, made.note)
    found = cache.find(recipe)
    assert found is not None
    assert found.path == made.path
    network = openvino.Core().import_model(found.path.read_bytes(), "CPU")
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=shape).astype(np.float32) ** 2 for name, shape in SHAPES.items()}
    wanted = ReferenceEvaluator(str(source)).run(None, inputs)[0]
    np.testing.assert_allclose(network(inputs)[0], wanted, atol=1e-4)


def test_looking_changes_nothing(cache: Cache, recipe: Recipe) -> None:
    assert cache.find(recipe) is None
    assert cache.similar(recipe) == []
    assert not cache.root.exists()


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
        {"sources": ("0" * 64,)},
        {"schema": 10**6},
    ],
    ids=lambda change: "-".join(change),
)
def test_the_key_changes_with_each_ingredient(recipe: Recipe, change: dict[str, object]) -> None:
    assert replace(recipe, **change).key != recipe.key


def test_the_key_does_not_change_with_the_order_of_inputs(recipe: Recipe) -> None:
    assert replace(recipe, profile=dict(reversed(recipe.profile.items()))).key == recipe.key


def test_the_folder_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Cache().folder == tmp_path / "ours" / "engines"
    monkeypatch.delenv("X2CT_CACHE")
    assert Cache().folder == tmp_path / "xdg" / "x2ct" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Cache().folder == Path.home() / ".cache" / "x2ct" / "engines"


# ------------------------------------------------------------------------------------------------ several processes

BUILDER = """
import sys, time
from pathlib import Path
from tests.test_engine_cache import Cache, Recipe, sha256, write
source, root, marks = (Path(name) for name in sys.argv[1:4])
name = sys.argv[4]
recipe = Recipe("openvino", "denoiser.blob", (sha256(source),), "openvino", "cpu", "f32")

def build(target):
    target.write_bytes(b"half")
    (marks / f"{name}-building").touch()
    while not (marks / "go").exists():
        time.sleep(0.01)
    write(target)

made = Cache(root).obtain(recipe, build, say=lambda line: (marks / f"{name}-waiting").touch())
(marks / f"{name}-done").write_text(f"{made.built} {made.note.sha256}")
"""


Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(source: Path, cache: Cache, tmp_path: Path) -> Iterator[Start]:
    """Starts a builder of a name in a process of its own, which ends with the test."""
    processes = []
    (tmp_path / "marks").mkdir()

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BUILDER, str(source), str(cache.root), str(tmp_path / "marks"), name]
        processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


def wait_for(mark: Path, process: subprocess.Popen[bytes], never: Path | None = None) -> None:
    while not mark.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        if never is not None and never.exists():
            process.kill()
            pytest.fail(f"{never.name} before {mark.name}")
        time.sleep(0.01)


def test_of_two_processes_one_builds_and_the_other_takes_it(start: Start, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    first = start("first")
    wait_for(marks / "first-building", first)
    second = start("second")
    wait_for(marks / "second-waiting", second, never=marks / "second-building")
    (marks / "go").touch()
    assert (first.wait(), second.wait()) == (0, 0)
    assert not (marks / "second-building").exists()
    (built, one), (taken, other) = ((marks / f"{n}-done").read_text().split() for n in ("first", "second"))
    assert (built, taken) == ("True", "False")
    assert one == other


def test_a_killed_builder_leaves_nothing_and_blocks_nobody(
    start: Start, source: Path, cache: Cache, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    process = start("killed")
    wait_for(marks / "killed-building", process)
    process.kill()
    process.wait()
    recipe = Recipe("openvino", "denoiser.blob", (sha256(source),), "openvino", "cpu", "f32")
    assert cache.find(recipe) is None
    assert len(files(cache)) == 1  # half an engine, under a hidden name
    other = replace(recipe, precision="bf16")  # another key's builder sweeps too
    assert obtain(cache, other).built
    assert files(cache) == sorted(f"openvino/{other.key}/{name}" for name in ("denoiser.blob", NOTE))
    assert obtain(cache, recipe).built


def test_a_builder_at_work_is_not_swept(start: Start, source: Path, cache: Cache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    process = start("slow")
    wait_for(marks / "slow-building", process)
    recipe = Recipe("openvino", "denoiser.blob", (sha256(source),), "openvino", "cpu", "bf16")
    assert obtain(cache, recipe).built
    (marks / "go").touch()
    assert process.wait() == 0, process.communicate()[1].decode()
    assert (marks / "slow-done").read_text().startswith("True")


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("error", [X2CTError("no"), KeyboardInterrupt()])
def test_a_builder_that_fails_leaves_nothing(cache: Cache, recipe: Recipe, error: BaseException) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        cache.obtain(recipe, fail)
    assert caught.value is error
    assert files(cache) == []
    assert obtain(cache, recipe).built


def test_a_full_disk_is_a_line_and_leaves_nothing(cache: Cache, recipe: Recipe) -> None:
    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(X2CTError, match="not written: no space left on device"):
        cache.obtain(recipe, fail)
    assert files(cache) == []


def test_a_builder_that_writes_nothing_is_an_error(cache: Cache, recipe: Recipe) -> None:
    with pytest.raises(X2CTError, match=r"openvino: the builder wrote no denoiser\.blob"):
        cache.obtain(recipe, lambda target: None)
    assert files(cache) == []


def test_a_source_that_changes_meanwhile_is_an_error(cache: Cache, recipe: Recipe, source: Path) -> None:
    def build(target: Path) -> None:
        write(target)
        source.write_bytes(source.read_bytes() + b"\n")

    with pytest.raises(X2CTError, match=r"it changed while denoiser\.blob was built from it"):
        cache.obtain(recipe, unchanged(build, {source: recipe.sources[0]}))
    assert files(cache) == []


def cut(engine: Engine) -> None:
    engine.path.write_bytes(engine.path.read_bytes()[:-1])


def flip(engine: Engine) -> None:
    data = bytearray(engine.path.read_bytes())
    data[len(data) // 2] ^= 1
    engine.path.write_bytes(data)


def remove(engine: Engine) -> None:
    engine.path.unlink()


def forget(engine: Engine) -> None:
    engine.path.with_name(NOTE).unlink()


def scribble(engine: Engine) -> None:
    engine.path.with_name(NOTE).write_text("{")


def mistype(engine: Engine) -> None:
    note = engine.path.with_name(NOTE)
    note.write_text(note.read_text().replace('"f32"', "32"))


def move(engine: Engine) -> None:
    """An engine of another recipe, under this one's key."""
    note = engine.path.with_name(NOTE)
    note.write_text(note.read_text().replace('"cpu"', '"gpu"'))


REASONS: dict[Callable[[Engine], None], str] = {
    cut: "damaged: its .* bytes are not the .* that were written",
    flip: "damaged",
    remove: "its file is missing",
    forget: r"no engine\.json beside it describes it",
    scribble: r"engine\.json: file: found Input data was truncated, expected JSON",
    mistype: r"engine\.json: recipe\.precision: found int, expected str",
    move: "stale: device 'gpu' where 'cpu' is needed",
}


@pytest.mark.parametrize("harm", REASONS)
def test_a_corrupt_entry_is_built_again_with_the_reason(
    cache: Cache, recipe: Recipe, harm: Callable[[Engine], None]
) -> None:
    harm(obtain(cache, recipe))
    assert cache.find(recipe) is None
    lines: list[str] = []
    again = cache.obtain(recipe, write, lines.append)
    assert again.built
    [line] = lines
    assert line.endswith("; building it again")
    assert re.search(REASONS[harm], line)
    assert cache.find(recipe) is not None
    assert len(files(cache)) == 2


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_cache_that_cannot_be_written_is_a_line(recipe: Recipe, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache: found .*, expected a folder that can be written; .*X2CT_CACHE"):
        Cache(tmp_path / below).obtain(recipe, refuse)


# ------------------------------------------------------------------------------------------------ what is trusted


def test_the_cache_is_the_users_alone(cache: Cache, recipe: Recipe) -> None:
    mask = os.umask(0)
    try:
        engine = obtain(cache, recipe)
    finally:
        os.umask(mask)
    for folder in (cache.folder, engine.path.parent.parent, engine.path.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def open_to_readers(folder: Path) -> None:
    folder.chmod(0o750)


def another_users(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a folder away")
    os.chown(folder, 4711, -1)


def a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


FOREIGN: dict[Callable[[Path], None], str] = {
    open_to_all: "mode 0777",
    open_to_readers: "mode 0750",
    another_users: "a folder of user 4711",
    a_link: "a symbolic link",
}


@pytest.mark.parametrize("change", FOREIGN)
def test_a_cache_that_others_may_have_written_is_refused(
    cache: Cache, recipe: Recipe, change: Callable[[Path], None]
) -> None:
    obtain(cache, recipe)
    change(cache.folder)
    for use in (cache.find, cache.similar, lambda recipe: cache.obtain(recipe, refuse)):
        with pytest.raises(InputError, match=f"engines: cache: found {FOREIGN[change]}.*expected a folder of your own"):
            use(recipe)


def test_a_copy_needs_trust_even_where_it_was_built(cache: Cache, recipe: Recipe, tmp_path: Path) -> None:
    """A file's content does not show who made it, and its note is written by whoever made it."""
    engine = obtain(cache, recipe)
    copies = tmp_path / "copies"
    assert not copies.exists()
    copy_to(engine, copies / recipe.file)
    with pytest.raises(InputError, match=r"origin: found a file outside this user's cache, expected --trust with it"):
        open_copy(copies, recipe, trust=False)
    opened = open_copy(copies, recipe, trust=True)
    assert opened is not None
    assert (opened.path, opened.note) == (copies / recipe.file, engine.note)
    assert open_copy(copies, replace(recipe, file="lift.blob"), trust=True) is None
    with pytest.raises(InputError, match="engines: found no folder"):
        open_copy(tmp_path / "absent", recipe, trust=True)


def test_trust_opens_nothing_stale_or_damaged(cache: Cache, recipe: Recipe, tmp_path: Path) -> None:
    copy = tmp_path / recipe.file
    copy_to(obtain(cache, recipe), copy)
    for change, words in (
        ({"runtime": "openvino 2027.0.0"}, "stale: runtime 'openvino 2026.4.1' where 'openvino 2027.0.0' is needed"),
        ({"device": "NVIDIA H200"}, "stale: device 'cpu' where 'NVIDIA H200' is needed"),
        ({"sources": (sha256(__file__),)}, "stale: made from another network"),
        ({"schema": 10**6}, "stale: schema 2 where 1000000 is needed"),
    ):
        with pytest.raises(InputError) as caught:
            open_copy(tmp_path, replace(recipe, **change), trust=True)
        assert words in str(caught.value)
    copy.write_bytes(copy.read_bytes() + b"x")
    with pytest.raises(InputError, match="damaged"):
        open_copy(tmp_path, recipe, trust=True)
    copy.with_name(f"{copy.name}.json").unlink()
    with pytest.raises(InputError, match=r"no denoiser\.blob\.json beside it"):
        open_copy(tmp_path, recipe, trust=True)

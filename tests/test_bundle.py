"""A bundle is opened whole or refused in one line naming file and field; it is replaced whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tiny_bundle
from tests.bundle_faults import FIELD_FAULTS, GRAPH_FAULTS, edit, put, replace_file, replace_graph
from tests.refusals import refused
from x2ct.bundle import Bundle
from x2ct.errors import InputError, X2CTError


@pytest.fixture
def folder(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_path, tmp_path / "tiny.x2ct"))


def refusal(folder: Path | str) -> str:
    message = refused(lambda: Bundle.load(folder))
    assert len(message) < 600
    return message


def attempt(action: Callable[[], Any]) -> Any:
    """What an action gives, or what its InputError says."""
    try:
        return action()
    except InputError as error:
        return str(error)


# ---------------------------------------------------------------------------------------------- what is kept


def test_round_trip(tiny_path: Path) -> None:
    manifest, _ = tiny_bundle.manifest()
    bundle = Bundle.load(tiny_path)
    for field in ("name", "version", "grid", "intensity", "xray", "geometry", "diffusion", "patch", "networks"):
        assert getattr(bundle, field) == getattr(manifest, field), field
    assert bundle.to_json() == manifest.to_json()


def test_writing_what_was_read_gives_the_same_bytes(tiny_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_path)
    again = Bundle.write(
        tmp_path / "again.x2ct", bundle, {name: (tiny_path / name).read_bytes() for name in bundle.files}
    )
    assert again.checksum == bundle.checksum
    assert sorted(os.listdir(again.path)) == sorted(os.listdir(tiny_path))


def test_tuned_schedules_are_kept(tmp_path: Path) -> None:
    manifest, files = tiny_bundle.manifest()
    schedules = {1: (20.0,), 10: tuple(np.geomspace(20.0, 0.03, 10)), 3: (20.0, 0.7, 0.03)}
    schedules[10] = (20.0, *schedules[10][1:-1], 0.03)
    tuned = replace(manifest, diffusion=replace(manifest.diffusion, schedules=schedules))
    bundle = Bundle.write(tmp_path / "tuned.x2ct", tuned, files)
    assert bundle.diffusion.schedules == schedules
    again = Bundle.write(tmp_path / "again.x2ct", bundle, files)
    assert again.checksum == bundle.checksum


def test_statistics_of_x_rays_are_kept_as_they_are(tmp_path: Path) -> None:
    manifest, files = tiny_bundle.manifest()
    statistics = {"mean": [0.5, 2], "covariance": [[1.0, 0.25], [0.25, 1.0]], "none": []}
    bundle = Bundle.write(tmp_path / "judged.x2ct", replace(manifest, xray_statistics=statistics), files)
    assert bundle.xray_statistics == statistics
    assert Bundle.write(tmp_path / "again.x2ct", bundle, files).checksum == bundle.checksum
    assert Bundle.write(tmp_path / "plain.x2ct", manifest, files).xray_statistics == {}


def test_free_sections_keep_their_order_and_numbers(tmp_path: Path) -> None:
    manifest, files = tiny_bundle.manifest()
    provenance = {"z": 1, "a": {"y": [1.0, 0.1, 1e-300, 2**53 + 1, -7], "b": None}, "text": '\u00e9\U0001f600 \\ "'}
    bundle = Bundle.write(tmp_path / "free.x2ct", replace(manifest, provenance=provenance), files)
    assert json.dumps(bundle.provenance) == json.dumps(provenance)


def test_grid_has_its_origin_in_the_middle(tiny_path: Path) -> None:
    grid = Bundle.load(tiny_path).grid
    middle = (np.array(grid.shape) - 1) / 2
    np.testing.assert_allclose(grid.index_to_mm @ [*middle, 1], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(grid.size_mm, np.multiply(grid.shape, grid.spacing_mm))


def test_summary_is_plain_data(tiny_path: Path) -> None:
    bundle = Bundle.load(tiny_path)
    summary = json.loads(json.dumps(bundle.summary()))
    assert summary["checksum"] == bundle.checksum
    assert summary["bytes"] == sum(path.stat().st_size for path in tiny_path.glob("*.onnx"))
    assert summary["networks"]["denoiser"]["inputs"][0] == "x float32 [N, 1, X, Y, Z]"


def test_opening_needs_no_runtime(tiny_path: Path) -> None:
    code = (
        "import sys; from x2ct.bundle import Bundle; Bundle.load(sys.argv[1]);"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(("path", "value", "named"), FIELD_FAULTS)
def test_a_wrong_field_is_named(folder: Path, path: str, value: object, named: str) -> None:
    edit(folder, put(path, value))
    message = refusal(folder)
    assert named in message
    assert str(folder) in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"schema": NaN}',
        '{"schema": 1e999}',
        '{"schema": 1, "schema": 1}',
        "{" + ",".join(f'"{key}": 1' for key in range(5000)) + "}",
        "[" * 100_000,
        "\x00",
    ],
)
def test_what_is_not_json_is_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    assert "model.json" in refusal(folder)


def test_nan_in_a_field_is_refused(folder: Path) -> None:
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"sigma_max": 20.0', '"sigma_max": NaN'))
    assert "NaN" in refusal(folder)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "model.json").write_bytes(b"\xff\xfe\x00" * 20)
    assert "model.json" in refusal(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_noticed(tiny_path: Path, tmp_path: Path, data: st.DataObject) -> None:
    """In a graph by its checksum; in model.json by its schema, or the bundle is another one by its own checksum."""
    name = data.draw(st.sampled_from(["model.json", "encoder.onnx", "lift.onnx", "denoiser.onnx"]))
    target = tmp_path / "flipped.x2ct"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(tiny_path, target)
    content = bytearray((target / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (target / name).write_bytes(content)
    outcome = attempt(lambda: Bundle.load(target))
    if isinstance(outcome, Bundle):
        assert name == "model.json"
        assert outcome.checksum != Bundle.load(tiny_path).checksum
    else:
        assert "\n" not in outcome
        assert name == "model.json" or (name in outcome and "SHA-256" in outcome)


def _mutated(text: bytes, data: st.DataObject) -> bytes:
    """Return a text with a few characters dropped, doubled, or replaced by what JSON is made of."""
    content = bytearray(text)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        what = data.draw(st.sampled_from(["drop", "double", *'0123456789-.e"[]{}:,xX/N']))
        content[at : at + 1] = {"drop": b"", "double": content[at : at + 1] * 2}.get(what, what.encode())
    return bytes(content)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_manifest_is_read_or_refused(tiny_path: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Nothing but an InputError of one line comes out; what is taken fills the types."""
    target = tmp_path / "mutated.x2ct"
    shutil.copytree(tiny_path, target, dirs_exist_ok=True)
    (target / "model.json").write_bytes(_mutated((tiny_path / "model.json").read_bytes(), data))
    outcome = attempt(lambda: Bundle.load(target))
    assert isinstance(outcome, Bundle) or ("\n" not in outcome and "mutated.x2ct" in outcome)


@pytest.mark.parametrize("name", ["model.json", "encoder.onnx", "lift.onnx", "denoiser.onnx"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    message = refusal(folder)
    assert name in message
    assert "nothing there" in message


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_truncated_graph_is_refused(folder: Path, cut: int) -> None:
    data = (folder / "lift.onnx").read_bytes()
    (folder / "lift.onnx").write_bytes(data[:cut])
    assert "lift.onnx: size" in refusal(folder)


@pytest.mark.parametrize("name", ["model.json", "denoiser.onnx"])
@pytest.mark.parametrize(
    ("kind", "found"),
    [("link", "a symbolic link"), ("pipe", "not a regular file"), ("folder", "not a regular file")],
)
def test_only_regular_files_in_the_folder_are_read(folder: Path, name: str, kind: str, found: str) -> None:
    """A link is not followed, and a pipe not waited for."""
    (folder / name).rename(folder.parent / name)
    if kind == "link":
        (folder / name).symlink_to(folder.parent / name)
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    assert f"{name}: file: found {found}" in refusal(folder)


def test_an_absurdly_large_manifest_is_not_read(folder: Path) -> None:
    with (folder / "model.json").open("r+b") as stream:
        stream.truncate(1 << 33)  # sparse
    assert "model.json: size" in refusal(folder)


@pytest.mark.parametrize("model", ["no-such-model", "no-such-model.x2ct", "", ".", ".."])
def test_an_unknown_name_is_refused(model: str) -> None:
    assert "bundle" in refusal(model)


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").write_text("x")
    assert "found a file" in refusal(tmp_path / "ct.nii")
    assert "model.json" in refusal(tmp_path)
    assert "nothing there" in refusal(tmp_path / "absent.x2ct")


# ---------------------------------------------------------------------------------------------- graphs that reach out


def _denoiser_with(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = tiny_bundle.denoiser()
    change(model)
    return model


@pytest.mark.parametrize(("change", "said"), GRAPH_FAULTS.values(), ids=list(GRAPH_FAULTS))
def test_a_graph_that_does_not_stand_alone_is_refused(
    folder: Path, change: Callable[[onnx.ModelProto], object], said: str
) -> None:
    replace_graph(folder, _denoiser_with(change))
    message = refusal(folder)
    assert "denoiser.onnx" in message
    assert said in message


def test_a_graph_with_other_ports_is_refused(folder: Path) -> None:
    replace_graph(folder, tiny_bundle.encoder())
    assert "denoiser.onnx: inputs" in refusal(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 400))
def test_rubbish_is_no_graph(tiny_path: Path, tmp_path: Path, noise: bytes, place: int) -> None:
    """Whatever the bytes under a right checksum, the answer is a bundle or an InputError, at once."""
    target = tmp_path / "rubbish.x2ct"
    shutil.copytree(tiny_path, target, dirs_exist_ok=True)
    data = tiny_bundle.denoiser().SerializeToString()
    for content in (noise, data[:place], data[:place] + noise + data[place:]):
        replace_file(target, content)
        outcome = attempt(lambda: Bundle.load(target))
        assert isinstance(outcome, Bundle) or "denoiser.onnx" in outcome or "bytes" in outcome


# ---------------------------------------------------------------------------------------------- writing


def _state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_bundle_is_replaced_whole(folder: Path) -> None:
    manifest, files = tiny_bundle.manifest()
    before = Bundle.load(folder).checksum
    (folder / "lift.onnx").write_bytes(b"damaged")
    bundle = Bundle.write(folder, manifest, files)
    assert Bundle.load(folder).checksum == bundle.checksum == before
    assert os.listdir(folder.parent) == [folder.name]


def test_a_write_that_fails_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, files = tiny_bundle.manifest()
    before = _state(folder)

    # the manifest contradicts its files: noticed before anything is moved
    with pytest.raises(InputError, match=r"encoder\.onnx: inputs"):
        Bundle.write(folder, manifest, files | {"encoder.onnx": files["lift.onnx"]})
    assert _state(folder) == before

    # the disk is full while the files are written
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(X2CTError, match="no space left"):
            Bundle.write(folder, manifest, files)
    assert _state(folder) == before

    # the second rename fails: the old bundle comes back
    rename = Path.rename

    def fails_for_new(self: Path, target: Path) -> Path:
        if self.name.startswith(".x2ct-") and self.suffix != ".old":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails_for_new)
        with pytest.raises(X2CTError, match="input/output error"):
            Bundle.write(folder, manifest, files)
    assert _state(folder) == before
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.parametrize("kind", ["file", "other folder", "link", "no parent", "bundle and more"])
def test_only_a_bundle_is_replaced(folder: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("precious")
    elif kind == "other folder":
        target.mkdir()
        (target / "notes.txt").write_text("precious")
    elif kind == "link":
        target.symlink_to(folder)
    elif kind == "no parent":
        target = tmp_path / "absent" / "target"
    else:
        target = folder
        (target / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match="output") as caught:
        Bundle.write(target, *tiny_bundle.manifest())
    assert "\n" not in str(caught.value)
    if kind == "file":
        assert target.read_text() == "precious"
    assert Bundle.load(folder)
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new.x2ct").mkdir()
    assert Bundle.write(tmp_path / "new.x2ct", *tiny_bundle.manifest()).path == tmp_path / "new.x2ct"

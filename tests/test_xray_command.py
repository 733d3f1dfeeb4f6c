"""`x2ct xray` shows what `x2ct sample` does with a file: one chain, its stages, its options, its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tifffile
from PIL import Image

import x2ct
from benchmarks import input_files as files
from tests.commandline import run
from x2ct.bundle import Bundle
from x2ct.engine.conditioning import study_of
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View
from x2ct.io.xray.radiograph import ReadOptions, XRay
from x2ct.io.xray.readoptions import by_view

TRUTH = files.truth()
SHOWN = files.display(TRUTH)
CONE = {
    "DistanceSourceToDetector": 1800,
    "DistanceSourceToPatient": 1500,
    "ImagerPixelSpacing": [1.5, 1.5],
    "ViewPosition": "PA",
}
LINEAR = {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": -1}
STAGES = ["stored", "upright", "bright", "log", "field", "air", "scale", "detector"]


def report(*arguments: object) -> dict[str, Any]:
    result = run("xray", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# ---------------------------------------------------------------------------------------------- one chain


@pytest.mark.parametrize("tags", [{}, CONE, LINEAR], ids=["plain", "cone", "linear"])
def test_what_it_writes_is_what_sample_reads_from_the_file(
    tmp_path: Path, tiny_path: Path, tags: dict[str, Any]
) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN, **tags)
    done = report(path, "-m", tiny_path, "-o", tmp_path / "x.npy")
    (tmp_path / "geometry.json").write_text(json.dumps(done["geometry"]))
    geometry = Geometry.load(tmp_path / "geometry.json")
    name = done["input"]["view"]
    bundle = Bundle.load(tiny_path)
    straight = study_of(bundle, {name: XRay.load(path)})
    around = study_of(bundle, {name: XRay.load(tmp_path / "x.npy")}, geometry)
    np.testing.assert_array_equal(around.views, straight.views)
    np.testing.assert_allclose(around.matrices, straight.matrices, rtol=1e-5, atol=1e-4)
    assert around.valid.tolist() == straight.valid.tolist()
    assert [stage["name"] for stage in done["stages"]] == STAGES
    told = [f"{name}: {line}" for line in done["assumptions"]]
    study = study_of(bundle, {name: XRay.load(path)})
    assert told == [line for line in study.assumptions if line.startswith(f"{name}: ")]
    assert done["warnings"] == [line for line in study.warnings if line.startswith(f"{name}: ")]


def test_line_integrals_are_only_placed(tmp_path: Path, tiny_path: Path) -> None:
    np.save(tmp_path / "a.npy", files.truth())
    done = report(tmp_path / "a.npy", "-m", tiny_path)
    assert [stage["name"] for stage in done["stages"]] == ["stored", "upright", "bright", "log", "detector"]
    assert done["input"]["calibrated"] is True


def test_tiff_and_npy_hold_the_same(tmp_path: Path, tiny_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN)
    for name in ("x.npy", "x.tif"):
        assert run("xray", path, "-m", tiny_path, "-o", tmp_path / name, "-q").exit_code == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), tifffile.imread(tmp_path / "x.tif"))
    assert XRay.load(tmp_path / "x.tif").calibrated


def test_the_stages_are_drawn(tmp_path: Path, tiny_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN, PatientName="Somebody^Else", PatientID="4711")
    result = run("xray", path, "-m", tiny_path, "--stages", tmp_path / "s.png")
    assert result.exit_code == 0
    with Image.open(tmp_path / "s.png") as page:
        assert page.width > 1000
        assert np.asarray(page).std() > 20
    assert all(f" {number} {name}" in result.stdout for number, name in enumerate(STAGES))
    for told in (result.stdout, result.stderr, json.dumps(report(path, "-m", tiny_path))):
        assert "Somebody" not in told
        assert "4711" not in told


def test_what_stands_beside_a_stage_is_true(tmp_path: Path, tiny_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN)
    stages = {stage["name"]: stage for stage in report(path, "-m", tiny_path)["stages"]}
    assert (stages["stored"]["min"], stages["stored"]["max"]) == (SHOWN.min(), SHOWN.max())
    assert stages["stored"]["p0.5"] == np.percentile(SHOWN, 0.5)
    assert [name for name, stage in stages.items() if not stage["done"]] == ["upright", "bright", "log", "field", "air"]
    lines = run("xray", path, "-m", tiny_path).stdout.splitlines()
    assert "0 to 4095:" in lines[1]
    assert lines[4].endswith(": skipped")
    linear = files.dicom(tmp_path / "b.dcm", files.intensity(TRUTH), 16, PixelIntensityRelationship="LIN")
    assert "-ln, where values" in run("xray", linear, "-m", tiny_path).stdout


def test_a_warning_is_an_error_where_strictness_is_asked_for(tmp_path: Path, tiny_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN)
    result = run("xray", path, "-m", tiny_path, "--strict", "-o", tmp_path / "x.npy")
    assert result.exit_code == 2
    assert "--strict: warnings: found 1 warning: ap: intensities are not calibrated" in result.stderr
    assert not (tmp_path / "x.npy").exists()
    np.save(tmp_path / "b.npy", TRUTH)
    assert run("xray", tmp_path / "b.npy", "-m", tiny_path, "--strict").exit_code == 0


def test_options_of_one_view_go_before_those_of_all(tmp_path: Path) -> None:
    values = {"spacing": [("lateral", (0.2, 0.2)), (None, (0.1, 0.1))], "rotate": [("ap", 90)], "sdd": [(None, 1800.0)]}
    options = by_view(["ap", "lateral"], values)
    assert ReadOptions(**options["ap"]) == ReadOptions(0.1, rotate=90, sdd=1800)
    assert ReadOptions(**options["lateral"]) == ReadOptions(0.2, sdd=1800)


def test_sample_takes_the_options_of_each_view(tmp_path: Path, tiny_path: Path) -> None:
    upright = files.dicom(tmp_path / "a.dcm", SHOWN, PixelSpacing=[1.25, 1.25])
    Image.fromarray(np.rot90(files.display(files.truth(), 16))).save(tmp_path / "lying.png")
    made = []
    for ap, options in (
        (upright, []),
        (tmp_path / "lying.png", ["--rotate", "ap=90", "--spacing", "ap=1.25"]),
        (tmp_path / "lying.png", ["--spacing", "ap=1.25"]),
    ):
        out = tmp_path / "ct.nii.gz"
        result = run(
            "sample", "--ap", ap, "-m", tiny_path, "--mean", "--precision", "f32", "--threads", 1, "-o", out, *options
        )
        assert result.exit_code == 0, result.stderr
        made.append(x2ct.Volume.load(out).hu)
    assert np.abs(made[0] - made[1]).max() <= 2  # 12 bits are not 16
    assert np.abs(made[0] - made[2]).max() > 50


# ---------------------------------------------------------------------------------------------- refusals

REFUSED: dict[str, tuple[list[object], str]] = {
    "degrees": (["a.dcm", "--rotate", "45"], "--rotate: degrees: found 45, expected 90, 180 or 270"),
    "a word": (["a.dcm", "--rotate", "left"], "found 'left', expected a whole number"),
    "direction": (["a.dcm", "--flip", "diagonal"], "expected horizontal or vertical"),
    "no frame": (["a.dcm", "--frame", "0"], "--frame: number: found 0"),
    "frame of one": (["a.dcm", "--frame", "2"], "--frame: found 2, expected 1"),
    "one distance": (["a.dcm", "--sdd", "1800"], "--sdd: options: found no --sod"),
    "distances that can't be": (["a.dcm", "--sdd", "1000", "--sod", "1500"], "magnification: found 0.667"),
    "too near": (["a.dcm", "--sdd", "18", "--sod", "15"], "--sod: distance in mm: found 15"),
    "an angle": (["a.dcm", "--angle", "inf"], "--angle: degrees"),
    "another view": (["a.dcm", "--view", "ap", "--rotate", "lateral=90"], "--rotate: view: found lateral"),
    "no view": (["a.dcm", "--rotate", "top=90"], "found 'top' before the equals sign"),
    "twice": (["a.dcm", "--rotate", "90", "--rotate", "180"], "--rotate: options: found all views twice"),
    "unknown view": (["a.dcm", "--view", "top"], "--view: found 'top'"),
    "pitch": (["a.dcm", "--spacing", "ap=0"], "--spacing"),
    "both": (["a.dcm", "--geometry", "g.json", "--angle", "3"], "--geometry: options: found --sdd, --sod or --angle"),
    "output": (["a.dcm", "-o", "x.png"], "expected .npy or .tif or .tiff"),
    "over the input": (["a.dcm", "--stages", "a.dcm"], "an input of the same run"),
    "nothing": (["b.dcm"], "no such file"),
    "several": (["several.dcm"], "3 pictures, expected one X-ray; choose one: --frame 1 to --frame 3"),
    "a view's options without a view": (["a.dcm", "--rotate", "lateral=90"], "--view: options: found none"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_refusal_is_one_line_and_writes_nothing(tmp_path: Path, tiny_path: Path, fault: str) -> None:
    files.dicom(tmp_path / "a.dcm", SHOWN[100:240])
    files.dicom(tmp_path / "several.dcm", np.stack([SHOWN[100:240]] * 3))
    Geometry((View.parallel("ap", shape=(140, 352)),)).save(tmp_path / "g.json")
    arguments, words = REFUSED[fault]
    placed = [tmp_path / a if isinstance(a, str) and "." in a and "=" not in a else a for a in arguments]
    before = sorted(tmp_path.iterdir())
    result = run("xray", *placed, "-m", tiny_path, *([] if "-o" in arguments else ["-o", tmp_path / "out.npy"]))
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert words in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_what_readers_log_is_not_shown(tmp_path: Path, tiny_path: Path) -> None:
    """In a process of its own: pytest has handlers, and a library without any is heard on stderr."""
    import struct
    import subprocess
    import sys

    tifffile.imwrite(tmp_path / "a.tif", SHOWN, description="a note")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.find(struct.pack("<HH", 270, 2))
    content[at + 8 : at + 12] = struct.pack("<I", 10**8)
    (tmp_path / "a.tif").write_bytes(bytes(content))
    command = [sys.executable, "-m", "x2ct", "xray", str(tmp_path / "a.tif"), "-m", str(tiny_path), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------------------------------------- the geometry's schema

DETECTOR = {"shape": [352, 352], "spacing_mm": [1.25, 1.25]}
CONE_VIEW = {"name": "pa", **DETECTOR, "beam": "cone", "sod_mm": 1500, "sdd_mm": 1800}
MATRIX = View.cone("ap").to_json()
GEOMETRIES: dict[str, tuple[Any, bool]] = {
    "written": (Geometry.cone().to_json(), True),
    "described": ({"schema": 1, "views": [CONE_VIEW, {"name": "ap", **DETECTOR, "beam": "parallel"}]}, True),
    "tilted": (
        {"schema": 1, "views": [CONE_VIEW | {"angle_deg": 170, "tilt_deg": -20, "isocentre_mm": [0, 1, 2]}]},
        True,
    ),
    "any name": ({"schema": 1, "views": [{"name": "oblique", **DETECTOR, "beam": "parallel", "angle_deg": 30}]}, True),
    "no angle": ({"schema": 1, "views": [{"name": "oblique", **DETECTOR, "beam": "parallel"}]}, False),
    "steep": ({"schema": 1, "views": [CONE_VIEW | {"tilt_deg": 85}]}, False),
    "no schema": ({"views": [CONE_VIEW]}, False),
    "no views": ({"schema": 1, "views": []}, False),
    "another schema": ({"schema": 2, "views": [CONE_VIEW]}, False),
    "misspelt": ({"schema": 1, "views": [CONE_VIEW | {"sid_mm": 3}]}, False),
    "no distance": ({"schema": 1, "views": [{k: v for k, v in CONE_VIEW.items() if k != "sod_mm"}]}, False),
    "distances of a parallel beam": ({"schema": 1, "views": [CONE_VIEW | {"beam": "parallel"}]}, False),
    "another beam": ({"schema": 1, "views": [CONE_VIEW | {"beam": "fan"}]}, False),
    "two rows": ({"schema": 1, "views": [MATRIX | {"matrix": MATRIX["matrix"][:2]}]}, False),
    "a matrix and a beam": ({"schema": 1, "views": [MATRIX | {"beam": "cone"}]}, False),
    "a name with a slash": ({"schema": 1, "views": [CONE_VIEW | {"name": "../ap"}]}, False),
    "no pixels": ({"schema": 1, "views": [CONE_VIEW | {"shape": [0, 352]}]}, False),
    "text": ({"schema": 1, "views": [CONE_VIEW | {"sod_mm": "1500"}]}, False),
    "a CT's place": ({"schema": 1, "origin_world_mm": [1, -2.5, 900], "views": [CONE_VIEW]}, True),
    "half of a CT's place": ({"schema": 1, "origin_world_mm": [1], "views": [CONE_VIEW]}, False),
    "a list": ([], False),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_schema_and_the_reader_agree(name: str) -> None:
    content, good = GEOMETRIES[name]
    schema = json.loads((Path(x2ct.__file__).parent / "schemas" / "geometry.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(content) == good
    if good:
        Geometry.from_json(content)
    else:
        with pytest.raises(InputError):
            Geometry.from_json(content)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 180.0, -75.0])
@pytest.mark.parametrize("tilt", [-35.0, 0.0, 20.0])
def test_a_tilt_lifts_the_source_and_keeps_the_picture_upright(angle: float, tilt: float) -> None:
    view = View.cone("x", angle, tilt_deg=tilt, sod_mm=1000.0, sdd_mm=1500.0)
    a, t = np.radians([angle, tilt])
    assert view.source_mm is not None
    expected = 1000 * np.array([np.cos(t) * np.sin(a), np.cos(t) * np.cos(a), np.sin(t)])
    np.testing.assert_allclose(view.source_mm, expected, atol=1e-6)
    assert view.magnification == pytest.approx(1.5)
    (_, upper), (_, lower) = (view.to_pixels([0.0, 0.0, z])[0] for z in (50.0, -50.0))
    assert upper < lower  # the head is up
    parallel = View.parallel("x", angle, tilt_deg=tilt)
    far = View.cone("x", angle, tilt_deg=tilt, sod_mm=1e6, sdd_mm=1e6, shape=parallel.shape, spacing_mm=(1.25, 1.25))
    points = np.random.default_rng(0).uniform(-100, 100, (20, 3))
    np.testing.assert_allclose(parallel.to_pixels(points)[0], far.to_pixels(points)[0], atol=0.05)

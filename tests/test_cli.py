"""The command line on real files with the tiny bundle: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests import tiny_bundle
from tests.commandline import run
from x2ct.cli import app
from x2ct.geometry import Geometry
from x2ct.geometry.grid import centred_affine
from x2ct.io.ct.volume import Volume


@dataclass(frozen=True)
class Study:
    """A folder with a model, X-rays and a geometry, and where outputs may go."""

    folder: Path

    def __truediv__(self, name: str) -> str:
        return str(self.folder / name)

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}

    def sample(self, *options: str, frontal: str | None = "ap.npy", model: str = "tiny.x2ct") -> Result:
        views = ["--ap", self / frontal, "--lateral", self / "lateral.npy"] if frontal else []
        return run("sample", *views, "-m", self / model, "--threads", "1", "-o", self / "ct.nii.gz", *options)


def body() -> Volume:
    """An asymmetric phantom, off centre: an ellipsoid of water with a rod of bone on the patient's right."""
    x, y, z = (np.indices(tiny_bundle.GRID).astype(np.float32) - 15.5) * 10.0
    hu = np.full(tiny_bundle.GRID, -1000.0, np.float32)
    hu[(x / 120) ** 2 + (y / 80) ** 2 + (z / 140) ** 2 < 1] = 0.0
    hu[(x > 40) & (x < 70) & (abs(y) < 25) & (z > -40) & (z < 90)] = 900.0
    return Volume(hu, centred_affine(tiny_bundle.GRID, tiny_bundle.SPACING_MM))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `study` copies: made once."""
    from x2ct.geometry import attenuation, project

    folder = tmp_path_factory.mktemp("study")
    tiny_bundle.write(folder / "tiny.x2ct")
    geometry = Geometry.parallel(("ap", "lateral"), shape=tiny_bundle.DETECTOR, spacing_mm=tiny_bundle.DETECTOR_MM)
    geometry.save(folder / "geometry.json")
    volume = body()
    volume.save(folder / "truth.nii.gz")
    for view in geometry.views:
        np.save(folder / f"{view.name}.npy", project(attenuation(volume.hu), volume.affine, view, threads=1))
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Study:
    import shutil

    shutil.copytree(made, tmp_path / "study")
    return Study(tmp_path / "study")


# ------------------------------------------------------------------------------------------------ the main job


def test_sample_writes_a_ct_that_shows_what_the_xrays_show(study: Study) -> None:
    result = study.sample("--mean", "--geometry", study / "geometry.json", "--precision", "f32")
    assert result.exit_code == 0, result.stderr
    image = nib.load(study / "ct.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.affine, centred_affine(tiny_bundle.GRID, tiny_bundle.SPACING_MM))
    ct = np.asarray(image.dataobj, np.float32)
    truth = body().hu
    assert np.corrcoef(ct.ravel(), truth.ravel())[0, 1] > 0.5
    assert ct[22:25, 16, 18].mean() > ct[7:10, 16, 18].mean() + 20  # the bone is on the patient's right
    assert "ct.nii.gz" in result.stdout


def test_same_seed_gives_the_same_bytes_and_another_does_not(study: Study) -> None:
    outputs = []
    for seed in ("7", "7", "8"):
        assert study.sample("--seed", seed, "--quiet").exit_code == 0
        outputs.append((study.folder / "ct.nii.gz").read_bytes())
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_the_preview_is_drawn_while_it_samples(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from x2ct.render import preview

    drawn: list[bytes] = []
    save = preview.save

    def watch(path: Path, *rest: object, **options: object) -> Path:
        save(path, *rest, **options)  # type: ignore[arg-type]
        drawn.append(Path(path).read_bytes())
        return path

    monkeypatch.setattr(preview, "save", watch)
    options = ("--preview", study / "ct.png", "--steps", "5", "--quiet")
    assert study.sample(*options, "--preview-every", "2").exit_code == 0
    assert len(drawn) == 3  # after 2 and 4 evaluations, and the result
    assert len(set(drawn)) == 3
    assert (study.folder / "ct.png").read_bytes() == drawn[-1]
    assert study.sample(*options).exit_code == 0
    assert (study.folder / "ct.png").read_bytes() == drawn[-1]


def test_onnxruntime_gives_the_same_volume_and_says_so(study: Study) -> None:
    pytest.importorskip("onnxruntime")
    backends = json.loads(run("info", "--json").stdout)["backends"]
    if not any(one["name"] == "onnxruntime" and one["built"] for one in backends):
        pytest.skip("built without ONNX Runtime's headers")
    made = []
    for backend in ("openvino", "onnxruntime"):
        result = study.sample("--report", study / "run.json", "--backend", backend, "--precision", "f32")
        assert result.exit_code == 0, result.stderr
        report = json.loads((study.folder / "run.json").read_text())
        assert (report["device"], report["backend"], report["precision"]["denoiser"]) == ("cpu", backend, "f32")
        made.append(nib.load(study / "ct.nii.gz").get_fdata())
    assert np.abs(made[0] - made[1]).max() <= 1  # a HU, for the file holds whole ones


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--backend", "paper"], 2, "expected auto, openvino, onnxruntime, tensorrt"),
        (["--backend", "onnxruntime", "--device", "cuda"], 3, "device cuda"),
        (["--backend", "onnxruntime", "--precision", "bf16"], 3, "bf16"),
        (["--backend", "onnxruntime", "--provider", "paper"], 2, "expected cpu, cuda, tensorrt"),
        (["--provider", "cpu"], 2, "expected onnxruntime"),
        (["--provider-option", "fast"], 2, "expected KEY=VALUE"),
    ],
)
def test_runtimes_that_cannot_be_had_are_one_line(study: Study, options: list[str], code: int, words: str) -> None:
    result = study.sample(*options)
    assert result.exit_code == code, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


def test_report_says_what_was_done(study: Study) -> None:
    result = study.sample(
        "--report", study / "run.json", "--preview", study / "ct.png", "--seed", "3", "--steps", "4", "--json"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads((study.folder / "run.json").read_text())
    assert json.loads(result.stdout) == report
    assert report["seed"] == 3
    assert report["solver"] == "dpmpp-2m"
    assert report["steps"] == report["evaluations"] == 4
    assert report["sigmas"][0] == pytest.approx(20.0)
    assert report["sigmas"][-1] == pytest.approx(0.03)
    assert (report["device"], report["backend"]) == ("cpu", "openvino")
    assert report["precision"]["lift"] == "f32"
    assert report["precision"]["denoiser"] in ("f32", "bf16")
    assert report["asked"]["precision"] == "auto"
    assert len(report["model"]["sha256"]) == 64
    assert {entry["view"]: entry["file"] for entry in report["inputs"]} == {"ap": "ap.npy", "lateral": "lateral.npy"}
    assert all(len(entry["sha256"]) == 64 for entry in report["inputs"] + report["outputs"])
    assert {entry["file"] for entry in report["outputs"]} == {"ct.nii.gz", "ct.png"}
    assert report["timings"]["total_s"] > report["timings"]["loop_s"] > 0
    assert report["peak_memory_bytes"] > 1e6
    assert any("geometry: none given" in line for line in report["assumptions"])
    assert "not a medical device" in report["notice"]
    assert str(study.folder) not in (study.folder / "run.json").read_text()  # a path may name a patient
    with Image.open(study / "ct.png") as picture:
        assert picture.format == "PNG"


def test_one_view_alone_is_enough_and_is_warned_about(study: Study) -> None:
    result = run("sample", "--lateral", study / "lateral.npy", "-m", study / "tiny.x2ct", "-o", study / "ct.nii")
    assert result.exit_code == 0, result.stderr
    assert "warning: one view only (lateral)" in result.stderr


def test_quiet_prints_nothing_and_json_one_object(study: Study) -> None:
    quiet = study.sample("--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")
    assert isinstance(json.loads(study.sample("--json", "--quiet").stdout), dict)


# ------------------------------------------------------------------------------------------------ what is refused


def png_header_of(rows: int, columns: int) -> bytes:
    """A PNG that says it is this large and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def flip_a_byte(study: Study) -> None:
    path = study.folder / "tiny.x2ct" / "denoiser.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unknown_schema(study: Study) -> None:
    path = study.folder / "tiny.x2ct" / "model.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99', 1))


def no_schema_in_geometry(study: Study) -> None:
    (study.folder / "geometry.json").write_text("{}")


def save_ap(values: np.ndarray) -> Callable[[Study], None]:
    return lambda study: np.save(study.folder / "ap.npy", values, allow_pickle=True)


def write_ap(name: str, content: bytes) -> Callable[[Study], None]:
    return lambda study: (study.folder / name).write_bytes(content) and None


def colour_photo(study: Study) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(photo).save(study.folder / "ap.png")


def nothing(study: Study) -> None:
    pass


NOISE = np.random.default_rng(0).random((64, 64)).astype(np.float32)
SPOILT = NOISE.copy()
SPOILT[3, 4] = np.nan

# what is done to the study, the frontal X-ray's name, more options, exit code, a word of the complaint
REFUSED: dict[str, tuple[Callable[[Study], None], str | None, list[str], int, str]] = {
    "missing file": (nothing, "nowhere.png", [], 2, "nowhere.png"),
    "text called .dcm": (write_ap("ap.dcm", b"this is no DICOM file\n" * 9), "ap.dcm", [], 2, "ap.dcm"),
    "colour photo": (colour_photo, "ap.png", [], 2, "colour"),
    "all-zero image": (save_ap(np.zeros((64, 64), np.float32)), "ap.npy", [], 2, "everywhere"),
    "NaN": (save_ap(SPOILT), "ap.npy", [], 2, "NaN"),
    "3-D array": (save_ap(np.stack([NOISE, NOISE])), "ap.npy", [], 2, "ap.npy"),
    "object array": (save_ap(np.array([[{}, {}], [{}, {}]], object)), "ap.npy", [], 2, "ap.npy"),
    "a folder": (nothing, "tiny.x2ct", [], 2, "folder"),
    "empty file": (write_ap("ap.png", b""), "ap.png", [], 2, "empty"),
    "past the size limit": (write_ap("ap.png", png_header_of(60_000, 60_000)), "ap.png", [], 2, "ap.png"),
    "size against geometry": (save_ap(NOISE[:40]), "ap.npy", ["--geometry", "geometry.json"], 2, "geometry"),
    "geometry without schema": (no_schema_in_geometry, "ap.npy", ["--geometry", "geometry.json"], 2, "schema"),
    "missing geometry": (nothing, "ap.npy", ["--geometry", "nowhere.json"], 2, "nowhere.json"),
    "bundle with a flipped byte": (flip_a_byte, "ap.npy", [], 2, "denoiser.onnx"),
    "unknown schema version": (unknown_schema, "ap.npy", [], 2, "schema"),
    "no such model": (nothing, "ap.npy", ["-m", "nobody"], 2, "nobody"),
    "no X-ray": (nothing, None, [], 2, "--lateral"),
    "both frontal views": (nothing, "ap.npy", ["--pa", "ap.npy"], 2, "one frontal view"),
    "output below a file": (nothing, "ap.npy", ["-o", "ap.npy/ct.nii.gz"], 2, "found a file ap.npy"),
    "output is a folder": (nothing, "ap.npy", ["-o", "tiny.x2ct"], 2, "tiny.x2ct"),
    "output of unknown kind": (nothing, "ap.npy", ["-o", "ct.jpg"], 2, ".nii"),
    "preview of unknown kind": (nothing, "ap.npy", ["--preview", "ct.bmp"], 2, ".png"),
    "no preview to draw": (nothing, "ap.npy", ["--preview-every", "2"], 2, "--preview"),
    "output over an input": (
        nothing,
        "ap.npy",
        ["--report", "geometry.json", "--geometry", "geometry.json"],
        2,
        "input",
    ),
    "two outputs of one name": (nothing, "ap.npy", ["-o", "a.nii", "--preview", "a.nii"], 2, "another output"),
    "unknown solver": (nothing, "ap.npy", ["--solver", "magic"], 2, "magic"),
    "misspelt solver": (nothing, "ap.npy", ["--solver", "dpm++2m"], 2, "did you mean 'dpmpp-2m'?"),
    "misspelt schedule": (nothing, "ap.npy", ["--schedule", "logsnr"], 2, "did you mean 'log-snr'?"),
    "misspelt backend": (nothing, "ap.npy", ["--backend", "onnx-runtime"], 2, "did you mean 'onnxruntime'?"),
    "misspelt precision": (nothing, "ap.npy", ["--precision", "fp16"], 2, "did you mean 'f16'?"),
    "misspelt model": (nothing, "ap.npy", ["-m", "chets"], 2, "did you mean 'chest'?"),
    "no steps": (nothing, "ap.npy", ["--steps", "0"], 2, "--steps"),
    "negative seed": (nothing, "ap.npy", ["--seed", "-1"], 2, "--seed"),
    "seed past 64 bits": (nothing, "ap.npy", ["--seed", str(2**64)], 2, "seed"),
    "mean with steps": (nothing, "ap.npy", ["--mean", "--steps", "3"], 2, "--mean"),
    "senseless spacing": (nothing, "ap.npy", ["--spacing", "0"], 2, "--spacing"),
    "unknown device": (nothing, "ap.npy", ["--device", "abacus"], 2, "abacus"),
    "cuda": (nothing, "ap.npy", ["--device", "cuda:0"], 3, "cuda"),
    "unknown precision": (nothing, "ap.npy", ["--precision", "f8"], 2, "f8"),
    "unknown option": (nothing, "ap.npy", ["--colour"], 2, "--colour"),
}
REFUSED["a negative without a word"] = (save_ap(NOISE), "ap.npy", ["--invert", "no"], 2, "--invert: found line int")
REFUSED["display values from 0 to 1"] = (save_ap(0.2 * NOISE), "ap.npy", [], 2, "--values display")
REFUSED["another word for them"] = (nothing, "ap.npy", ["--values", "raw"], 2, "--values: word: found 'raw'")
REFUSED["a warning, strictly"] = (
    nothing,
    "ap.npy",
    ["--strict", "--voxel", "5"],
    2,
    "--strict: warnings: found 1 warn",
)
PATH_OPTIONS = {"--geometry", "--pa", "-o", "--preview", "--report"}


@pytest.mark.parametrize("fault", REFUSED)
def test_bad_input_is_one_line_with_its_code_and_nothing_written(study: Study, fault: str) -> None:
    spoil, frontal, options, code, word = REFUSED[fault]
    spoil(study)
    for index, option in enumerate(options[:-1]):
        if option in PATH_OPTIONS:
            options = [*options[: index + 1], study / options[index + 1], *options[index + 2 :]]
    before = study.files()
    result = study.sample(*options, frontal=frontal)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("x2ct: error: ")
    assert word in result.stderr
    assert study.files() == before


def test_a_study_without_doubts_has_no_warning_and_is_strict_enough(study: Study) -> None:
    result = study.sample("--geometry", study / "geometry.json", "--report", study / "run.json", "--strict")
    assert result.exit_code == 0, result.stderr
    assert json.loads((study.folder / "run.json").read_text())["warnings"] == []
    assert "warning" not in result.stderr
    assert result.stderr.startswith("x2ct: notice: Research tool, not a medical device")


def test_the_folder_of_an_output_is_made_and_goes_again_with_a_run_that_fails(study: Study) -> None:
    place = study.folder / "new" / "folder"
    assert study.sample("-o", str(place / "ct.nii.gz"), "--halo", "3", "--memory", "1").exit_code != 0
    assert not (study.folder / "new").exists()
    reports = study.folder / "reports"
    result = study.sample("-o", str(place / "ct.nii.gz"), "--report", str(reports / "run.json"))
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in (*place.iterdir(), *reports.iterdir())] == ["ct.nii.gz", "run.json"]
    assert study.sample("--format", "dicom", "-o", str(study.folder / "a" / "b" / "series")).exit_code == 0
    assert len(list((study.folder / "a" / "b" / "series").iterdir())) == tiny_bundle.GRID[2]


def test_memory_is_its_own_code(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from x2ct.engine import sampler

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sampler, "study_of", exhausted)
    before = study.files()
    result = study.sample()
    assert (result.exit_code, study.files()) == (4, before)
    assert "out of memory" in result.stderr


def test_nothing_is_written_when_the_last_output_fails(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from x2ct.io import report

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_json", full)
    before = study.files()
    result = study.sample("--report", study / "run.json")
    assert (result.exit_code, study.files()) == (1, before)
    assert "No space left" in result.stderr


# ------------------------------------------------------------------------------------------------ the other commands


def test_info_lists_what_is_here() -> None:
    plain, machine = run("info"), run("info", "--json")
    assert plain.exit_code == machine.exit_code == 0
    facts = json.loads(machine.stdout)
    assert facts["versions"]["x2ct"]
    assert {solver["name"] for solver in facts["solvers"]} >= {"euler", "heun", "dpmpp-2m"}
    assert any(backend["name"] == "openvino" for backend in facts["backends"])
    assert "openvino" in plain.stdout


def test_info_describes_a_bundle(study: Study) -> None:
    facts = json.loads(run("info", study / "tiny.x2ct", "--json").stdout)
    assert facts["bundle"]["grid"]["shape"] == [32, 32, 32]
    assert "32 x 32 x 32" in run("info", study / "tiny.x2ct").stdout


def test_info_prints_the_table_that_sample_walks(study: Study) -> None:
    which = ["--steps", "3", "--schedule", "edm"]
    lines = run("info", study / "tiny.x2ct", "--table", "unipc-2", *which).stdout.splitlines()
    assert lines[:2] == ["schedule: edm", "unipc-2, 3 evaluations, registers x y D H1"]
    assert len(lines) == 6
    told = json.loads(run("info", study / "tiny.x2ct", "--table", "unipc-2", *which, "--json").stdout)
    assert [len(row) for row in told["rows"]] == [len(told["columns"])] * 3
    report = json.loads(study.sample("--solver", "unipc-2", *which, "--json").stdout)
    assert all(report[key] == told[key] for key in ("solver", "schedule", "steps", "evaluations", "sigmas"))


@pytest.mark.parametrize("options", [["--table", "rk4"], ["--steps", "3"], ["--table", "heun", "--schedule", "tuned"]])
def test_info_refuses_a_table_that_is_none(study: Study, options: list[str]) -> None:
    result = run("info", study / "tiny.x2ct", *options)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_info_refuses_a_damaged_bundle(study: Study) -> None:
    flip_a_byte(study)
    result = run("info", study / "tiny.x2ct")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_help_names_every_exit_code_and_command() -> None:
    text = run("--help").stdout
    assert all(code in text for code in ("130", "143", "out of memory"))
    assert all(
        command in text
        for command in ("sample", "drr", "mesh", "prepare", "train", "export", "tune", "evaluate", "info")
    )
    assert run().stdout == text
    assert run("--version").stdout == run("-V").stdout
    assert run("-V").stdout.startswith("x2ct 0.")


@pytest.mark.parametrize("command", ["tune", "quantize"])
def test_a_bundled_model_is_not_written_over(study: Study, command: str) -> None:
    result = run(command, "chest", study.folder)
    assert result.exit_code == 2
    expected = "chest: output: found a bundled model, expected a bundle of one's own; write another: -o NAME.x2ct"
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("sample --solver unipc", {"unipc-2", "unipc-3"}),
        ("sample --schedule tu", {"tuned"}),
        ("sample -m ch", {"chest"}),
        ("sample --backend o", {"openvino", "onnxruntime"}),
        ("sample --precision bf", {"bf16"}),
        ("sample --format ni", {"nifti"}),
        ("drr --centre l", {"lungs"}),
    ],
)
def test_shells_complete_the_words_that_an_option_takes(typed: str, expected: set[str]) -> None:
    words = f"x2ct {typed}"
    asked = {"_X2CT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    found = CliRunner().invoke(app, [], prog_name="x2ct", env=asked)
    assert set(found.stdout.split()) == expected


def test_drr_writes_what_sample_reads(study: Study) -> None:
    """CT -> X-rays of a cone -> CT, with the geometry file that came with them."""
    made = run("drr", study / "truth.nii.gz", "-o", study / "xray", "--geometry", "cone", "--threads", "1", "--json")
    assert made.exit_code == 0, made.stderr
    names = {entry["file"] for entry in json.loads(made.stdout)["outputs"]}
    assert names == {"ap.npy", "ap.png", "lateral.npy", "lateral.png", "geometry.json"}
    views = ["--ap", study / "xray/ap.npy", "--lateral", study / "xray/lateral.npy"]
    options = ["--geometry", study / "xray/geometry.json", "-m", study / "tiny.x2ct", "--mean", "--precision", "f32"]
    result = run("sample", *views, *options, "-o", study / "ct.nii.gz")
    assert result.exit_code == 0, result.stderr
    ct = np.asarray(nib.load(study / "ct.nii.gz").dataobj, np.float32)
    assert np.corrcoef(ct.ravel(), body().hu.ravel())[0, 1] > 0.5
    assert ct[22:25, 16, 18].mean() > ct[7:10, 16, 18].mean() + 20


def test_drr_takes_names_and_angles(study: Study) -> None:
    result = run("drr", study / "truth.nii.gz", "-o", study / "xray", "--view", "pa", "--view", "30", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert [view.name for view in Geometry.load(study / "xray/geometry.json").views] == ["pa", "angle30"]


def test_drr_of_a_truncated_ct_is_one_line(study: Study) -> None:
    path = study.folder / "truth.nii.gz"
    path.write_bytes(path.read_bytes()[:300])
    before = study.files()
    result = run("drr", study / "truth.nii.gz", "-o", study / "xray")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert study.files() == before
    assert not (study.folder / "xray").exists()


# ------------------------------------------------------------------------------------------------ a dry run


@pytest.mark.parametrize("options", [[], ["--mean"], ["--samples", "3", "--steps", "4"]])
def test_a_dry_run_tells_what_a_run_then_does_and_writes_nothing(study: Study, options: list[str]) -> None:
    before = study.files()
    dry = study.sample("--dry-run", "--json", *options)
    assert dry.exit_code == 0, dry.stderr
    assert study.files() == before
    told = json.loads(dry.stdout)
    done = json.loads(study.sample("--json", *options).stdout)
    assert {entry["file"] for entry in told["outputs"]} == {entry["file"] for entry in done["outputs"]}
    same = ("model", "device", "backend", "precision", "grid", "tiles", "solver", "sigmas", "seed", "samples")
    assert {key: told[key] for key in same} == {key: done[key] for key in same}
    assert told["assumptions"] == done["assumptions"]
    assert told["estimate"]["evaluations"] == done["evaluations"] * done["samples"]
    assert told["estimate"]["seconds"] > 0
    assert told["estimate"]["writing_s"] > 0
    assert "would write: ct.nii.gz" in study.sample("--dry-run", *options).stdout


@pytest.mark.parametrize("command", ["serve --body", "sample --memory"])
def test_a_size_that_is_none_is_told_by_its_own_option(command: str) -> None:
    result = run(*command.split(), "x")
    assert result.exit_code == 2
    assert f"'{command.split()[1]}': found 'x', expected a size, such as 2GB" in result.stderr


def test_a_dry_run_refuses_what_a_run_would(study: Study) -> None:
    result = study.sample("--dry-run", "--solver", "guess")
    assert result.exit_code == 2
    assert "guess" in result.stderr

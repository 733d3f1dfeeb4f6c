"""The command as a process: signals in the middle of a run, what it imports, and how soon it answers."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_bundle

ROOT = Path(__file__).resolve().parent.parent

# Says on stdout that the first evaluation is done, then goes on as ever.
ANNOUNCE = """
import sys
from x2ct import cli
from x2ct.commands import terminal
step = terminal.Display.step
def announce(self, done, *rest):
    if done == 1:
        sys.stdout.write("running\\n")
        sys.stdout.flush()
    step(self, done, *rest)
terminal.Display.step = announce
cli.main()
"""

# Modules can be found but not imported, as where they are not installed; torch can't even be found.
REFUSE = """
import importlib.abc, importlib.machinery, sys
class Refuse(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top in {"torch", "onnx", "tensorboard"}:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        if top in {"openvino", "onnxruntime", "tensorrt"}:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = self
            return spec
        return None
    def create_module(self, spec):
        raise ImportError(f"{spec.name} must not be imported")
    def exec_module(self, module):
        raise AssertionError
sys.meta_path.insert(0, Refuse())
from x2ct import cli
cli.main()
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny_bundle.write(folder / "tiny.x2ct")
    tiny_bundle.write(folder / "slow.x2ct", shape=(96, 96, 96))
    np.save(folder / "ap.npy", 5 * np.random.default_rng(0).random(tiny_bundle.DETECTOR, np.float32))
    return folder


def sample(study: Path, output: Path, model: str = "tiny.x2ct") -> list[str]:
    return ["sample", "--ap", str(study / "ap.npy"), "-m", str(study / model), "-o", str(output), "--threads", "1"]


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "cancelled"), (signal.SIGTERM, 143, "terminated")]
)
def test_signal_in_the_middle_ends_the_run_and_leaves_nothing(
    study: Path, tmp_path: Path, sent: signal.Signals, code: int, said: str
) -> None:
    outputs = [
        str(tmp_path / "ct.nii.gz"),
        "--report",
        str(tmp_path / "run.json"),
        "--preview",
        str(tmp_path / "ct.png"),
    ]
    outputs += ["--preview-every", "1"]
    command = [sys.executable, "-c", ANNOUNCE, *sample(study, tmp_path / "ct.nii.gz", "slow.x2ct"), *outputs[1:]]
    process = subprocess.Popen(
        [*command, "--steps", "1000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    sent_at = time.monotonic()
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert time.monotonic() - sent_at < 5  # between two evaluations, not at the end
    *progress, last = err.splitlines()
    assert last == f"x2ct: {said}"
    assert all(line.startswith("x2ct: sampling: ") for line in progress)  # where the first evaluation took long
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["nifti", "nrrd", "mha", "dicom"])
def test_a_full_disk_is_one_line_and_leaves_nothing(study: Path, tmp_path: Path, kind: str) -> None:
    """A limit on a file's size fails a write as a full disk does: in the middle, by the system's word."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\nfrom x2ct import cli; cli.main()\n"
    name = {"nifti": "ct.nii.gz", "nrrd": "ct.nrrd", "mha": "ct.mha", "dicom": "ct"}[kind]
    result = python(limited, *sample(study, tmp_path / name), "--format", kind, "--quiet")
    assert result.returncode == 1, result.stderr
    *others, line = result.stderr.splitlines()
    assert line.startswith(f"x2ct: error: {tmp_path / name}: ")
    assert "not written" in line
    assert not others or kind == "mha"  # ITK's MetaImage adds a line of its own
    assert not list(tmp_path.iterdir())


def test_sampling_needs_neither_torch_nor_a_runtimes_python_module(study: Path, tmp_path: Path) -> None:
    result = python(REFUSE, *sample(study, tmp_path / "ct.nii.gz"), "--preview", str(tmp_path / "ct.png"), "--quiet")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ct.nii.gz").exists()
    assert python(REFUSE, "info").returncode == 0


def test_without_torch_what_is_wrong_with_the_call_is_said_before_what_to_install(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for command, code in (
        (["train", "nowhere"], 2),
        (["train", str(shards), "--config", "nowhere.json"], 2),
        (["train", str(shards)], 3),
        (["export", "nowhere"], 2),
        (["export", str(tmp_path / "run"), "--format", "nonsense"], 2),
        (["export", str(tmp_path / "run")], 3),
    ):
        result = python(REFUSE, *command, "-o", str(tmp_path / "out.x2ct"))
        assert result.returncode == code, result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert ("pip install 'x2ct[train]'" in result.stderr) == (code == 3)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_missing_runtime_is_an_error_that_says_what_to_install(study: Path, tmp_path: Path) -> None:
    absent = REFUSE.replace('{"torch", "onnx", "tensorboard"}', '{"torch", "openvino"}')
    result = python(absent, *sample(study, tmp_path / "ct.nii.gz"))
    assert result.returncode == 3, result.stderr
    assert "pip install openvino" in result.stderr
    assert not list(tmp_path.iterdir())
    facts = python(absent, "info", "--json")
    assert facts.returncode == 0, facts.stderr
    (backend,) = (entry for entry in json.loads(facts.stdout)["backends"] if entry["name"] == "openvino")
    assert not backend["available"]
    assert backend["reason"]


def test_help_loads_nothing_heavy() -> None:
    listing = (
        "import sys; sys.argv = ['x2ct', '--help']\ntry:\n    from x2ct import cli; cli.main()\nexcept SystemExit:\n"
    )
    result = python(listing + "    print('LOADED', *sys.modules)")
    loaded = set(result.stdout.rpartition("LOADED")[2].split())
    assert "x2ct.commands.terminal" in loaded
    heavy = {
        "numpy",
        "torch",
        "openvino",
        "onnxruntime",
        "nibabel",
        "pydicom",
        "PIL",
        "scipy",
        "SimpleITK",
        "x2ct._core",
    }
    assert not loaded & heavy
    ours = {name for name in loaded if name.startswith("x2ct.") and not name.startswith("x2ct.commands")}
    assert not ours - {"x2ct.cli", "x2ct.errors", "x2ct.jobs", "x2ct.jobs.options"}


def test_help_answers_at_once() -> None:
    """Under 0.5 s. The processor's time counts, for on a busy machine the clock's says more about the neighbours."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "x2ct", "--help"], cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_importing_the_package_costs_nothing() -> None:
    result = python("import sys; import x2ct; print(*sys.modules); x2ct.XRay; x2ct.Geometry")
    assert result.returncode == 0, result.stderr
    assert not {name for name in result.stdout.split() if name.startswith(("numpy", "typer", "x2ct."))}


def test_module_and_script_are_the_same_command() -> None:
    texts = {
        subprocess.run([sys.executable, *how, "--version"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for how in (["-m", "x2ct"], ["cli.py"])
    }
    assert len(texts) == 1


@pytest.mark.parametrize(("typed", "found"), [("x2ct sam", "sample"), ("x2ct sample --cons", "--consistency")])
def test_the_shell_can_complete_commands_and_options(typed: str, found: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_X2CT_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv = ['x2ct']; from x2ct.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | words, capture_output=True, text=True)
    assert run.stdout.split() == [found]


@pytest.mark.parametrize(
    ("arguments", "nearest"), [(["sampel"], "sample"), (["sample", "--lateal", "x", "-o", "y"], "--lateral")]
)
def test_a_misspelt_word_is_told_with_the_nearest(arguments: list[str], nearest: str) -> None:
    run = subprocess.run([sys.executable, "cli.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert nearest in run.stderr
    assert len(run.stderr.splitlines()) == 1

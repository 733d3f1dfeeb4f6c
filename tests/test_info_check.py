"""`x2ct info` says of each backend, device and precision whether it can be used; `--check` tries what says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from tests import commandline
from x2ct import _core
from x2ct.commands import info_facts
from x2ct.engine import smoke_test
from x2ct.errors import MissingRuntimeError
from x2ct.io.ct.volume import Volume
from x2ct.runtimes.discovery import PRECISIONS


def run(*arguments: object) -> Result:
    return commandline.run("info", *arguments)


def test_each_is_usable_or_says_why_not() -> None:
    facts = json.loads(run("--json").stdout)
    for backend in facts["backends"]:
        rows = [one for one in facts["abilities"] if one["backend"] == backend["name"]]
        assert {one["precision"] for one in rows} == set(PRECISIONS) - {"auto"}
        for one in rows:
            native = backend["precisions"].get(one["device"], [])
            assert one["usable"] == (backend["available"] and one["precision"] in native)
            assert one["usable"] == (one["reason"] == "")
            assert "\n" not in one["reason"]


def test_check_tries_what_claims_to_be_usable(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path))  # so that torch has nothing to run
    result = run(tiny_path, "--check", "--json")
    assert result.exit_code == 0, result.stderr
    checks = json.loads(result.stdout)["checks"]
    usable = [one for one in json.loads(run("--json").stdout)["abilities"] if one["usable"]]
    assert len(checks) == len(usable)
    for one in checks:
        made_first = one["backend"] == "torch" or one["precision"] == "int8"  # the tiny model has none
        assert one["result"] == ("not tried" if made_first else "passed"), one
    lines = run(tiny_path, "--check").stdout.splitlines()
    assert len(lines) == len(checks)
    assert lines[0].split()[:4] == ["openvino", "cpu", "f32", "passed"]


def test_a_device_is_checked_kernel_by_kernel_and_runtime_by_runtime(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU beside itself: all the same; a kernel that computes something else is named, with exit code 3."""
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path))
    result = run(tiny_path, "--check", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    checks = json.loads(result.stdout)["checks"]
    kernels = [one for one in checks if one["backend"] == "kernel"]
    assert {"noise", "sampling row", "line integrals", "consistency, CG"} <= {one["precision"] for one in kernels}
    assert {(one["device"], one["result"], one["text"][:14]) for one in kernels} == {
        ("cpu", "passed", "the CPU's bits")
    }
    assert any(one["backend"] == "openvino" and one["result"] == "passed" for one in checks)
    row = {"name": "noise", "difference": 1e-3, "bound": 0.0, "passed": False}
    monkeypatch.setattr(_core, "check_device", lambda device: [row])
    failed = run(tiny_path, "--check", "--device", "cpu")
    assert failed.exit_code == 3
    assert "kernel cpu noise: claims to be usable and is not" in failed.stderr
    assert run("--device", "cpu").exit_code == 2
    assert run("--check", "--device", "tpu").exit_code == 2


def test_a_claim_that_does_not_hold_is_told_and_ends_with_code_3(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = info_facts.abilities

    def boastful(backends: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = [one for one in honest(backends) if one["backend"] == "openvino"]
        return [one | {"usable": one["precision"] in ("f32", "tf32")} for one in rows]

    monkeypatch.setattr(info_facts, "abilities", boastful)
    result = run(tiny_path, "--check")
    assert result.exit_code == 3
    assert "openvino cpu tf32: claims to be usable and is not" in result.stderr
    assert [line.split()[3] for line in result.stdout.splitlines()] == ["passed", "failed"]


@pytest.mark.parametrize("device", ["", "cuda:0"])
def test_what_nothing_of_the_cpu_was_compared_with_did_not_pass(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """A GPU beside itself is always the same; the first runtime of the CPU that runs in f32 is compared with."""
    names = [("openvino", "cpu", "f32"), ("onnxruntime", "cpu", "f32"), ("torch", "cuda", "f32")]
    abilities = [{"backend": one, "device": kind, "precision": each, "usable": True} for one, kind, each in names]
    broken = {"openvino"}

    def mean(bundle: object, backend: str, device: str, precision: str) -> Volume:
        if backend in broken:
            raise MissingRuntimeError(f"{backend} is gone")
        return Volume(np.full((2, 2, 2), 0.0 if device == "cpu" else 9.0, np.float32), np.eye(4))

    monkeypatch.setattr(smoke_test, "_mean", mean)

    def results() -> list[str]:
        return [one.result for one in smoke_test.check(abilities, str(tiny_path), device)]

    assert results() == ["failed", "passed", "failed"]
    broken.add("onnxruntime")
    assert results() == ["failed", "failed", "not tried"]

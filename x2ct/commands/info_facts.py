"""What is installed here and what it can do, for `x2ct info`; a missing runtime is a line that says what to install."""

from __future__ import annotations

from importlib import metadata, util
from typing import Any

from x2ct import _core
from x2ct.bundle import DEFAULT, Bundle, bundled
from x2ct.io import report
from x2ct.runtimes.discovery import BACKENDS, PRECISIONS, find_runtime

_DEVICES = {"openvino": ("cpu",), "onnxruntime": ("cpu", "cuda"), "tensorrt": ("cuda",), "torch": ("cpu", "cuda")}
"""The devices that each backend can drive where its requirements are installed."""

_TRAINING = ("torch", "onnx", "onnxruntime", "safetensors")
_REPORT = ("jinja2", "matplotlib")


def about(bundle: str | None = None) -> dict[str, Any]:
    """Return versions, backends, devices, solvers and bundled models; and one bundle's summary, when it is named.

    Nothing heavy is imported, and whatever is missing is a line of the answer, never an exception.

    Raises InputError: the bundle can't be opened.
    """
    runtimes = {name: find_runtime(name) for name in BACKENDS if name != "auto"}
    backends = [dict(one) for one in _core.backends({name: str(one.folder or "") for name, one in runtimes.items()})]
    for backend in backends:
        reason = runtimes[str(backend["name"])].reason
        if backend["built"] and reason:
            backend.update(available=False, reason=reason)
    facts: dict[str, Any] = {
        "versions": report.versions(),
        "core": "ready",
        "backends": backends,
        "abilities": abilities(backends),
        "devices": [dict(device) for device in _core.devices()],
        "solvers": [dict(solver) for solver in _core.solvers()],
        "schedules": _core.schedules(),
        "training": {name: _version(name) for name in _TRAINING},
        "report": {name: _version(name) for name in _REPORT},
        "models": list(bundled()),
        "notice": report.NOTICE,
    }
    return facts if bundle is None else facts | {"bundle": Bundle.load(bundle).summary()}


def abilities(backends: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return whether each backend, device and precision can be used, and if not why, and what to install."""
    rows = []
    for backend in backends:
        devices = _DEVICES[backend["name"]]
        missing = backend["missing_devices"] if backend["available"] else dict.fromkeys(devices, backend["reason"])
        for device in devices:
            native = backend["precisions"].get(device, [])
            for precision in PRECISIONS[1:]:
                reason = missing.get(device, "")
                if not reason and precision not in native:
                    reason = f"{backend['name']} computes in {' or '.join(native)} on this {device}"
                one = {"backend": backend["name"], "device": device, "precision": precision}
                rows.append(one | {"usable": not reason, "reason": reason})
    return rows


def _version(package: str) -> str:
    """An installed package's version; "" where it is missing."""
    try:
        return metadata.version(package) if util.find_spec(package) else ""
    except (metadata.PackageNotFoundError, ImportError, ValueError):
        return ""


def sections(facts: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the result of `about` as titled rows of name and text; the bundle's alone where one is named."""
    if "bundle" in facts:
        return _bundle_sections(facts["bundle"])
    training, pages = (
        [(name, version or f"missing: pip install 'x2ct[{extra}]'") for name, version in facts[part].items()]
        for part, extra in (("training", "train"), ("report", "report"))
    )
    backends = [line for backend in facts["backends"] for line in _backend(backend, facts)]
    return [
        ("Versions", list(facts["versions"].items())),
        ("Backends", [("core", facts["core"]), *backends]),
        ("Devices", [(device["name"], _device(device)) for device in facts["devices"]]),
        ("Solvers", [(solver["name"], _solver(solver)) for solver in facts["solvers"]]),
        ("Schedules", [(name, "") for name in facts["schedules"]]),
        ("Training and export", training),
        ("Evaluation's page", pages),
        ("Bundled models", [(name, "") for name in facts["models"]] or [("none", "")]),
    ]


def solver_table(
    solver: str, bundle: str | None = None, steps: int | None = None, schedule: str | None = None
) -> dict[str, Any]:
    """Return the coefficients of `x2ct sample` with these options, as `text`, and as `rows` of `columns`.

    Raises InputError: the bundle can't be opened, or there is no such solver, schedule or number of steps.
    """
    from x2ct.engine.sampler import SampleOptions, plan_facts

    options = SampleOptions(solver=solver, steps=steps, schedule=schedule)
    plan = _core.sampling_plan(Bundle.load(bundle or DEFAULT).diffusion, options)
    table = plan.table
    return {
        "text": f"schedule: {plan.schedule}\n{table.describe().rstrip()}",
        **plan_facts(plan, options),
        "registers": table.registers,
        "start": {"scale": table.start_scale, "noise": table.start_noise},
        "columns": table.columns,
        "rows": table.rows.tolist(),
    }


def _solver(solver: dict[str, Any]) -> str:
    kind, volumes = " in distribution" if solver["stochastic"] else "", solver["registers"]
    return f"order {solver['order']}{kind}; keeps {len(volumes)} volumes: {' '.join(volumes)}"


def _backend(backend: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a line for each device: its precisions, or why it can't be used."""
    name, lines = backend["name"], []
    if not backend["available"]:
        return [(name, f"missing: {backend['reason']}")]
    for device in _DEVICES[name]:
        here = [one for one in facts["abilities"] if (one["backend"], one["device"]) == (name, device)]
        usable, not_usable = ([one["precision"] for one in here if one["usable"] is wanted] for wanted in (True, False))
        text = f"{backend['version']}: {', '.join(usable)}; not {', '.join(not_usable)}"
        lines.append((f"{name} {device}", text if usable else f"missing: {here[0]['reason']}"))
    return lines


def _device(device: dict[str, Any]) -> str:
    """Return what was found of a device, or the reason why it is missing, without its name."""
    if not device["available"]:
        return f"missing: {str(device['reason']).removeprefix('device cuda: ')}"
    return "; ".join(f"{device['name']}:{index} {text}" for index, text in enumerate(device["found"])) or "usable"


def _bundle_sections(bundle: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """A bundle's summary; parity's rows and long provenance stay for --json."""
    plain = {key: value for key, value in bundle.items() if key not in ("networks", "parity", "provenance")}
    networks = bundle["networks"].items()
    return [
        (f"Model {bundle['name']}", [(key, _text(value, key)) for key, value in plain.items() if key != "name"]),
        ("Networks", [(name, f"{_text(spec['inputs'])} -> {_text(spec['outputs'])}") for name, spec in networks]),
        ("Provenance", [(key, _text(value, key)) for key, value in bundle["provenance"].items()]),
    ]


def _text(value: object, key: str = "") -> str:
    """Numbers of a shape or a spacing as 32 x 32 x 32, other lists with commas, and pairs as name value."""
    if isinstance(value, dict):
        return "; ".join(f"{name} {_text(item, name)}" for name, item in value.items())
    if isinstance(value, list):
        sides = key in ("shape", "spacing_mm", "sizes") and not any(isinstance(item, list) for item in value)
        return (" x " if sides else ", ").join(_text(item, key) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)

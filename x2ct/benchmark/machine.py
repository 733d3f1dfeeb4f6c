"""The machine that figures are taken on: what it is, how busy, how fast its clocks run; what can't be read says so."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any

from x2ct import report

BUSY_SHARE = 0.1
"""Of the processors, taken by others while measuring: above it a row's times are theirs too."""

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
)
_CPU = Path("/sys/devices/system/cpu")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_UNREADABLE = "not readable here"


def environment(threads: int) -> dict[str, Any]:
    """What decides a time, as far as this machine tells.

    Args:
        threads: as asked for; 0 leaves it to the runtime.
    """
    facts = _processor()
    return {
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "processors": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": threads,
        "thread_variables": {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
        "instructions": [flag for flag in _FLAGS if flag in facts.get("flags", "").split()],
        "virtual": "hypervisor" in facts.get("flags", "").split(),
        "cache": facts.get("cache size", _UNREADABLE),
        "memory_bytes": _total_memory(),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor") or _UNREADABLE,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": report.versions() | {name: _version(name) for name in ("onnxruntime", "torch", "tensorrt")},
        "gpu": _gpu("name,driver_version"),
    }


def clocks() -> dict[str, Any]:
    """The processors' clocks now, their throttling counts, and the GPU's; None where it can't be read."""
    mhz = [
        int(text) / 1000 for path in sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")) if (text := _text(path))
    ]
    source = "cpufreq"
    if not mhz:
        lines = (_text(Path("/proc/cpuinfo")) or "").splitlines()
        mhz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        source = "/proc/cpuinfo"
    counts = [
        int(text)
        for path in _CPU.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
        if (text := _text(path)) is not None
    ]
    return {
        "mhz": {"min": min(mhz), "max": max(mhz), "source": source} if mhz else None,
        "throttled": sum(counts) if counts else None,
        "gpu": _gpu("clocks.sm,clocks_throttle_reasons.active"),
    }


def clock_facts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Clocks over a run, from two readings of `clocks`, and what could not be read."""
    throttled = None if before["throttled"] is None else after["throttled"] - before["throttled"]
    notes = []
    if before["mhz"] is None:
        notes.append(f"clocks: {_UNREADABLE}")
    elif before["mhz"]["source"] == "/proc/cpuinfo":
        notes.append("clocks: no cpufreq here; /proc/cpuinfo's figure may be the nominal one, in a virtual machine is")
    if throttled is None:
        notes.append(f"throttling: {_UNREADABLE}")
    return {"before": before, "after": after, "throttled": throttled, "notes": notes}


def resident_bytes() -> int | None:
    """This process's resident memory now; None where the system doesn't tell."""
    text = _text(Path("/proc/self/status")) or ""
    kilobytes = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(kilobytes[0]) * 1024 if kilobytes else None


def device_bytes(device: str) -> int | None:
    """A GPU's memory that this process holds; None on a CPU, and where it can't be read."""
    if not device.startswith("cuda"):
        return None
    lines = _query("--query-compute-apps=pid,used_memory") or []
    held = [line.split(",") for line in lines]
    mine = [int(used) for pid, used in held if pid.strip() == str(os.getpid()) and used.strip().isdigit()]
    return sum(mine) << 20 if mine else None


class Neighbours:
    """What others took of the processors between its making and `share`: all that was busy but our own processes."""

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.monotonic(), _busy_s(), _own_s()

    def share(self) -> float | None:
        """Of all processors' time; None where the system doesn't tell. Children must have ended, or they count."""
        busy = _busy_s()
        if busy is None or self._busy is None:
            return None
        others = busy - self._busy - (_own_s() - self._own)
        return max(0.0, others / ((time.monotonic() - self._started) * (os.cpu_count() or 1)))


def _busy_s() -> float | None:
    text = _text(Path("/proc/stat"))
    if text is None:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in text.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> dict[str, str]:
    lines = (_text(Path("/proc/cpuinfo")) or "").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _total_memory() -> int | None:
    lines = (_text(Path("/proc/meminfo")) or "").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package) if util.find_spec(package) else "missing"
    except (metadata.PackageNotFoundError, ImportError, ValueError):
        return "missing"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _gpu(fields: str) -> list[str] | None:
    """Fields of each GPU, as the driver's own tool tells them; None where there is no such tool."""
    return _query(f"--query-gpu={fields}")


def _query(what: str) -> list[str] | None:
    try:
        told = subprocess.run(
            ["nvidia-smi", what, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip().splitlines()

"""The machine that times are taken on: what it is, how busy it is, and how fast its clocks run."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from x2ct.io import report

BUSY_SHARE = 0.1  # share of the processors taken by other processes, above which a row's times are not its own

# The last one's name is that of drivers from 535 on; CUDA 13 needs newer ones.
_GPU = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_event_reasons.active")
_THROTTLED = {
    0x4: "its power limit",
    0x8: "a hardware slowdown",
    0x20: "its temperature",
    0x40: "a hardware thermal slowdown",
    0x80: "the power brake",
}
"""Meaning of the bits of NVML's clock event reasons, without idling and a clock that was set."""

_AVX = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16")
_AMX = ("amx_tile", "amx_bf16", "amx_int8", "amx_fp16")
_CPU = Path("/sys/devices/system/cpu")
_UNREADABLE = "not readable here"


def environment(threads: int) -> dict[str, Any]:
    """Return what decides a time on this machine; None or "not readable here" where the system does not tell.

    `threads` are those asked for; 0 leaves the number to the runtime.
    """
    facts = processor_facts()
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "processors": psutil.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": threads,
        "thread_variables": {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
        "instructions": [name for name in (*_AVX, *_AMX) if name in flags],
        "virtual": "hypervisor" in flags,
        "cache": facts.get("cache size", _UNREADABLE),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor") or _UNREADABLE,
        "load_average": list(psutil.getloadavg()),
        "versions": report.versions("onnxruntime", "torch", "tensorrt"),
        "gpu": _nvidia_smi("--query-gpu=name,driver_version"),
    }


def processor_facts() -> dict[str, str]:
    """Return what Linux tells of the first processor ("model name", "flags" and so on); nothing elsewhere."""
    lines = _text(Path("/proc/cpuinfo")).split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def describe(facts: dict[str, Any], clocks: dict[str, Any]) -> str:
    """Return two sentences on an `environment`, and on how its processors and GPUs ran (see `clock_facts`)."""
    parts = [
        f"{facts['processor']}, {facts['processors']} processors",
        ", ".join(facts["instructions"]) or "no vector instructions",
        f"threads: {facts['threads'] or 'the runtime decides'}",
        f"governor: {facts['governor']}",
        f"load average before: {facts['load_average'][0]:.2f}",
        f"others took {100 * facts['others_share']:.1f}% of the processors",
        *clocks.get("notes", ()),
    ]
    gpu = clocks.get("gpu")
    if isinstance(gpu, dict) and facts.get("gpu"):
        units = {"clocks.sm": "MHz", "clocks.mem": "MHz memory", "power.draw": "W", "temperature.gpu": "degrees"}
        spans = [f"{gpu[name]['min']:g} to {gpu[name]['max']:g} {unit}" for name, unit in units.items() if gpu[name]]
        unknown = ["throttling not readable here"] if gpu["throttled_by"] is None else []
        parts.append(f"{'; '.join(facts['gpu'])}: {', '.join([*spans, *unknown])}")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version != "missing")
    return f"{'; '.join(parts)}. {versions}."


def doubts(facts: dict[str, Any], clocks: dict[str, Any]) -> list[str]:
    """Return why times taken in an `environment` may not be the measured program's own, a line each."""
    lines = []
    load, processors, share = facts["load_average"][0], facts["processors"] or 1, facts["others_share"]
    if load > 0.5 * processors:
        lines.append(f"the machine was busy: load average {load:.2f} on {processors} processors before it began")
    if share > BUSY_SHARE:
        lines.append(f"others took {100 * share:.0f}% of the processors meanwhile: these times are theirs too")
    if throttled := clocks["throttled"]:
        lines.append(f"the processor was throttled {throttled} times meanwhile")
    if reasons := (clocks.get("gpu") or {}).get("throttled_by"):
        lines.append(f"the GPU was throttled meanwhile, by {' and '.join(reasons)}")
    return lines


def clocks() -> dict[str, Any]:
    """Return the processors' clocks in MHz now, and how often they were throttled, or None."""
    mhz = [clock.current for clock in psutil.cpu_freq(percpu=True) or ()]
    counts = [_text(path) for path in _CPU.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    return {
        "mhz": {"min": min(mhz), "max": max(mhz)} if mhz else None,
        "throttled": sum(int(text) for text in counts if text) if counts else None,
    }


def clock_facts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the clocks over a run, from two readings of `clocks`, with notes on what could not be read."""
    throttled = None if before["throttled"] is None else after["throttled"] - before["throttled"]
    notes = [f"clocks: {_UNREADABLE}"] if before["mhz"] is None else []
    if before["mhz"] and not (_CPU / "cpu0/cpufreq").exists():
        notes.append("clocks: may be the nominal ones, for there is no cpufreq here")
    if throttled is None:
        notes.append(f"throttling: {_UNREADABLE}")
    return {"before": before, "after": after, "throttled": throttled, "notes": notes}


class GpuWatch:
    """Reads the GPUs' clocks, power and temperature five times a second, from its construction to `facts`."""

    def __init__(self) -> None:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self._tool: subprocess.Popen[str] | None = None
        with suppress(OSError):
            self._tool = subprocess.Popen([*_smi(f"--query-gpu={','.join(_GPU)}"), "-lms", "200"], **pipes)

    def facts(self) -> dict[str, Any] | None:
        """Return the least and the most of each over all GPUs, and why they were throttled; None without the tool.

        What the tool did not tell is None, so that no reading is never taken for no throttling.
        """
        if self._tool is None:
            return None
        self._tool.terminate()
        lines = [line.split(", ") for line in self._tool.communicate()[0].splitlines()]
        rows = [line for line in lines if len(line) == len(_GPU)]  # the last one may be cut off
        facts: dict[str, Any] = {}
        for column, name in enumerate(_GPU[:-1]):
            values = [float(row[column]) for row in rows if row[column].strip().replace(".", "", 1).isdigit()]
            facts[name] = {"min": min(values), "max": max(values)} if values else None
        reasons = [int(row[-1], 16) for row in rows if row[-1].startswith("0x")]
        by = [text for bit, text in _THROTTLED.items() if any(reason & bit for reason in reasons)]
        return {**facts, "throttled_by": by if reasons else None}


class Neighbours:
    """Measures the share of the processors that other processes take, from its construction to `share`."""

    def __init__(self) -> None:
        self._started, self._others = time.monotonic(), _others_s()

    def share(self) -> float:
        """Return the others' share of all processors' time. Children count as others until they have ended."""
        others = _others_s() - self._others
        return max(0.0, others / ((time.monotonic() - self._started) * (psutil.cpu_count() or 1)))


def _others_s() -> float:
    """Return the seconds that all processors were busy since the start, less those of this process and its children."""
    busy = psutil.cpu_times()._asdict()
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")  # a guest's time is in the user's
    return float(sum(busy.get(kind, 0.0) for kind in kinds) - sum(psutil.Process().cpu_times()[:4]))


def resident_bytes() -> int:
    """Return this process's resident memory now."""
    return int(psutil.Process().memory_info().rss)


def device_bytes(device: str) -> int | None:
    """Return the GPU memory that this process holds; None on a CPU, and where it can't be read."""
    if not device.startswith("cuda"):
        return None
    rows = [line.split(",") for line in _nvidia_smi("--query-compute-apps=pid,used_memory") or []]
    own = [int(used) for pid, used in rows if pid.strip() == str(os.getpid()) and used.strip().isdigit()]
    return sum(own) << 20 if own else None


def _nvidia_smi(query: str) -> list[str] | None:
    """Return the lines that the driver's tool prints; None where there is no such tool."""
    try:
        return subprocess.check_output(_smi(query), text=True, timeout=20, stderr=subprocess.DEVNULL).splitlines()
    except (OSError, subprocess.SubprocessError):
        return None


def _smi(query: str) -> list[str]:
    return ["nvidia-smi", query, "--format=csv,noheader,nounits"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""

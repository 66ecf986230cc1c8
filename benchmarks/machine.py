"""What a run was made on: machine, flags, versions, commit."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from benchmarks.settings import ROOT

ALWAYS = ("TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")
OTHERS = ("TF_CPP_", "TF_XLA_", "TF_NUM_", "TF_GPU_", "OMP_", "MKL_", "KMP_", "JAX_")
PACKAGES = ("keras", "tensorflow", "numpy", "torch", "jax", "jaxlib")


def describe() -> dict[str, str]:
    """Returns what there is to know, by name."""
    known = _processor()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(ROOT),
        "CPU": known.get("model name") or platform.processor() or platform.machine(),
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "load before the run": f"{os.getloadavg()[0]:.1f} processes",
        "AVX": " ".join(f for f in known.get("flags", "").split() if "avx" in f)
        or "none known",
        "memory": f"{_memory() / 2**30:.1f} GiB",
        "flags": _flags(),
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _flags():
    known = {name: os.environ.get(name, "(not set)") for name in ALWAYS}
    known |= {n: v for n, v in sorted(os.environ.items()) if n.startswith(OTHERS)}
    return " ".join(f"{name}={value}" for name, value in known.items())


def commit(folder: Path) -> str:
    """Returns the commit of a checkout, and whether it has changes beside that."""
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", folder, *arguments],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changes else head


def _processor():
    """What the kernel says of the first core."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, value in lines}


def _memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

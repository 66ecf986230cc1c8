"""A study without TensorFlow, which tests run."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VERSION = 3


@dataclass(frozen=True)
class Settings:
    """What decides the figures of a run.

    Attributes:
        q: Part of the figure.
        places: Another part.
        fault: What happens to the run: "raises", "killed", "killed once", "exits",
            "returns nothing", "returns nan", "prints", "waits".
        folder: Where a run that is killed once, or waits, leaves its mark.
        best: Whether the run depends on others.
    """

    q: float
    places: tuple[str, ...] = ("a",)
    fault: str = ""
    folder: str = ""
    best: bool = False
    seed: int = 0
    threads: int = 1


def runs(done):
    first = [Settings(q, seed=seed) for q in (1, 2) for seed in (0, 1)]
    if not all(settings in done for settings in first):
        return first
    best = max(first, key=lambda settings: done[settings]["sum"])
    return [*first, Settings(best.q, best=True)]


def tiny():
    return [Settings(1)]


def kind(settings):
    return f"q = {settings.q:g}"


def run(settings):
    if settings.fault == "raises":
        raise RuntimeError("The coin is lost.")
    if settings.fault == "exits":
        sys.exit(0)
    if settings.fault == "returns nothing":
        return None
    if settings.fault == "returns nan":
        return {"sum": 1.0, "parts": {"each": [float("nan"), -float("inf"), 2]}}
    if settings.fault == "prints":
        print(json.dumps({"figures": {}}), "." * 2**20)
    if settings.fault == "waits":
        child = subprocess.Popen(["sleep", "100"])
        Path(settings.folder, "waits").write_text(f"{os.getpid()} {child.pid}\n")
        child.wait()
    mark = Path(settings.folder, f"mark{settings.seed}")
    if settings.fault == "killed" or (
        settings.fault == "killed once" and not mark.exists()
    ):
        if settings.folder:
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {
        "sum": settings.q + settings.seed,
        "places": settings.places,
        "threads": os.environ["TF_NUM_INTRAOP_THREADS"],
        "process": os.getpid(),
    }


def tables(done):
    found = [s for s in runs(done) if s in done]
    lines = [f"{s.q:g} {s.seed} {done[s]['sum']:g}" for s in found]
    return "\n".join(sorted(lines))


def draw(done, folder):
    (folder / "coins.png").write_text(str(len(done)))

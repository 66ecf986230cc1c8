"""Runs on this machine, each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studies.execute import Outcome
from studies.study import FOLDER, Study

# Seconds between two looks at the processes. A run takes many.
PAUSE = 0.05


def run_local(
    study: Study, runs: Sequence[Any], jobs: int = 1
) -> Iterator[tuple[Any, Outcome]]:
    """Yields the settings and the outcome of each run as it ends.

    Args:
        study: What is run.
        runs: Settings, in the order in which they begin.
        jobs: Number of runs that go on at the same time.
    """
    waiting, going = list(runs), {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or going:
                while waiting and len(going) < jobs:
                    settings = waiting.pop(0)
                    file = Path(folder, study.digest(settings))
                    going[settings] = _start(study, settings, file), file
                ended = [s for s, (process, _) in going.items() if _has_ended(process)]
                for settings in ended:
                    yield settings, _outcome(*going.pop(settings))
                if not ended:
                    time.sleep(PAUSE)
        finally:
            for process, _ in going.values():
                process.kill()
                process.wait()


def _start(study, settings, file):
    # The words of a run, of which the last ones tell why its process ended.
    with open(file.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "studies.execute", study.address, file],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": path_of_clone()},
        )
        json.dump(study.to_json(settings), process.stdin)
        process.stdin.close()
    return process


def path_of_clone() -> str:
    """Returns a path for imports: this clone first, then what the user has."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(FOLDER.parent), *([before] if before else [])])


def _has_ended(process) -> bool:
    return process.poll() is not None


def _outcome(process, file) -> Outcome:
    if process.returncode == 0:
        return json.loads(file.read_text())
    words = file.with_suffix(".log").read_text(errors="replace")[-2000:].strip()
    code = process.returncode
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    return {"error": f"The process of the run ended {how}.", "traceback": words}

"""Runs on this machine, each in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from studies.runner.execute import Outcome
from studies.runner.study import FOLDER, Study

# Seconds between two looks at the processes. A run takes many.
PAUSE = 0.05
# Seconds for the last words of a process that has ended to come through.
PATIENCE = 2
# Characters that are kept of what a run prints. The last ones tell why it ended.
WORDS = 2000


def run_local(
    study: Study, runs: Sequence[Any], jobs: int = 1
) -> Iterator[tuple[Any, Outcome]]:
    """Yields the settings and the outcome of each run as it ends.

    Args:
        study: What is run.
        runs: Settings, in the order in which they begin.
        jobs: Number of runs that go on at the same time.
    """
    waiting = list(runs)
    going: dict[Any, _Run] = {}
    try:
        while waiting or going:
            while waiting and len(going) < jobs:
                settings = waiting.pop(0)
                going[settings] = _Run(study, settings)
            ended = [settings for settings, run in going.items() if run.has_ended()]
            for settings in ended:
                yield settings, going.pop(settings).outcome()
            if not ended:
                time.sleep(PAUSE)
    finally:
        for run in going.values():
            run.stop()


class _Run:
    """The process of a run. Nothing of it is on a disk, which may be full."""

    def __init__(self, study, settings):
        self._process = subprocess.Popen(
            # -P: a folder `benchmarks` where the user is hides none of this clone.
            [sys.executable, "-P", "-m", "studies.runner.execute", study.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": path_of_clone()},
            process_group=0,
        )
        self._answer, self._words = "", ""
        self._readers = [
            threading.Thread(target=read, daemon=True)
            for read in (self._read_answer, self._read_words)
        ]
        for reader in self._readers:
            reader.start()
        # A process that has ended already says why in its words.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(study.to_json(settings)) + "\n")
            # It stays open: the run ends when this process does, even by force.
            self._process.stdin.flush()

    def _read_answer(self):
        self._answer = self._process.stdout.readline()

    def _read_words(self):
        while words := self._process.stderr.readline(WORDS):
            self._words = (self._words + words)[-WORDS:]

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ends the process, and those that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if not any(reader.is_alive() for reader in self._readers):
            self._process.stdout.close()
            self._process.stderr.close()

    def outcome(self) -> Outcome:
        """Returns what came of it, which is whole or is no JSON."""
        self.stop()
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(self._answer)
        code = self._process.returncode
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return {
            "error": f"The process of the run ended {how}.",
            "traceback": self._words.strip(),
        }


def path_of_clone() -> str:
    """Returns a path for imports: this clone first, then what the user has."""
    before = os.environ.get("PYTHONPATH")
    own = [str(FOLDER.parent), os.getcwd()]
    return os.pathsep.join([*own, *([before] if before else [])])

"""One run of a study, in the process that calls this.

`python -m studies.execute STUDY FILE` reads settings from its input and writes what
came of them into FILE. TensorFlow must not be imported before, since it takes its
number of threads from the environment then.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# What is kept of the machine, by the names that `benchmarks/machine.py` has.
MACHINE = ("CPU", "cores", "AVX", "Python", "keras", "tensorflow", "numpy")

Outcome = dict[str, Any]


def environment(threads: int) -> dict[str, str]:
    """Returns the variables of a run's process: libraries read them at their import."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), "KERAS_BACKEND": "tensorflow"}


def execute(address: str, fields: dict[str, Any]) -> Outcome:
    """Does a run, and returns its figures or its error, with the time that it took.

    Args:
        address: Of the study.
        fields: The settings as JSON has them.
    """
    os.environ.update(environment(fields["threads"]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    wall, cpu = time.perf_counter(), time.process_time()
    outcome: Outcome = {}
    try:
        from studies.study import Study

        study = Study(address)
        figures = study.module.run(study.from_json(fields))
        outcome["figures"] = json.loads(json.dumps(figures))
    except Exception as error:  # Whatever it is, it belongs to this run alone.
        outcome["error"] = f"{type(error).__name__}: {error}"
        outcome["traceback"] = traceback.format_exc()
    outcome["seconds"] = round(time.perf_counter() - wall, 2)
    outcome["cpu_seconds"] = round(time.process_time() - cpu, 2)
    outcome["machine"] = _machine()
    return outcome


def _machine() -> dict[str, str]:
    from benchmarks import machine

    known = machine.describe()
    return {name: known[name] for name in MACHINE}


def main() -> None:
    address, file = sys.argv[1:]
    outcome = execute(address, json.load(sys.stdin))
    Path(file).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()

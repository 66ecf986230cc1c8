"""One run of a study, in the process that calls this.

`python -m studies.runner.execute STUDY` reads a line of settings from its input and
writes a line with what came of them to its output. It ends when its input does.
TensorFlow must not be imported before, since it takes its number of threads from the
environment then.
"""

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
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
        from studies.runner.study import Study

        study = Study(address)
        figures = study.module.run(study.from_json(fields))
        outcome["figures"] = _as_json(study, figures)
    except (Exception, SystemExit) as error:  # It belongs to this run alone.
        outcome["error"] = f"{type(error).__name__}: {error}"
        outcome["traceback"] = traceback.format_exc()
    outcome["seconds"] = round(time.perf_counter() - wall, 2)
    outcome["cpu_seconds"] = round(time.process_time() - cpu, 2)
    outcome["machine"] = _machine()
    return outcome


def _as_json(study, figures):
    """Returns figures as they are read from a file, so that all tables see the same."""
    if isinstance(figures, dict):
        try:
            return _with_nulls(json.loads(json.dumps(figures)))
        except (TypeError, ValueError) as error:
            why = str(error)
    else:
        why = f"it is of type {type(figures).__name__}"
    raise TypeError(
        f"run() of {study.name} must return a dict of what JSON can have. Received: "
        f"{str(figures)[:200]}, but {why}. Make numbers of NumPy and Keras plain: "
        "float(x), x.tolist()."
    )


def _with_nulls(figures):
    """Returns figures with None for what is not finite, which JSON does not have."""
    if isinstance(figures, dict):
        return {key: _with_nulls(each) for key, each in figures.items()}
    if isinstance(figures, list):
        return [_with_nulls(each) for each in figures]
    if isinstance(figures, float) and not math.isfinite(figures):
        return None
    return figures


def _machine() -> dict[str, str]:
    from benchmarks import machine

    known = machine.describe()
    return {name: known[name] for name in MACHINE}


def main() -> None:
    # What a run prints must not come between: it goes where errors go.
    answer = os.dup(1)
    os.dup2(2, 1)
    fields = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    outcome = execute(sys.argv[1], fields)
    with open(answer, "w") as file:
        file.write(json.dumps(outcome) + "\n")


def _end_with_input():
    """Ends this process, and those that it has started, as soon as its input ends."""
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

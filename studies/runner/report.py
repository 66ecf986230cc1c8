"""The report of a study: its tables and pictures, made from its runs."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from studies.runner.results import Results, write_whole
from studies.runner.study import Study

NAME = "report.md"
# Characters of an error that a report has. All of it is in the file of the run.
LENGTH = 200


def text(
    study: Study, results: Results, runs: Sequence[Any], changes: Mapping[str, Any]
) -> str:
    """Returns the tables, and what runs are missing or failed.

    Args:
        study: The study.
        results: Its runs that are finished.
        runs: Settings of all runs that the report is of.
        changes: Values of fields that these have instead of the study's own.
    """
    done = study.found(results.of(runs), changes)
    parts = [f"{len(done)} of {len(runs)} runs of version {study.version}.\n"]
    failed = [(s, results.failed[s]["error"]) for s in runs if s in results.failed]
    parts += [
        f"Failed: `{study.digest(settings)}`, {' '.join(error.split())[:LENGTH]}\n"
        for settings, error in failed
    ]
    if done:
        parts.append(study.call("tables", done).strip() + "\n")
    return "\n".join(parts)


def write(
    study: Study, results: Results, runs: Sequence[Any], changes: Mapping[str, Any]
) -> list[str]:
    """Writes tables and pictures into the folder of results; returns their names."""
    if not results.folder.is_dir():
        raise ValueError(
            "--results must be a folder of runs that is there. Received: "
            f"{results.folder}. Run the study first: the command without report."
        )
    done = study.found(results.of(runs), changes)
    write_whole(results.folder / NAME, text(study, results, runs, changes))
    if done:
        study.call("draw", done, results.folder)
    return [NAME, *sorted(picture.name for picture in results.folder.glob("*.png"))]


def check(
    study: Study, results: Results, runs: Sequence[Any], changes: Mapping[str, Any]
) -> None:
    """Compares the report in the folder with the runs there.

    Raises:
        ValueError: if they differ.
    """
    path = results.folder / NAME
    wanted = text(study, results, runs, changes)
    if not path.is_file():
        raise ValueError(
            f"{path} must be there. Write it by the same command without --check."
        )
    found = path.read_text()
    if found != wanted:
        lines = difflib.unified_diff(
            *(part.splitlines() for part in (found, wanted)),
            str(path),
            "made from the runs",
            lineterm="",
        )
        raise ValueError(
            f"{path} must be what its runs give. Write it anew by the same command "
            "without --check. The difference:\n" + "\n".join(list(lines)[:40])
        )

"""The runs of a study in a CSV file, so that a study that was interrupted goes on."""

import csv
from collections.abc import Sequence
from pathlib import Path


class FinishedRuns:
    """The figures of runs by what was set in them. A file keeps them, if one is given.

    Each line of the file is a run. It is written when the run ends.
    """

    def __init__(
        self, path: Path | None, settings: Sequence[str], figures: Sequence[str]
    ) -> None:
        self._path = path
        self._settings, self._figures = list(settings), list(figures)
        self._runs: dict[tuple[str, ...], dict[str, float]] = {}
        if path is None:
            return
        if not path.exists():
            self._write([*settings, *figures])
        with open(path, newline="") as file:
            columns, *lines = list(csv.reader(file)) or [[]]
        if columns != [*settings, *figures]:
            raise ValueError(
                f"{path} must have the columns of this study. Received: "
                f"{', '.join(columns)}. Name a file that does not exist yet."
            )
        for number, line in enumerate(lines, 2):
            try:
                self._keep(line)
            except ValueError as error:
                raise ValueError(
                    f"Line {number} of {path} must be a whole run. Received: "
                    f"{','.join(line)}. Delete this line."
                ) from error

    def __contains__(self, run: Sequence[object]) -> bool:
        return _texts(run) in self._runs

    def __getitem__(self, run: Sequence[object]) -> dict[str, float]:
        return self._runs[_texts(run)]

    def add(self, run: Sequence[object], figures: dict[str, float]) -> None:
        line = [*_texts(run), *(repr(figures[column]) for column in self._figures)]
        self._keep(line)
        if self._path is not None:
            self._write(line)

    def _keep(self, line: list[str]) -> None:
        run, figures = line[: len(self._settings)], line[len(self._settings) :]
        numbers = map(float, figures)
        self._runs[tuple(run)] = dict(zip(self._figures, numbers, strict=True))

    def _write(self, line: list[str]) -> None:
        with open(self._path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(line)


def _texts(run: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, run))

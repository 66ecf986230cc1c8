"""Tables of a run: how they read, and the files that keep them."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.targets import Check
from benchmarks.timing import Spent

JSON, MARKDOWN, PICTURE = "results.json", "results.md", "sizes.png"


@dataclass(frozen=True)
class Row:
    """A line of a table: figures by the heading of their column."""

    name: str
    figures: Mapping[str, float]
    check: Check | None = None


@dataclass(frozen=True)
class Table:
    """What one comparison gives."""

    title: str
    note: str  # Which figure of the rounds counts.
    rows: Sequence[Row]
    rounds: Mapping[str, Sequence[Spent]] = field(default_factory=dict)
    # What could not take part, with the reason.
    missing: Mapping[str, str] = field(default_factory=dict)
    picture: bytes | None = None

    def to_markdown(self) -> str:
        headings = list(dict.fromkeys(key for row in self.rows for key in row.figures))
        lines = [
            [row.name, *(_shown(row.figures.get(key)) for key in headings)]
            for row in self.rows
        ]
        if any(row.check for row in self.rows):
            headings += ["target", "met"]
            for line, row in zip(lines, self.rows, strict=True):
                line += _verdict(row.check) if row.check else ["", ""]
        parts = [f"### {self.title}", self.note, _grid(["", *headings], lines)]
        if self.picture:
            parts.append(f"![{self.title}]({PICTURE})")
        if self.missing:
            parts.append(_missing(self.missing))
        return "\n\n".join(parts)


@dataclass
class Report:
    """The tables of a run, by suite, and what the run was made on."""

    machine: dict[str, str]
    command: str
    quick: bool = False
    tables: dict[str, list[Table]] = field(default_factory=dict)

    def add(self, suite: str, table: Table) -> None:
        self.tables.setdefault(suite, []).append(table)

    @property
    def checks(self) -> list[Check]:
        return [row.check for row in self._rows() if row.check]

    @property
    def missing(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for table in self._all():
            found |= table.missing
        return found

    def targets_to_markdown(self) -> str:
        lines = [
            [check.target.what, check.row, _shown(check.measured), *_verdict(check)]
            for check in self.checks
        ]
        if not lines:
            return "No measured figure has a target."
        return _grid(["what", "row", "measured", "target", "met"], lines, texts=2)

    def to_markdown(self) -> str:
        parts = ["# Benchmarks", f"`{self.command}`"]
        if self.quick:
            parts.append(
                "A quick run: few rounds and small sizes. It shows that all works, and "
                "its figures say little."
            )
        machine = [[*item] for item in self.machine.items()]
        parts.append(_grid(["machine", ""], machine, texts=2))
        parts += ["## Targets", self.targets_to_markdown()]
        if self.missing:
            parts.append(_missing(self.missing))
        for suite, tables in self.tables.items():
            parts += [f"## {suite}", *(table.to_markdown() for table in tables)]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        return json.dumps(
            {
                "command": self.command,
                "quick": self.quick,
                "machine": self.machine,
                "missing": self.missing,
                "targets": [_check_to_json(check) for check in self.checks],
                "suites": {
                    suite: [_table_to_json(table) for table in tables]
                    for suite, tables in self.tables.items()
                },
            },
            indent=1,
        )

    def write(self, folder: Path) -> None:
        """Writes all files. Each of them is whole at any time."""
        replace_file(folder / JSON, self.to_json().encode())
        replace_file(folder / MARKDOWN, self.to_markdown().encode())
        pictures = [table.picture for table in self._all() if table.picture]
        if pictures:
            replace_file(folder / PICTURE, pictures[-1])
        else:  # One that an earlier run left there would belong to other figures.
            (folder / PICTURE).unlink(missing_ok=True)

    def _all(self) -> Iterable[Table]:
        return (table for tables in self.tables.values() for table in tables)

    def _rows(self) -> Iterable[Row]:
        return (row for table in self._all() for row in table.rows)


def _check_to_json(check: Check) -> dict[str, Any]:
    return {
        "what": check.target.what,
        "row": check.row,
        "measured": check.measured,
        "at_most": check.target.at_most,
        "met": check.met,
    }


def _table_to_json(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "note": table.note,
        "rows": [
            {
                "name": row.name,
                **row.figures,
                **({"target": _check_to_json(row.check)} if row.check else {}),
            }
            for row in table.rows
        ],
        "rounds": {
            name: [spent._asdict() for spent in rounds]
            for name, rounds in table.rounds.items()
        },
        "missing": dict(table.missing),
    }


def _verdict(check: Check) -> list[str]:
    return [f"<= {_shown(check.target.at_most)}", "yes" if check.met else "NO"]


def _missing(missing: Mapping[str, str]) -> str:
    lines = [f"- {name}: {' '.join(why.split())}" for name, why in missing.items()]
    return "Missing:\n\n" + "\n".join(lines)


def _shown(value: float | None) -> str:
    """Three digits, and no more than four decimals. Numbers of things have none."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if not value or not math.isfinite(value):
        return f"{value:g}"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 4)}f}"


def _grid(
    headings: Sequence[str], lines: Sequence[Sequence[str]], texts: int = 1
) -> str:
    """A table of Markdown that also reads well as it stands.

    The first columns are `texts`, the others are numbers.
    """
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    dashes = ["-" * max(width - 1, 1) for width in widths]
    rule = [f":{line}" for line in dashes[:texts]]
    rule += [f"{line}:" for line in dashes[texts:]]

    def padded(cells):
        left = map(str.ljust, cells[:texts], widths)
        right = map(str.rjust, cells[texts:], widths[texts:])
        return f"| {' | '.join([*left, *right])} |"

    return "\n".join(map(padded, [headings, rule, *lines]))


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside the file, then takes its place."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(content)
            os.chmod(file.name, 0o644)
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)

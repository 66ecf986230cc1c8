"""Speed and memory of the package, beside Keras and others.

    python -m benchmarks                      # all suites
    python -m benchmarks op step --rounds 9
    python -m benchmarks --quick              # whether all works, in minutes
    python -m benchmarks op --against FOLDER  # beside another checkout

prints tables as they are measured, and writes all of them with the rounds, the machine
and the versions into a folder. Candidates take turns. Run it from the top of the
repository.
"""

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks import machine
from benchmarks.report import MARKDOWN, Report
from benchmarks.settings import ROOT, Settings
from benchmarks.suites import SUITES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"one of {', '.join(SUITES)}; default: all of them",
    )
    parser.add_argument("--rounds", type=_positive, help="rounds that count")
    parser.add_argument(
        "--elements",
        type=_positive,
        default=Settings.elements,
        help="number of elements of the tensor in suite op",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, small sizes: no verdict"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks/results",
        help="folder for the tables; default: benchmarks/results",
    )
    parser.add_argument("--against", type=_folder, help="folder of another checkout")
    parser.add_argument("--release", type=_file, help="the authors' file for PyTorch")
    parser.add_argument(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether PyTorch, JAX and the authors' release take part",
    )
    parser.add_argument(
        "--clock",
        choices=["cpu", "wall"],
        default="cpu",
        help="which times suite op compares; wall for a GPU",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {number}")
    return number


def _folder(text: str) -> Path:
    if not (Path(text) / "keras_sparseout/__init__.py").is_file():
        raise argparse.ArgumentTypeError(
            "must be the folder of another checkout of this repository. "
            f"Received: {text}, in which there is no keras_sparseout"
        )
    return Path(text).resolve()


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"must be a file. Received: {text}")
    return Path(text).resolve()


def _new_folder(folder: Path) -> None:
    """Sees to it that the folder can be written before anything is measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SystemExit(
            f"--out must be a folder that can be written. Received: {folder}, which "
            f"fails with {type(error).__name__}: {error.strerror}. Give another one."
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the suites that were asked for."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if unknown := [suite for suite in args.suites if suite not in SUITES]:
        parser.error(
            f"a suite is one of {', '.join(SUITES)}. Received: {', '.join(unknown)}"
        )
    _new_folder(args.out)
    settings = Settings(
        rounds=args.rounds,
        quick=args.quick,
        elements=args.elements,
        against=args.against,
        release=args.release,
        peers=args.peers,
        clock=args.clock,
    )
    report = Report(
        machine.describe(),
        shlex.join(["python", "-m", "benchmarks", *(arguments or sys.argv[1:])]),
        args.quick,
    )
    if args.against:
        report.machine["other checkout"] = machine.commit(args.against)
    print("\n".join(f"{name}: {what}" for name, what in report.machine.items()))
    try:
        _measure(args.suites or SUITES, settings, report, args.out)
    except KeyboardInterrupt:
        kept = f"the tables above are in {args.out}" if report.tables else "no table"
        raise SystemExit(f"\nInterrupted. Kept: {kept}.") from None
    print(f"\n## Targets\n\n{report.targets_to_markdown()}")
    print(f"\nWritten: {args.out / MARKDOWN}, and the rest beside it.")


def _measure(
    suites: Iterable[str], settings: Settings, report: Report, folder: Path
) -> None:
    for suite in dict.fromkeys(suites):
        print(f"\n## {suite}", flush=True)
        for table in importlib.import_module(SUITES[suite]).run(settings):
            report.add(suite, table)
            print(f"\n{table.to_markdown()}", flush=True)
            # What is measured is kept, whatever comes.
            report.write(folder)


if __name__ == "__main__":
    main()

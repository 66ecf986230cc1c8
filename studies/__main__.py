"""Runs a study, or makes its report.

    python -m studies                          # what there is
    python -m studies theory                   # run what is missing
    python -m studies language --jobs 2        # two runs at a time
    python -m studies images --set data=cifar10 --results out/cifar10
    python -m studies images --ray             # on Ray, here or on a cluster
    python -m studies report theory            # tables and pictures

A run is a process of its own. What is finished is kept, one JSON file a run, so a study
that was interrupted goes on where it was.
"""

import argparse
import ast
import contextlib
import functools
import shlex
import signal
import sys
from pathlib import Path

from studies.runner import report, running
from studies.runner.local import run_local
from studies.runner.on_ray import Session
from studies.runner.progress import forecast
from studies.runner.results import Results, alone
from studies.runner.study import FOLDER, Study, names

RESULTS = FOLDER / "results"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a study, or a file that is one; `report NAME` makes its report",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of the runs and the report (studies/results/NAME)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a setting that all runs have instead of their own",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a few short runs instead; needs --results"
    )
    _add_running(parser.add_argument_group("running").add_argument)
    add = parser.add_argument_group("report").add_argument
    add("--check", action="store_true", help="compare with the report that is there")
    # Options may stand between the words: report --check NAME.
    args = parser.parse_intermixed_args(arguments)
    _check(parser, args)
    return args


def _add_running(add):
    add("--local", action="store_true", help="run here, which is the default")
    add("--jobs", type=int, default=1, help="runs at a time here (%(default)s)")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run on Ray, as many at a time as fit: on the cluster at HOST:PORT, or "
        "without that on this machine",
    )
    add("--cpus", type=int, help="CPUs of a run on Ray (as many as its threads)")
    add("--gpus", type=float, default=0, help="GPUs of a run on Ray (none)")
    add("--retries", type=int, default=1, help="of a run that failed (%(default)s)")
    add(
        "--forecast",
        action="store_true",
        help="run one of each kind, and say how long all take",
    )
    add("--list", action="store_true", help="print the runs, and run none")


def _check(parser, args):
    args.report = args.names[:1] == ["report"]
    args.names = args.names[1:] if args.report else args.names
    if args.report and not args.names:
        parser.error(f"report must have the name of a study: {', '.join(names())}.")
    if not args.report and len(args.names) > 1:
        parser.error(f"NAME must be one study. Received: {' '.join(args.names)}.")
    if args.jobs < 1:
        parser.error(f"--jobs must be at least 1. Received: {args.jobs}.")
    if args.ray is not None and (args.local or args.jobs > 1):
        parser.error(
            "--ray must be without --local and --jobs. Received: both. Leave out one."
        )
    if args.ray and not args.names:
        parser.error(
            f"--ray must come behind NAME. Received: --ray {args.ray}. If that is the "
            f"study: python -m studies {args.ray} --ray"
        )
    if args.ray is None and (args.cpus or args.gpus):
        parser.error("--cpus and --gpus must be with --ray. Received: none. Add it.")
    if args.cpus is not None and args.cpus < 1:
        parser.error(f"--cpus must be at least 1. Received: {args.cpus}.")
    if args.gpus < 0 or (args.gpus > 1 and args.gpus % 1):
        parser.error(
            "--gpus must be at least 0, and above 1 a whole number. Received: "
            f"{args.gpus:g}."
        )
    if args.retries < 0:
        parser.error(f"--retries must be at least 0. Received: {args.retries}.")
    if (args.tiny or args.set) and args.results is None:
        parser.error(
            "--tiny and --set must have a folder of their own. Add --results DIR."
        )
    if args.results is None and any(name.endswith(".py") for name in args.names):
        parser.error("A file must have a folder of its own. Add --results DIR.")
    if args.check and not args.report:
        parser.error(
            "--check must be of a report: python -m studies report --check NAME."
        )
    if args.results is not None and len(args.names) > 1:
        parser.error("--results must be of one study. Name one alone.")


def run(study: Study, args: argparse.Namespace) -> int:
    """Runs what is missing; returns 1 if a run failed, else 0."""
    changes = dict(map(study.parse, args.set))
    folder = args.results or RESULTS / study.name
    with contextlib.nullcontext() if args.list else alone(folder):
        results = Results(study, folder)
        list_runs = running.lister(study, results, changes, args.tiny)
        if args.list:
            for settings in list_runs():
                known = "failed" if settings in results.failed else "missing"
                print(f"{'done' if settings in results.done else known:<7} {settings}")
            return 0
        return _run(study, results, list_runs, args)


def _run(study, results, list_runs, args):
    wanted = list_runs
    if args.forecast:
        firsts = running.one_of_each_kind(study, results, list_runs())
        wanted = functools.partial(list, firsts)
    with _runner(args) as (runner, jobs):
        running.run_missing(study, results, wanted, runner, args.retries, jobs)
    if args.forecast:
        print(forecast(study, results, list_runs(), jobs))
    failed = [settings for settings in list_runs() if settings in results.failed]
    for settings in failed:
        print(results.failed[settings]["traceback"], file=sys.stderr)
        print(f"{settings} failed, see above.", file=sys.stderr)
    if not args.forecast:
        print(
            f"{len(results.of(list_runs()))} of {len(list_runs())} runs are in "
            f"{results.folder}. Now: {_command_of_report(study, args)}"
        )
    return 1 if failed else 0


def _command_of_report(study, args):
    words = ["python", "-m", "studies", "report", study.address]
    words += ["--tiny"] if args.tiny else []
    words += [word for change in args.set for word in ("--set", change)]
    words += ["--results", str(args.results)] if args.results else []
    return shlex.join(words)


@contextlib.contextmanager
def _runner(args):
    """Yields what runs the runs, and how many of them go on at the same time."""
    if args.ray is None:
        yield functools.partial(run_local, jobs=args.jobs), args.jobs
    else:
        with Session(args.ray, args.cpus, args.gpus) as session:
            yield session.run, session.jobs


def write_report(study: Study, args: argparse.Namespace) -> None:
    changes = dict(map(study.parse, args.set))
    folder = args.results or RESULTS / study.name
    # A check changes nothing, so what is damaged is an error then.
    results = Results(study, folder, say=None if args.check else print)
    runs = running.lister(study, results, changes, args.tiny)()
    if args.check:
        report.check(study, results, runs, changes)
        print(f"{folder / report.NAME} is what its runs give.")
    else:
        written = report.write(study, results, runs, changes)
        print(f"Written into {folder}: {', '.join(written)}")


def list_studies() -> None:
    for name in names():
        text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
        print(f"{name:<12} {(text or '').splitlines()[0]}")


def main(arguments: list[str]) -> int:
    args = parse_arguments(arguments)
    if not args.names:
        list_studies()
        return 0
    try:
        for name in args.names:
            study = Study(name)
            if args.report:
                write_report(study, args)
            elif run(study, args):
                return 1
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. Runs that are finished are kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # As when it is interrupted, so that no run goes on without it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))

"""How near a model comes to the sparsity that one asks for, and what that costs.

    python -m benchmarks.gauntlet                  # all jobs: half an hour on two cores
    python -m benchmarks.gauntlet --quick          # a few of them: two minutes
    python -m benchmarks.gauntlet --jobs lstm cnn --actuators penalty --seeds 7

trains unlike models, plain ones of Keras, and asks SparsityController for three figures
with its default arguments, once for each thing that it can move. What people do
without it takes part: the best of five fixed penalties, a penalty that rises in stages
to the weight that these five suggest, and the loss of sparse autoencoders. All is
measured on data that no model has seen, with seeds that nothing was tuned on.

It writes gauntlet.md and gauntlet.csv, a line a run. Run it from the top of the
repository.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tqdm import tqdm

from benchmarks import machine
from benchmarks.asking import tables
from benchmarks.asking.plan import Plan
from benchmarks.asking.pool import Pool
from benchmarks.asking.request import ACTUATORS, Outcome, Request
from benchmarks.asking.verdict import judge
from benchmarks.jobs import JOBS
from benchmarks.report import replace_file
from benchmarks.settings import ROOT

MARKDOWN, CSV = "gauntlet.md", "gauntlet.csv"
# Nothing was tuned on these.
SEEDS = (101, 102, 103)
DEFAULT = ("penalty", "threshold", "q")
QUICK = ("readme", "autoencoder", "lstm")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gauntlet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, help="default: all")
    parser.add_argument(
        "--actuators", nargs="+", choices=ACTUATORS, default=DEFAULT, help="%(default)s"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help=f"default: {SEEDS}")
    parser.add_argument(
        "--today",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether what people do without a controller takes part",
    )
    parser.add_argument(
        "--quick", action="store_true", help="three jobs, one seed, one target"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="how many train at once (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks/results",
        help="folder for the tables; default: benchmarks/results",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains all that was asked for, and writes what came of it."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.processes < 1:
        parser.error(f"--processes must be at least 1. Received: {args.processes}.")
    if any(not 0 <= seed < 2**32 for seed in args.seeds or ()):
        parser.error(f"--seeds must be from 0 to 2^32 - 1. Received: {args.seeds}.")
    args.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        jobs=args.jobs or (QUICK if args.quick else [*JOBS]),
        actuators=args.actuators,
        seeds=args.seeds or (SEEDS[:1] if args.quick else SEEDS),
        targets=(1,) if args.quick else (0, 1, 2),
        today=args.today,
    )
    command = ["python", "-m", "benchmarks.gauntlet", *(arguments or sys.argv[1:])]
    head = [f"`{shlex.join(command)}`", *_about(args.quick)]
    outcomes: dict[Request, Outcome] = {}
    try:
        _run(plan, Pool(args.processes), outcomes)
    except KeyboardInterrupt:
        head.append("It was interrupted: not all runs are here.")
    finally:
        text = _write(plan, outcomes, head, args.out)
    print(f"\n{text}\nWritten: {args.out / MARKDOWN}, {args.out / CSV}")


def _about(quick: bool) -> Iterable[str]:
    if quick:
        yield "A quick run shows that all works, and its figures say little."
    yield "; ".join(f"{name}: {what}" for name, what in machine.describe().items())


def _run(plan: Plan, pool: Pool, outcomes: dict[Request, Outcome]) -> None:
    first = plan.first()
    total = len(first) + plan.most()
    # A log gets a line a minute.
    interval = 0.1 if sys.stderr.isatty() else 60.0
    with tqdm(total=total, unit="run", mininterval=interval) as progress:
        _train(pool, first, outcomes, progress)
        second = plan.second(outcomes)
        progress.total = len(first) + len(second)
        _train(pool, second, outcomes, progress)


def _train(
    pool: Pool,
    requests: Sequence[Request],
    outcomes: dict[Request, Outcome],
    progress: tqdm,
) -> None:
    for request, outcome in pool.run(requests):
        outcomes[request] = outcome
        progress.set_postfix_str(f"{request.job}, {request.way}", refresh=False)
        progress.update()


def _write(
    plan: Plan, outcomes: dict[Request, Outcome], head: Iterable[str], folder: Path
) -> str:
    verdicts = judge(outcomes)
    parts = ["# Asked for a sparsity", *head]
    parts += [table.to_markdown() for table in tables.tables(verdicts, outcomes)]
    parts += ["### Missed", tables.missed(verdicts, plan.actuators)]
    # Not if it was interrupted before it is known what q reaches.
    known = all(request in outcomes for request in plan.first())
    if known and (left_out := plan.left_out(outcomes)):
        parts.append("\n".join(f"- {what}: {why}" for what, why in left_out.items()))
    text = "\n\n".join(parts) + "\n"
    replace_file(folder / MARKDOWN, text.encode())
    replace_file(folder / CSV, tables.as_csv(verdicts, outcomes).encode())
    return text


if __name__ == "__main__":
    main()

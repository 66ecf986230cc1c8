"""Runs on Ray: on the cores of this machine, or on a cluster.

Each run is a task in a process of its own, which is that of
`studies/runner/execute.py`, as on this machine. What comes of a run goes to the process
that started the study, and only that one writes results.
"""

import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from studies.runner.execute import Outcome, environment, execute
from studies.runner.local import path_of_clone
from studies.runner.study import FOLDER, Study

ROOT = FOLDER.parent
# What a cluster does not need of this clone.
EXCLUDES = [".git", "/docs", "/out", "/studies/results"]
# Seconds for a cluster to answer. Ray itself waits for two minutes, and then exits.
PATIENCE = 10
# Runs leave nothing in Ray's store of objects; less than this it refuses.
STORE = 80 * 2**20


class Session:
    """A Ray of its own on this machine, or a connection to a cluster.

    Args:
        address: HOST:PORT of a cluster. Empty: Ray is started here, and ended again.
        cpus: CPUs that a run takes. None: as many as it has threads.
        gpus: GPUs that a run takes. With 0 it sees none.

    Raises:
        ImportError: if Ray is not installed.
        ValueError: if nothing answers at the address, or a run takes more than there
            is.
    """

    def __init__(
        self, address: str = "", cpus: int | None = None, gpus: float = 0
    ) -> None:
        self._address, self._cpus, self._gpus = address, cpus, gpus

    def __enter__(self) -> "Session":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            raise ImportError(
                '--ray needs ray. Install what studies need: pip install ".[studies]"'
            ) from error
        self._ray = ray
        self._connect()
        try:
            self.jobs = self._check_that_it_fits(self._cpus or 1)
        except ValueError:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def _connect(self):
        ray = self._ray
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        stop = signal.getsignal(signal.SIGTERM)
        if self._address:
            _check_that_it_answers(self._address)
            code = {"working_dir": str(ROOT), "excludes": EXCLUDES}
            try:
                ray.init(self._address, runtime_env=code, **quiet)
            except Exception as error:  # Ray raises many kinds, of one remedy.
                why = f"{error}. If it asks for a token, set RAY_AUTH_MODE=token"
                raise _no_cluster(self._address, why) from error
        else:
            here = {"include_dashboard": False, "object_store_memory": STORE}
            ray.init("local", **here, **quiet)
        # Ray has put an end of its own in the place of what was there.
        signal.signal(signal.SIGTERM, stop)

    def _check_that_it_fits(self, cpus):
        """Returns how many runs go on at the same time; raises if it is none."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = {
            name: max((machine.get(name, 0) for machine in machines), default=0)
            for name in ("CPU", "GPU")
        }
        for option, wanted, name in (
            ("--cpus", cpus, "CPU"),
            ("--gpus", self._gpus, "GPU"),
        ):
            if wanted > most[name]:
                raise ValueError(
                    f"{option} must be at most what one machine of Ray has, "
                    f"{most[name]:g} {name}s. Received: {wanted:g}. Give {option} "
                    f"{most[name]:g}, or start Ray on a larger machine."
                )
        return sum(self._runs_on(machine, cpus) for machine in machines)

    def _runs_on(self, machine, cpus):
        fit = machine.get("CPU", 0) / cpus
        if self._gpus:
            fit = min(fit, machine.get("GPU", 0) / self._gpus)
        return math.floor(fit)

    def run(self, study: Study, runs: Sequence[Any]) -> Iterator[tuple[Any, Outcome]]:
        """Yields the settings and the outcome of each run as it ends.

        Args:
            study: What is run.
            runs: Settings, in the order in which they begin.
        """
        ray = self._ray
        self._check_that_it_fits(
            max(self._cpus or settings.threads for settings in runs)
        )
        address = self._address_of(study)
        # A process does one task, once: what failed is tried again as for local runs.
        task = ray.remote(max_calls=1, max_retries=0)(execute)
        going = {
            task.options(**self._needs(settings)).remote(
                address, study.to_json(settings)
            ): settings
            for settings in runs
        }
        while going:
            ended, _ = ray.wait([*going])
            for reference in ended:
                yield going.pop(reference), self._outcome(reference)

    def _needs(self, settings):
        """The resources and the environment of the process of a run."""
        variables = environment(settings.threads)
        if not self._address:
            variables["PYTHONPATH"] = path_of_clone()
        if not self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = "-1"
        return {
            "num_cpus": self._cpus or settings.threads,
            "num_gpus": self._gpus,
            "runtime_env": {"env_vars": variables},
        }

    def _address_of(self, study):
        """The study's name, or its file as the process of a run finds it."""
        if not study.address.endswith(".py"):
            return study.address
        path = Path(study.address).resolve()
        if not self._address:
            return str(path)
        if not path.is_relative_to(ROOT):
            raise ValueError(
                f"NAME must be a file in {ROOT}, which is what a cluster gets. "
                f"Received: {study.address}. Copy it there."
            )
        return str(path.relative_to(ROOT))

    def _outcome(self, reference) -> Outcome:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            kind = type(error).__name__
            return {
                "error": f"The process of the run ended by Ray's {kind}: {first}",
                "traceback": str(error),
            }


def _check_that_it_answers(address: str) -> None:
    import grpc

    try:
        parts = urlsplit(f"//{address}")
        target = f"{parts.hostname}:{parts.port}" if parts.hostname else ""
    except ValueError:  # The port is no number.
        target = ""
    if not target or target != address or not parts.port:
        raise _no_cluster(address, "that is no HOST:PORT")
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        except grpc.FutureTimeoutError as error:
            raise _no_cluster(address, f"no answer in {PATIENCE} s") from error


def _no_cluster(address, why):
    return ValueError(
        "--ray must be HOST:PORT of a Ray cluster that answers. Received: "
        f"{address}, {why}. Start one, ray start --head --port 6379, and give the "
        "address that it prints; or leave ADDRESS out to start Ray here. Runs that are "
        "finished are kept."
    )

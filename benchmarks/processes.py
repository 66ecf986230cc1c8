"""Worker processes, and the turns that they take."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.interleave import Candidate, interleave
from benchmarks.peers import PEERS
from benchmarks.settings import OTHER, ROOT, Settings
from benchmarks.timing import Spent


class WorkerError(RuntimeError):
    """What went wrong in a worker."""


class Worker:
    """A process of its own. `benchmarks/worker.py` is what runs in it.

    Args:
        folder: Another checkout, whose package the process imports.
        **environment: Variables that differ from those of this process.
    """

    def __init__(self, folder: Path | None = None, **environment: str) -> None:
        # Open for as long as the process is.
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        folders = [] if folder is None else [folder]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={
                "TF_CPP_MIN_LOG_LEVEL": "2",
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                **environment,
            },
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        # Nothing more to read ends the process.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def call(self, function: str, **arguments: Any) -> Any:
        """Returns what the function with this address returns there, by JSON."""
        return self._ask(do="call", function=function, arguments=arguments)

    def make(self, function: str, **arguments: Any) -> dict[str, Candidate]:
        """Has the function make candidates, and returns what runs them there."""
        names = self._ask(do="make", function=function, arguments=arguments)
        return {name: self._candidate(name) for name in names}

    def _candidate(self, name: str) -> Candidate:
        return lambda: Spent(*self._ask(do="run", name=name))

    def _ask(self, **request):
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise WorkerError(f"it ended with code {code}; {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            error = WorkerError(answer["error"])
            error.add_note(self._last_words())
            raise error
        return answer["result"]

    def _last_words(self):
        self._log.seek(0)
        return self._log.read()[-2000:].strip() or "it said nothing."


class Turns:
    """The processes whose candidates take turns.

    They are this checkout, another one if the settings name it, and peers.

    Args:
        settings: What the run was asked to do.
        peers: Whether peers that have processes of their own take part.
    """

    def __init__(self, settings: Settings, peers: bool = False) -> None:
        self.missing: dict[str, str] = {}
        self.settings = settings
        self._peers: dict[str, Worker] = {}
        self._wants_peers = peers and settings.peers
        if peers and not settings.peers:
            self.missing = dict.fromkeys(PEERS, "left out by --no-peers")

    def __enter__(self) -> "Turns":
        with contextlib.ExitStack() as stack:
            self._here = stack.enter_context(Worker())
            self._there = None
            if self.settings.against:
                self._there = stack.enter_context(Worker(self.settings.against))
            for name, peer in PEERS.items() if self._wants_peers else ():
                if peer.needs_release and not self.settings.release:
                    self.missing[name] = "no --release FILE"
                else:
                    worker = Worker(KERAS_BACKEND=peer.backend)
                    self._peers[name] = stack.enter_context(worker)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def measure(
        self,
        function: str,
        rounds: int,
        *,
        title: str = "",
        burn_in: int = 2,
        peers: Mapping[str, Any] | None = None,
        only_here: Collection[str] = (),
        **arguments: Any,
    ) -> dict[str, list[Spent]]:
        """Times the candidates that a function makes in each checkout.

        Args:
            function: Address of the function.
            rounds: Number of rounds.
            title: Text beside the progress bar.
            burn_in: Number of rounds before them.
            peers: Arguments for the peers' own candidates. By default they sit out.
            only_here: Names of candidates that have nothing of the package in them, so
                that it's no use to time them in each checkout.
            **arguments: Arguments of the function.

        Returns:
            Dict of what each round took, by name. In names of another checkout's
            candidates ", other" comes last.
        """
        here = self._here.make(function, **arguments)
        there = self._there.make(function, **arguments) if self._there else {}
        candidates: dict[str, Candidate] = {}
        for name, candidate in here.items():
            candidates[name] = candidate
            if name in there and name not in only_here:
                candidates[name + OTHER] = there[name]
        if peers is not None:
            candidates.update(self._make_peers(peers))
        return interleave(candidates, rounds, burn_in, title)

    def _make_peers(self, arguments):
        candidates: dict[str, Candidate] = {}
        for name, worker in list(self._peers.items()):
            peer = PEERS[name]
            file = {"file": str(self.settings.release)} if peer.needs_release else {}
            try:
                made = worker.make(peer.function, **arguments, **file)
                for candidate in made.values():
                    candidate()  # What can't be run at all is missing too.
            except WorkerError as error:
                self.missing[name] = str(error)
                del self._peers[name]
            else:
                candidates |= made
        return candidates

"""Worker processes that train side by side, each on one thread."""

import contextlib
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.asking.request import Outcome, Request
from benchmarks.processes import Worker, WorkerError

# A process keeps a little of each graph that it made.
_RUNS = 40


class Pool:
    """Trains in several processes, and hands on what comes of it.

    Args:
        processes: How many.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Outcome]]:
        """Yields each request with its outcome, in their order."""
        with contextlib.ExitStack() as stack:
            desks: queue.SimpleQueue[_Desk] = queue.SimpleQueue()
            for _ in range(self._processes):
                desk = _Desk()
                stack.callback(desk.close)
                desks.put(desk)
            threads = ThreadPoolExecutor(self._processes)
            # What has not begun when one interrupts the command is not begun.
            stack.callback(threads.shutdown, cancel_futures=True)
            futures = [threads.submit(_train, desks, one) for one in requests]
            for request, future in zip(requests, futures, strict=True):
                yield request, future.result()


def _train(desks: "queue.SimpleQueue[_Desk]", request: Request) -> Outcome:
    desk = desks.get()
    try:
        return desk.train(request)
    finally:
        desks.put(desk)


class _Desk:
    """One process after the other."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._runs = 0

    def train(self, request: Request) -> Outcome:
        if self._worker is None or self._runs == _RUNS:
            self.close()
            one = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
            self._worker, self._runs = Worker(**one).__enter__(), 0
        self._runs += 1
        try:
            answer = self._worker.call(
                "benchmarks.asking.train:answer", request=request.to_json()
            )
        except WorkerError as error:
            self.close()
            return Outcome(error=str(error))
        return Outcome(**answer)

    def close(self) -> None:
        """Ends the process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.__exit__()

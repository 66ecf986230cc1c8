"""Worker processes answer, take turns, and say what is missing."""

import pytest

from benchmarks import processes
from benchmarks.peers import Peer
from benchmarks.processes import Turns, Worker, WorkerError
from benchmarks.settings import Settings
from benchmarks.timing import Spent

HERE = "tests.helpers.turning"


@pytest.fixture
def checkout(tmp_path):
    """A folder with a package of the same name."""
    (tmp_path / "keras_sparseout").mkdir()
    text = "def where():\n    return 'the other checkout'\n"
    (tmp_path / "keras_sparseout/__init__.py").write_text(text)
    return tmp_path


def test_a_worker_runs_candidates_and_times_them():
    with Worker() as worker:
        made = worker.make(f"{HERE}:candidates", names=["A", "B"])
        assert list(made) == ["A", "B"]
        spent = [made[name]() for name in "BAB"]
        assert worker.call(f"{HERE}:ran") == ["B", "A", "B"]
    assert all(isinstance(one, Spent) and one.wall > 0 for one in spent)


def test_an_error_of_a_worker_is_told_and_it_goes_on():
    with Worker() as worker:
        with pytest.raises(WorkerError, match="ValueError: no good") as caught:
            worker.call(f"{HERE}:fail")
        assert "turning.py" in caught.value.__notes__[0]
        # What is printed there is no answer.
        assert worker.call(f"{HERE}:noisy") == "answer"


def test_a_worker_that_ends_is_told():
    with Worker() as worker, pytest.raises(WorkerError, match="ended with code 3"):
        worker.call("os:_exit", status=3)


def test_a_worker_takes_the_package_from_another_checkout(checkout):
    with Worker(checkout) as worker:
        assert worker.call("keras_sparseout:where") == "the other checkout"


def test_another_checkout_takes_turns(checkout):
    with Turns(Settings(against=checkout)) as turns:
        rounds_of = turns.measure(
            f"{HERE}:candidates", 3, names=["copy", "layer"], only_here=["copy"]
        )
    assert list(rounds_of) == ["copy", "layer", "layer, other"]
    assert {len(rounds) for rounds in rounds_of.values()} == {3}
    assert turns.missing == {}


PEERS = {
    "not installed": Peer("benchmarks.peers.nowhere:candidates"),
    "broken": Peer(f"{HERE}:broken"),
    "there": Peer(f"{HERE}:candidates"),
    "a release": Peer(f"{HERE}:candidates", needs_release=True),
}


def test_a_missing_peer_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(processes, "PEERS", PEERS)
    with Turns(Settings(), peers=True) as turns:
        rounds_of = turns.measure(
            f"{HERE}:candidates", 1, names=["A"], peers={"names": ["B"]}
        )
        assert list(rounds_of) == ["A", "B"]
        # It sits out what has no peers.
        assert list(turns.measure(f"{HERE}:candidates", 1, names=["A"])) == ["A"]
    assert turns.missing == {
        "not installed": "ModuleNotFoundError: No module named "
        "'benchmarks.peers.nowhere'",
        "broken": "ValueError: no good",
        "a release": "no --release FILE",
    }


def test_without_peers_all_are_missing(monkeypatch):
    monkeypatch.setattr(processes, "PEERS", PEERS)
    with Turns(Settings(peers=False), peers=True) as turns:
        rounds_of = turns.measure(
            f"{HERE}:candidates", 1, names=["A"], peers={"names": ["B"]}
        )
    assert list(rounds_of) == ["A"]
    assert turns.missing == dict.fromkeys(PEERS, "left out by --no-peers")

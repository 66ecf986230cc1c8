"""Candidates take turns, and rounds become figures."""

import pytest

from benchmarks.interleave import differences, fastest, interleave, spread
from benchmarks.timing import Spent, timed


def test_candidates_take_turns_and_the_burn_in_does_not_count():
    order = []

    def candidate(name):
        def run():
            order.append(name)
            return Spent(cpu=len(order), wall=10 * len(order))

        return run

    rounds_of = interleave({n: candidate(n) for n in "ABC"}, rounds=2, burn_in=1)
    assert "".join(order) == "ABC" * 3
    assert rounds_of == {
        "A": [Spent(4, 40), Spent(7, 70)],
        "B": [Spent(5, 50), Spent(8, 80)],
        "C": [Spent(6, 60), Spent(9, 90)],
    }


def test_the_fastest_is_of_cpu_and_of_wall_each():
    assert fastest([Spent(3, 1), Spent(2, 5)]) == Spent(2, 1)
    assert fastest([Spent(3, 1)]) == Spent(3, 1)


def test_differences_are_within_rounds():
    # The machine is twice as slow in the second round.
    without, with_it = [Spent(10, 0), Spent(20, 0)], [Spent(11, 0), Spent(22, 0)]
    assert differences(with_it, without) == [1, 2]
    with pytest.raises(ValueError, match="shorter"):
        differences(with_it, without[:1])


def test_the_spread_is_between_quartiles():
    assert spread([1, 2, 3, 4, 100]) == 2
    assert spread([5]) == 0


def test_a_call_takes_cpu_and_wall_seconds():
    calls = []
    spent = timed(lambda: calls.append(1))
    assert calls == [1]
    assert spent.cpu >= 0
    assert spent.wall >= 0

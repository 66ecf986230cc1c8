"""Each thread's trace sees its own hooks only."""

import threading

import batched
import keras
import numpy as np
import pytest
from stepped import X, Y, is_clean, tracker


class Meeting(keras.layers.Layer):
    """Lets another thread run, while the one that waits is in the middle of a step."""

    def __init__(self):
        super().__init__()
        self.waiting = None
        self.reached, self.over = threading.Event(), threading.Event()

    def call(self, x):
        if threading.get_ident() == self.waiting:
            self.reached.set()
            assert self.over.wait(20)
        return x


def net(meeting, hidden=None):
    keras.utils.set_random_seed(1)
    hidden = hidden or keras.layers.Dense(8, "relu", name="a")
    layers = [hidden, meeting, keras.layers.Dense(5, "relu", name="b")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def predicting(model, results):
    model.predict(2 * X, verbose=0)


def fitting(model, results):
    batched.fit(model, 2 * X, Y, verbose=0)


def fitting_another(model, results):
    """Another model, tracked as well, that shares a layer."""
    other, t = net(keras.layers.Identity(), model.layers[0]), tracker()
    batched.fit(other, X[:9], Y[:9], verbose=0, callbacks=[t])
    results.append((other, t, X[:9]))


@pytest.mark.parametrize("run", [predicting, fitting, fitting_another])
def test_another_thread_runs_while_a_step_is_traced(run):
    meeting = Meeting()
    model, t = net(meeting), tracker()
    meeting.waiting = threading.get_ident()
    errors, results = [], [(model, t, X)]

    def beside():
        try:
            assert meeting.reached.wait(20)
            run(model, results)
        except BaseException as error:
            errors.append(error)
        finally:
            meeting.over.set()

    thread = threading.Thread(target=beside)
    thread.start()
    batched.fit(model, X, Y, batch_size=8, verbose=0, callbacks=[t])
    thread.join()
    assert errors == []
    meeting.waiting = None
    for watched, seen, x in results:
        hidden = watched.layers[0](x)
        for name, a in (("a", hidden), ("b", watched.layers[2](hidden))):
            expected = pytest.approx(np.mean(np.asarray(a) == 0), rel=1e-6)
            assert seen.history[f"zero_fraction/{name}"] == [expected]
        assert is_clean(watched)

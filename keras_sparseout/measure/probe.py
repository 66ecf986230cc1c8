"""Measuring watched layers on probe data, without training."""

import keras
import tensorflow as tf

from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_sums import add, check_same_units, layer_sums
from keras_sparseout.measure.trace import Trace


class Probe:
    """Measures watched layers on given data, without training.

    The hooks are in place only while one compiled function is traced, that returns
    the sums and not the activations: at run time they cost nothing.

    Args:
        model: A built Keras model.
        watched: The layers, from `watching.select`.
        metrics: Dict of streaming metrics by name, from `check_metrics`.
        named: Whether the user named the layers, so that one that can't be read is an
            error; otherwise it is left out.

    Attributes:
        watched: The layers that are measured.
        left_out: Dict of reasons, by name, of those that are not.
    """

    def __init__(self, model, watched, metrics, *, named=True):
        self.settings = model, watched, metrics, named
        self.model = model
        self.watched = watched
        self.metrics = metrics
        self.named = named
        self.left_out, self._calls = {}, {}
        self._step = tf.function(self._trace, autograph=False, reduce_retracing=True)

    def calls(self):
        """Returns how often each layer is called, by name."""
        return dict(self._calls)

    def measure(self, batches):
        """Returns the totals over `batches` of model inputs, by layer."""
        totals = {}
        for batch in batches:
            for name, sums in run(self._step, batch).items():
                add(totals, name, [s.numpy() for s in sums])
        return totals

    def _trace(self, batch):
        trace = Trace(self.model, self.watched)
        # In the scope assignments to variables go nowhere: recurrent states and the
        # seeds of layers that draw even at inference stay what they are.
        with keras.StatelessScope(), trace.reading():
            self.model(batch, training=False)
        if not self.named:
            self.left_out.update(trace.left_out())
            self.watched = [w for w in self.watched if w.name not in self.left_out]
        missed = trace.missed()
        if missed and (self.named or not self.watched):
            raise layer_selection.unreached(missed, self.model, named=self.named)
        self._calls = trace.calls()
        sums = {}
        for watched, x, mask in trace.seen:
            if watched.name in self.left_out:
                continue
            own = layer_sums(watched, self.metrics, x, mask)
            before = sums.get(watched.name, own)
            check_same_units(watched, *([s.shape for s in x] for x in (before, own)))
            add(sums, watched.name, own)
        return sums


def run(function, batch):
    """Returns what a tf.function makes of `batch`.

    It is not called itself: TensorFlow counts the calls of all functions of the same
    code, and would warn of retracing where many models are measured, each once.
    """
    return function.get_concrete_function(batch)(batch)

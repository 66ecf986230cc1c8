"""Which layers' figures mean nothing, because a weight or the loss is not finite."""

import keras
import numpy as np
import tensorflow as tf

from keras_sparseout.measure import layer_selection


def broken(model, watched, loss=0.0):
    """Returns dict of causes by name, of the layers whose figures would mean nothing.

    NaN in a kernel need not show in the activations: oneDNN and XLA may turn it into
    0 together with a ReLU, so that the layer would seem sparse and its units dead.

    Args:
        model: The model.
        watched: Layers of it, as `watching.find` gives them.
        loss: The loss of the batches that they were measured on, if it is known.
    """
    if not np.all(np.isfinite(loss)):
        return {w.name: f"the loss is {np.asarray(loss).tolist()}" for w in watched}
    bad = {id(v) for v in model.variables if not _is_finite(v)}
    if not bad:
        return {}
    found, causes = layer_selection.find(model), {}
    for w in watched:
        culprit = _culprit(w, found, bad)
        if culprit is not None:
            causes[w.name] = f"the weights of layer {culprit!r} are not finite"
    return causes


def _culprit(w, found, bad):
    """The name of the first layer that `w` depends on and that has weights in `bad`."""
    before = []
    for v in found:
        if v.layer is w.layer:
            break
        before.append(v)
    for v in before:
        # What is around it has weights of layers behind it too.
        around = w.name.startswith(v.name + "/")
        if bad.intersection(map(id, _own(v.layer) if around else v.layer.weights)):
            return v.name
    if w.side == "output" and bad.intersection(map(id, w.layer.weights)):
        return w.name
    return None


def _own(layer):
    """The weights of a layer that are not those of layers inside it."""
    inner = {id(v) for w in layer_selection.find(layer) for v in w.layer.weights}
    return [v for v in layer.weights if id(v) not in inner]


def _is_finite(variable):
    if not keras.backend.is_float_dtype(variable.dtype):
        return True
    dtype = "float64" if variable.dtype == "float64" else "float32"
    tensor = tf.cast(keras.ops.convert_to_tensor(variable), dtype)
    # One number that is not finite makes their sum so.
    if np.isfinite(tf.reduce_sum(tensor).numpy()):
        return True
    return bool(tf.reduce_all(tf.math.is_finite(tensor)).numpy())

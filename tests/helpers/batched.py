"""Training on arrays in their order, without what Keras does to cut them.

It traces functions of TensorFlow for that in each fit and evaluation, which take longer
than all steps of a small model.
"""

import numpy as np
import tensorflow as tf
from keras import tree


def batches(x, y, size):
    """Returns a data set of arrays, or of dicts or tuples (not lists) of them."""
    data = tree.map_structure(_as_keras_has_it, (x, y))
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def _as_keras_has_it(array):
    array = np.asarray(array)
    return array.astype("float32") if array.dtype == "float64" else array


def fit(model, x, y, *, batch_size=32, validation_data=None, **options):
    """Does what `model.fit` does with `shuffle=False`."""
    if validation_data is not None:
        validation_data = batches(*validation_data, batch_size)
    data = batches(x, y, batch_size)
    options = {"shuffle": False, "validation_data": validation_data, **options}
    return model.fit(data, **options)

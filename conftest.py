"""What every test starts from."""

import ctypes
import gc
import os
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sparseout

# Up to four replicas on one machine; has to come before TensorFlow starts its devices.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)

# What is imported stays, so the search for garbage need not go through it each time.
gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _small_gradients():
    """Without this TensorFlow keeps the graph of each fit for ever.

    It keeps all graphs in which a gradient is defined, as all_reduce does in each step.
    On one replica there is nothing to reduce.
    """
    whole = tf.distribute.ReplicaContext.all_reduce

    def all_reduce(context, reduce_op, value, options=None):
        if context.num_replicas_in_sync == 1:
            return value
        return whole(context, reduce_op, value, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.distribute.ReplicaContext, "all_reduce", all_reduce)
        yield


@pytest.fixture(autouse=True, scope="module")
def _freed():
    """Frees the models of each file."""
    yield
    keras.utils.clear_session()
    if platform.libc_ver()[0] == "glibc":
        # It keeps for itself what was freed.
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _closed_logs(monkeypatch):
    """Closes the files of CSVLogger, which leaves them open where `fit` raises."""
    files, begin = [], keras.callbacks.CSVLogger.on_train_begin

    def on_train_begin(logger, logs=None):
        begin(logger, logs)
        files.append(logger.csv_file)

    monkeypatch.setattr(keras.callbacks.CSVLogger, "on_train_begin", on_train_begin)
    yield
    for file in files:
        file.close()


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace.update(keras=keras, keras_sparseout=keras_sparseout, np=np)

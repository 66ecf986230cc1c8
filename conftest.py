"""What every test starts from."""

import os

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

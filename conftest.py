"""What every test starts from."""

import contextvars
import ctypes
import gc
import inspect
import os
import platform
import weakref

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import greenlet
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sparseout
from keras_sparseout.ops import compiled_noise, noise

# Up to four replicas on one machine; has to come before TensorFlow starts its devices.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)

# Tracing makes so many objects that a tenth of the time would go into the search for
# garbage. What a file leaves is freed after it.
gc.set_threshold(50_000, 20, 100)

_REGISTER = tf.RegisterGradient.__call__
_MAKE_TRAIN_FUNCTION = keras.Model.make_train_function


@pytest.fixture(autouse=True, scope="session")
def _freed_gradients():
    """Lets each graph keep the gradients that are defined in it.

    TensorFlow registers gradients by name for ever, and each keeps its graph. Every fit
    would leave one, since all_reduce defines a gradient. Tests of what is freed take
    `gradients_of_tensorflow`.
    """

    def register_weakly(self, function):
        if function.__name__ != "internal_grad_fn":  # as tf.custom_gradient names it
            return _REGISTER(self, function)
        graph = tf.compat.v1.get_default_graph()
        graph.gradients = [*getattr(graph, "gradients", ()), function]
        kept = weakref.ref(function)
        _REGISTER(self, lambda *arguments: kept()(*arguments))
        return function

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.RegisterGradient, "__call__", register_weakly)
        yield


def pytest_collection_finish():
    """Spares the search for garbage what stays: all that is imported, and the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def gradients_of_tensorflow(monkeypatch):
    """Keeps gradients as TensorFlow does."""
    monkeypatch.setattr(tf.RegisterGradient, "__call__", _REGISTER)


@pytest.fixture(autouse=True, scope="session")
def _built_optimizers():
    """Builds the optimizer of each model before its first step.

    Else that makes the optimizer's variables, and TensorFlow traces it once more, which
    takes a third of a short fit. Tests of that take `optimizers_of_keras`.
    """

    def make_train_function(model, *arguments, **options):
        optimizer = getattr(model, "optimizer", None)
        if model.built and optimizer is not None and not optimizer.built:
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        return _MAKE_TRAIN_FUNCTION(model, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "make_train_function", make_train_function)
        yield


@pytest.fixture
def optimizers_of_keras(monkeypatch):
    """Leaves it to the first step to build an optimizer."""
    monkeypatch.setattr(keras.Model, "make_train_function", _MAKE_TRAIN_FUNCTION)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs each test on a stack of its own.

    TensorFlow keeps the stack trace of each operation that XLA compiled, for ever. The
    frames of pytest would make up most of a trace, and a third of the memory.
    """
    names = inspect.signature(pyfuncitem.obj).parameters
    given = pyfuncitem.funcargs
    arguments = {name: given[name] for name in names if name in given}
    test = greenlet.greenlet(pyfuncitem.obj)
    test.gr_context = contextvars.copy_context()
    test.switch(**arguments)
    return True


class Heap:
    """The memory of this process. What was freed glibc keeps for itself.

    Attributes:
        trimmed: How many MiB were there after it was trimmed.
    """

    def __init__(self):
        self.has_glibc = platform.libc_ver()[0] == "glibc"
        self.trimmed = self.resident()

    def resident(self):
        """Returns how many MiB are there; 0 without glibc."""
        if not self.has_glibc:
            return 0
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

    def trim(self):
        """Gives back what was freed."""
        if self.has_glibc:
            ctypes.CDLL(None).malloc_trim(0)
        self.trimmed = self.resident()


HEAP = Heap()

# Functions that keep what they trace or compile for others.
PROGRAMS = [
    noise._perturbing_function,
    compiled_noise._multiplying_program,
    compiled_noise._perturbing_program,
    compiled_noise._product_program,
]


@pytest.fixture(autouse=True, scope="module")
def _freed():
    """Frees the models of each file, and its programs where there are many.

    Each holds its graph, and those of all gradients that were taken of it. Of a few it
    takes longer to trace them again.
    """
    yield
    if sum(function.cache_info().currsize for function in PROGRAMS) > 12:
        for function in PROGRAMS:
            function.cache_clear()
    keras.utils.clear_session()
    HEAP.trim()


@pytest.fixture(autouse=True)
def _bounded():
    """Frees what a test left, if that is much.

    What is in use lies scattered, and many short tests would fill all that is between.
    """
    yield
    if HEAP.resident() > HEAP.trimmed + 150:
        gc.collect()
        HEAP.trim()


@pytest.fixture(autouse=True)
def _grappler(request):
    """Spares most tests the optimizer of graphs, which takes a fifth of a short fit.

    What it makes of a graph depends on oneDNN, so those tests have it.
    """
    spared = request.node.get_closest_marker("onednn") is None
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": spared})


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

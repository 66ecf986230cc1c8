"""One training run, in a process that does one after the other."""

import functools
import statistics
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from benchmarks.asking.request import (
    FIXED,
    HELD,
    LAYER,
    PLAIN,
    SQUARED,
    STAGED,
    THRESHOLDS,
    Outcome,
    Request,
)
from benchmarks.asking.stages import staged
from benchmarks.asking.surrogates import HoyerLoss, JumpReLU
from benchmarks.jobs import JOBS
from benchmarks.jobs.job import Job
from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    SparseoutScheduler,
    SparsityController,
    TargetSparsity,
    activation_sparsity,
    models,
)

# The columns of `activation_sparsity`.
_COLUMNS = {"zero_fraction": "zeros", "hoyer": "hoyer"}
# The added layers are called by the name of the layer before, and this.
_ADDED = "_asked"


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Trains as asked, and returns the `Outcome`, both as JSON has them."""
    return asdict(train(Request(**request)))


def train(request: Request) -> Outcome:
    """Trains a model, and measures it on data that it has not seen."""
    job = JOBS[request.job]
    begun = time.process_time()
    keras.backend.clear_session()
    keras.utils.set_random_seed(request.seed)
    plain = _plain_model(job, request.seed)
    model, layers = _asked(plain, job, request)
    callbacks = _callbacks(job, request, layers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _fit(model, job, request.epochs or job.epochs, request.seed, callbacks)
    metric = _metric(job, request.way)
    figures, score = _measure(model, job, layers, metric)
    by_epoch, setting = _history(callbacks, request, metric, layers)
    return Outcome(
        metric=metric,
        figures=figures,
        score=score,
        by_epoch=by_epoch,
        setting=setting,
        said=tuple(dict.fromkeys(str(one.message) for one in caught)),
        cpu=time.process_time() - begun,
    )


def _metric(job: Job, way: str) -> str:
    return "zero_fraction" if way in THRESHOLDS else job.metric


@functools.cache
def _data(job: str):
    return JOBS[job].data()


def _plain_model(job: Job, seed: int) -> keras.Model:
    model = job.build()
    if not model.built:
        model.build((None, *_data(job.name).x.shape[1:]))
    if job.trained:
        model.set_weights(_trained_weights(job.name, seed))
    return model


@functools.cache
def _trained_weights(name: str, seed: int) -> list[np.ndarray]:
    """What a run begins with that is asked of a trained model."""
    job = JOBS[name]
    model = job.build()
    _fit(model, job, job.trained, seed)
    return model.get_weights()


def _fit(model, job, epochs, seed, callbacks=()):
    data = _data(job.name)
    # All ways of one seed see the same batches.
    keras.utils.set_random_seed(seed)
    model.fit(
        data.x,
        data.y,
        batch_size=job.batch_size,
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks],
    )


def _asked(
    model: keras.Model, job: Job, request: Request
) -> tuple[keras.Model, dict[str, str]]:
    """Returns the model to train, and the names of the layers to measure, by layer."""
    if request.way in (PLAIN, "penalty"):
        return model, {name: name for name in job.layers}

    def added(layer: keras.layers.Layer) -> keras.layers.Layer:
        target = request.target.get(layer.name, 0.0)
        return _added(job, request.way, target, request.setting, layer.name + _ADDED)

    model = models.insert(model, dict.fromkeys(job.layers, added))
    return model, {name: name + _ADDED for name in job.layers}


def _added(
    job: Job, way: str, target: float, setting: float | None, name: str
) -> keras.layers.Layer:
    """Returns the layer that a way puts behind the activations."""
    if way == FIXED:
        return ActivationPenalty(setting, job.kind, name=name)
    if way in (STAGED, "weight"):
        return ActivationPenalty(0.0, job.kind, adjustable=True, name=name)
    if way == HELD:
        return Sparseout(job.rate, q=setting, name=name)
    if way == "q":
        return Sparseout(job.rate, q=2.0, adjustable=True, name=name)
    if way in THRESHOLDS:
        return TargetSparsity(target, adjustable=way != LAYER, name=name)
    kind = JumpReLU if job.metric == "zero_fraction" else HoyerLoss
    return kind(target, name=name)


def _callbacks(
    job: Job, request: Request, layers: Mapping[str, str]
) -> list[keras.callbacks.Callback]:
    if request.way == STAGED:
        data = _data(job.name)
        batches = -(-len(data.x) // job.batch_size) * (request.epochs or job.epochs)
        last = request.setting

        def weight(step):
            return last * staged(step / batches)

        return [SparseoutScheduler(weight=weight, verbose=0)]
    if request.way in (PLAIN, FIXED, HELD, SQUARED, LAYER):
        return []
    asked = {layers[name]: target for name, target in request.target.items()}
    # All other arguments have their defaults: that is what is tried here.
    controller = SparsityController(
        asked if len(set(asked.values())) > 1 else next(iter(asked.values())),
        _metric(job, request.way),
        x=_data(job.name).probe,
        layers=[*asked],
        actuator=request.way,
        verbose=0,
    )
    return [controller]


def _measure(model, job, layers, metric):
    data = _data(job.name)
    table = activation_sparsity(
        model, data.x_test, layers=[*layers.values()], batch_size=1000, verbose=0
    )
    by_name = {row["layer"]: row[_COLUMNS[metric]] for row in table.rows}
    figures = {name: float(by_name[layer]) for name, layer in layers.items()}
    predicted = model.predict(data.x_test, batch_size=1000, verbose=0)
    if data.y_test.ndim == 1:
        score = np.mean(predicted.argmax(-1) == data.y_test)
    else:
        score = 1 - np.mean((predicted - data.y_test) ** 2) / data.y_test.var()
    return figures, float(score)


def _history(callbacks, request, metric, layers):
    """What a controller had at the end of each epoch, and its last setting."""
    history = getattr(callbacks[0], "history", None) if callbacks else None
    if not history:
        return (), None
    columns = [history.get(f"val_{metric}/{name}", ()) for name in layers.values()]
    means = (float(np.mean(row)) for row in zip(*columns, strict=True))
    # NaN stands in the rows of readings within an epoch.
    by_epoch = [figure for figure in means if not np.isnan(figure)]
    settings = [history.get(f"{request.way}/{name}") for name in layers.values()]
    last = [one[-1] for one in settings if one]
    return tuple(by_epoch), float(statistics.mean(last)) if last else None

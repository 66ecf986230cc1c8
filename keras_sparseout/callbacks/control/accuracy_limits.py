"""What a controller must keep: the least value of a metric, the largest loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import numpy as np

from keras_sparseout.utils import validation

Mode: TypeAlias = Literal["max", "min"]
MinMetric: TypeAlias = tuple[str, float] | tuple[str, float, Mode]


class Score(NamedTuple):
    """What the logs of an epoch say.

    Attributes:
        metric: The metric; 0 if none is asked.
        loss: The loss; 0 if it does not matter.
    """

    metric: float
    loss: float


class AccuracyLimits:
    """Tells by the logs of an epoch whether it keeps

        metric >= least value           (<= for a metric of which less is better)
        loss <= lowest + max_loss_increase |lowest|

    where lowest is the lowest loss of the epochs so far. The loss is `val_loss` if the
    logs of the first epoch have it, else `loss`.

    Args:
        model: The model that is trained.
        min_metric: Name in the logs, least value, and maybe "max" or "min"; or None.
        max_loss_increase: Share of the lowest loss; or None.
    """

    def __init__(
        self,
        model: keras.Model,
        min_metric: MinMetric | None,
        max_loss_increase: float | None,
    ) -> None:
        self._model = model
        self._min_metric = min_metric
        self._max_loss_increase = max_loss_increase
        self._sign = 0.0
        self._loss_key: str | None = None

    @property
    def by_validation(self) -> bool:
        """Whether the loss is that of the validation data."""
        return self._loss_key == "val_loss"

    @property
    def all_by_validation(self) -> bool:
        """Whether all that it looks at is of the validation data."""
        keys = [] if self._min_metric is None else [self._min_metric[0]]
        if self._max_loss_increase is not None:
            keys.append(self._loss_key or "")
        return all(key.startswith("val_") for key in keys)

    def resume(self, by_validation: bool) -> None:
        """Goes on with the loss of an earlier run."""
        self._loss_key = "val_loss" if by_validation else "loss"

    def score(
        self, logs: Mapping[str, Any], *, first: bool, may_wait: bool = False
    ) -> Score | None:
        """Returns what the logs say; None if they lack it, as without validation.

        Args:
            logs: Keras' logs of an epoch.
            first: Whether no epoch before had a score.
            may_wait: Whether a first score may come in a later epoch, as with
                `validation_freq`.

        Raises:
            ValueError: if it is the first one, and its logs lack what is asked, where
                that can't be for want of a validation, or may not wait.
        """
        name = self._min_metric[0] if self._min_metric is not None else None
        if first and self._max_loss_increase is not None:
            self._loss_key = "val_loss" if "val_loss" in logs else "loss"
            if self._loss_key not in logs:
                given = f"max_loss_increase={self._max_loss_increase!r}"
                raise _not_there(given, logs, _remedy_for_loss(logs))
        if first and name is not None and name not in logs:
            # Not any key of validation: other callbacks have some for probe data.
            if may_wait and name.startswith("val_") and "val_loss" not in logs:
                return None
            given = f"min_metric={self._min_metric!r}"
            raise _not_there(given, logs, _remedy_for_metric(name, logs))
        loss_key = self._loss_key if self._max_loss_increase is not None else None
        if any(key is not None and key not in logs for key in (name, loss_key)):
            return None
        if self._min_metric is not None and not self._sign:
            self._sign = _sign(self._model, self._min_metric)
        metric, loss = (
            0.0 if key is None else float(np.mean(logs[key]))
            for key in (name, loss_key)
        )
        return Score(metric, loss)

    def keeps(self, score: Score, before: Sequence[Score]) -> bool:
        """Whether a score keeps the limits.

        Args:
            score: The score.
            before: All scores among which the lowest loss is looked for.
        """
        return self._metric_kept(score) and self._loss_kept(score, before)

    def why_not(self, score: Score, before: Sequence[Score]) -> str:
        """Says why a score does not keep the limits; arguments as for `keeps`."""
        if self._min_metric is not None and not self._metric_kept(score):
            name, least, *_ = self._min_metric
            rule = "below the floor" if self._sign > 0 else "above the limit"
            return f"{name} {score.metric:.4g} is {rule} {least:g}"
        share = 100 * (self._max_loss_increase or 0.0)
        return (
            f"the loss budget is spent, {self._loss_key} {score.loss:.4g} is more than "
            f"{share:g} % above the lowest, {_lowest(before):.4g}"
        )

    @property
    def given(self) -> str:
        """The first of the arguments that is given, as in a call."""
        if self._min_metric is not None:
            return f"min_metric={self._min_metric!r}"
        return f"max_loss_increase={self._max_loss_increase!r}"

    @property
    def asked(self) -> str:
        """The limits in words."""
        parts = []
        if self._min_metric is not None:
            sign = ">=" if self._sign > 0 else "<="
            parts.append(f"{self._min_metric[0]} {sign} {self._min_metric[1]:g}")
        if self._max_loss_increase is not None:
            share = 100 * self._max_loss_increase
            parts.append(f"{self._loss_key} up to {share:g} % above the lowest")
        return " and ".join(parts)

    def best(self, scores: Sequence[Score]) -> str:
        """The best of `scores` in words."""
        if self._min_metric is None:
            return f"{self._loss_key} {_lowest(scores):.4g}"
        known = [s.metric for s in scores if not math.isnan(s.metric)]
        best = max(known, key=lambda value: self._sign * value, default=math.nan)
        return f"{self._min_metric[0]} {best:.4g}"

    def _metric_kept(self, score):
        if self._min_metric is None:
            return True
        return self._sign * score.metric >= self._sign * self._min_metric[1]

    def _loss_kept(self, score, before):
        if self._max_loss_increase is None:
            return True
        lowest = _lowest(before)
        return score.loss <= lowest + self._max_loss_increase * abs(lowest)


def _lowest(scores: Sequence[Score]) -> float:
    losses = [score.loss for score in scores if math.isfinite(score.loss)]
    return min(losses, default=math.nan)


def _sign(model: keras.Model, min_metric: MinMetric) -> float:
    """Returns 1 if more of the metric is better, else -1, as EarlyStopping decides."""
    name, _, *modes = min_metric
    mode: str | None = str(modes[0]) if modes else None
    if mode is None and name.endswith("loss"):
        mode = "min"
    if mode is None:
        judge = keras.callbacks.EarlyStopping(name)
        judge.set_model(model)
        judge.on_train_begin()
        try:
            judge.on_epoch_end(0, {name: 0.0})
        except ValueError:
            least, largest = (*min_metric, "max"), (*min_metric, "min")
            raise ValueError(
                "`min_metric` must say whether more is better, where Keras does not "
                f"know it of the metric. Received: min_metric={min_metric!r}. Give "
                f"min_metric={least} for a least value, or {largest} for a largest one."
            ) from None
        mode = "max" if bool(judge.monitor_op(1.0, 0.0)) else "min"
    return 1.0 if mode == "max" else -1.0


def _not_there(given: str, logs: Mapping[str, Any], remedy: str) -> ValueError:
    """The error for a figure that the logs of an epoch don't have.

    Args:
        given: The argument, as in a call.
        logs: The logs.
        remedy: What to do.
    """
    argument, _, _ = given.partition("=")
    there = ", ".join(sorted(logs)) or "nothing"
    which = "the first epoch"
    if "'val_" in given:
        which += ", or those of one that is validated before the last,"
    return ValueError(
        f"`{argument}` needs a figure that the logs of {which} have. Received: {given}"
        f", while the logs have {there}. {remedy}"
    )


def _remedy_for_metric(name: str, logs: Mapping[str, Any]) -> str:
    if name.startswith("val_") and not any(key.startswith("val_") for key in logs):
        return "Give fit validation_data, and validate an epoch before the last one."
    remedy = "Give one of these, or name the metric in `compile`."
    return validation.did_you_mean(name, sorted(logs), remedy) if logs else remedy


def _remedy_for_loss(logs: Mapping[str, Any]) -> str:
    """What to do where a training step returns its losses under other names."""
    losses = sorted(key for key in logs if "loss" in key)
    remedy = "Return 'loss' from `train_step`"
    if not losses:
        return f"{remedy}, or give `min_metric`."
    other = (losses[0], 0.5, "min")
    return f"{remedy}, or limit another one: min_metric={other!r} keeps it <= 0.5."

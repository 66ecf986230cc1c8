"""The moving statistics of BatchNormalization layers, which lag behind the weights."""

import contextlib
import functools
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from keras_sparseout.backend import train_step
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.measure.batch_statistics import BatchStatistics, Statistics
from keras_sparseout.measure.probe_data import ProbeData

# A lag of this many standard deviations of a layer's inputs is worth a line. The mean
# of a batch of 32 samples is off by 0.18 of them, that of 16 batches by 0.04.
_LAG = 0.1
_LEAST_BATCHES = 16


class MovingStatistics:
    """Recomputes the moving statistics from probe data, or says that they lag.

    At inference a BatchNormalization layer normalises by moving means, which remember
    1 / (1 - momentum) steps. While a controller makes activations sparser, these are
    behind, so that the figures at inference are not those of training.

    Args:
        model: The model that is trained.
        data: The probe data, or None.
        messages: What the controller says.
    """

    def __init__(
        self,
        model: keras.Model,
        data: ProbeData | None,
        messages: ControllerMessages,
    ) -> None:
        self._statistics = BatchStatistics(model)
        self._data = data
        self._messages = messages
        # The statistics as epochs began, with the number of batches until then.
        self._before: list[tuple[int, dict[str, Statistics]]] = []
        self._validated: dict[str, Statistics] = {}
        self._begins_validation = False

    def begin_epoch(self, batches: int) -> None:
        """Notes the statistics after so many `batches`."""
        enough = batches - _LEAST_BATCHES
        while len(self._before) > 1 and self._before[1][0] <= enough:
            del self._before[0]
        self._before.append((batches, self._statistics.present()))

    @contextlib.contextmanager
    def recomputed(self) -> Iterator[None]:
        """Gives the layers recomputed statistics for the time of this context."""
        with self._statistics.in_place(self._recompute()):
            yield

    def begin_validation(self) -> None:
        """Has the steps until `end_validation` take recomputed statistics."""
        self._validated, self._begins_validation = {}, bool(self._before)

    def arm(self) -> None:
        """Gives the layers these statistics for the time of the next test step.

        Between the steps they have their own: where validation raises, Keras calls no
        callback that could give them back.
        """
        # Not before: another callback may put averages of the weights in, as
        # SwapEMAWeights does when validation begins.
        if self._begins_validation:
            self._validated, self._begins_validation = self._recompute(), False
        if self._validated:
            in_place = functools.partial(self._statistics.in_place, self._validated)
            train_step.arm_around(self._statistics.model, "test", in_place)

    def disarm(self) -> None:
        """Undoes `arm`, if there was no step since."""
        if self._validated:
            train_step.restore(self._statistics.model, "test")

    def end_validation(self) -> None:
        """Forgets the recomputed statistics."""
        self._validated, self._begins_validation = {}, False

    def conclude(self, batches: int) -> None:
        """Recomputes the statistics, and says so; or says that they lag.

        Args:
            batches: How many batches training had until now.
        """
        if not self._before or batches <= self._before[0][0]:
            return  # There was no training.
        new, late = self._recompute(), self._late_layers(batches)
        self._before = []
        if new:
            self._statistics.assign(new)
            self._messages.print(
                f"recomputed the moving statistics of {_layers(len(new))} from x"
            )
        late = {name: late[name] for name in late if name not in new}
        if late:
            self._say_lag(late)

    def _recompute(self) -> dict[str, Statistics]:
        """Returns the statistics over the probe data; none that are not finite."""
        statistics = self._statistics
        if self._data is None or not statistics.layers() or statistics.obstacle():
            return {}
        new = statistics.measure(self._data)
        finite = all(np.all(np.isfinite(s.variance)) for s in new.values())
        return new if finite else {}

    def _say_lag(self, momentums: Mapping[str, float]) -> None:
        """Prints that the statistics of layers with these momentums lag."""
        steps = round(1 / (1 - max(momentums.values())))
        obstacle = self._statistics.obstacle()
        if obstacle is not None:
            remedy = f"Take @tf.function off the `call` of {obstacle!r}, and give `x`"
        elif self._data is None:
            remedy = "Give `x`, from which they are recomputed, or a lower momentum"
        else:
            remedy = "They can't be recomputed: give a lower momentum"
        self._messages.print(
            f"the moving statistics of {_layers(len(momentums))} lag: they remember "
            f"about {steps} steps, in which the activations changed. So the figures at "
            f"inference are not those of training. {remedy}"
        )

    def _late_layers(self, batches: int) -> dict[str, float]:
        """Returns the momentums of the layers whose statistics lag, by name."""
        present, momentums = self._statistics.present(), self._momentums()
        before, old = self._reference(batches)
        return {
            name: momentum
            for name, momentum in momentums.items()
            if name in old
            and _lag(old[name], present[name], momentum ** (batches - before)) > _LAG
        }

    def _momentums(self) -> Mapping[str, float]:
        return {w.name: w.layer.momentum for w in self._statistics.layers()}

    def _reference(self, batches: int) -> tuple[int, dict[str, Statistics]]:
        """Returns the latest statistics that are old enough to compare with."""
        old_enough = [b for b in self._before if b[0] <= batches - _LEAST_BATCHES]
        return (old_enough or self._before[:1])[-1]


def _lag(old: Statistics, new: Statistics, kept: float) -> float:
    """Returns how far moving statistics are behind those of the batches.

    The moving mean after n steps is s' = k s + (1 - k) b, with k = momentum^n and b the
    mean over the batches, the last ones weighted most. So it is behind by b - s' =
    k / (1 - k) (s' - s).

    Args:
        old: The statistics n steps before.
        new: The statistics now.
        kept: k.

    Returns:
        The root mean square over the channels, in standard deviations of the inputs; or
        that of the logarithm of their ratio, if it is larger.
    """
    if not 0 <= kept < 1:
        return 0.0
    behind = kept / (1 - kept)
    of_mean = behind * (new.mean - old.mean)
    variance = new.variance + behind * (new.variance - old.variance)
    tiny = np.finfo("float32").tiny
    floor = 1e-6 * float(np.mean(np.abs(new.variance))) + tiny
    variance = np.maximum(variance, floor)
    ratio = np.log(variance / np.maximum(new.variance, floor)) / 2
    return max(_root_mean_square(of_mean / np.sqrt(variance)), _root_mean_square(ratio))


def _root_mean_square(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _layers(number: int) -> str:
    return f"{number} BatchNormalization layer{'s' if number > 1 else ''}"

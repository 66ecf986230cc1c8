"""The penalties of all layers: how hard they push, and what the pushes measure."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_sparseout.callbacks.control import push_weights
from keras_sparseout.callbacks.control.penalty_push import Kind, PenaltyPush
from keras_sparseout.callbacks.control.step_variables import StepVariables
from keras_sparseout.measure import call_order
from keras_sparseout.measure.hooks import Overrides
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor


class Pushes:
    """Pushes layers by penalties, whose weights follow from what the pushes measure.

    Args:
        model: The model that is trained.
        watched: The layers.
        kind: Which penalty.
        sample_size: How many samples of each batch are measured.
        shares: What the zeros of each layer save.
        members: 1 where a layer is in a group, of shape (groups, layers).
        variables: Where it makes its variables.
    """

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        kind: Kind,
        sample_size: int,
        shares: Sequence[float],
        members: np.ndarray,
        variables: StepVariables,
    ) -> None:
        self._model = model
        self._names = [w.name for w in watched]
        self._all_shares = np.array(shares, "float32").astype("float64")
        self._all_members = self._members = members
        self._variables = variables
        for name in ("norms", "measured"):
            variables.make(name, push_weights.PARTS, len(watched))
        for name in ("weights", "shares"):
            variables.make(name, 1, len(watched))
        variables.assign("shares", self._all_shares[None])
        shared = kind, sample_size, variables["measured"]
        self._pushes = [
            PenaltyPush(model, w, *shared, column) for column, w in enumerate(watched)
        ]

    def leave_out(self, names: Collection[str]) -> None:
        """Pushes the layers of these names no more, and no group counts them."""
        others = [name not in names for name in self._names]
        self._members = self._all_members * np.array(others, "float32")

    def acting(self) -> Overrides:
        """Returns a context in which the layers are pushed."""
        weights = ops.unstack(self._variables.tensor("weights")[0])
        for push in self._pushes:
            push.calls = 0
        return Overrides(
            [
                (push.watched.layer, "call", push.around(weight))
                for push, weight in zip(self._pushes, weights, strict=True)
            ]
        )

    def told(self) -> list[Tensor]:
        """Returns what the program of a step is told of them."""
        names = "norms", "measured", "shares"
        return [self._members, *map(self._variables.tensor, names)]

    def move(self, norms: Tensor, weights: Tensor) -> None:
        """Takes in what the program returned, for the next step."""
        self._variables.move("norms", norms)
        self._variables.move("weights", weights)
        self._variables.move("measured", ops.zeros_like(norms))

    def follow(self, outputs: np.ndarray) -> None:
        """Takes in outputs that were changed between the steps."""
        read = self._variables.read
        told = outputs, read("norms"), read("shares")[0], self._members
        self._variables.assign("weights", push_weights.weights(np, *told)[None])

    def spare(
        self, names: Collection[str], among: Iterable[str], outputs: np.ndarray
    ) -> None:
        """Pushes the layers of these names no more, and all others `among` again.

        Args:
            names: The names.
            among: The names of all layers that are decided on.
            outputs: The output of each group.
        """
        before = self._variables.read("shares")
        shares = before.copy()
        for name in among:
            column = self._names.index(name)
            shares[0, column] = 0.0 if name in names else self._all_shares[column]
        if not np.array_equal(shares, before):
            self._variables.assign("shares", shares)
            self.follow(outputs)

    def numbers(self) -> list[np.ndarray]:
        """Returns all that a resumed run needs."""
        read = self._variables.read
        return [*read("norms").T, read("weights"), read("shares")]

    def resume(self, numbers: Sequence[np.ndarray]) -> None:
        """Goes on from the `numbers` of an earlier run."""
        *norms, weights, shares = numbers
        self._variables.assign("norms", np.stack(norms, axis=1))
        # 0 for layers that are spared.
        self._variables.assign("shares", shares)
        # Not from the norms, for the same digits.
        self._variables.assign("weights", weights)

    def weights(self) -> dict[str, float]:
        """Returns the weights of the penalties by layer."""
        weights = map(float, self._variables.read("weights")[0])
        return dict(zip(self._names, weights, strict=True))

    def unpushed(self) -> list[str]:
        """Returns the names of layers that no gradient of the loss moves."""
        model, measured = self._model, self._variables.read("norms")[1] > 0
        return [
            push.watched.name
            for push, known in zip(self._pushes, measured, strict=True)
            if not known
            # Of a layer that is called again, weights may come before the next call.
            or (push.calls < 2 and not call_order.trainable_before(model, push.watched))
        ]

    def check_pushed(self, sums: Mapping[str, Tensor]) -> None:
        """Raises if a layer is measured that no penalty can push.

        Args:
            sums: Dict by layer, of those that are measured.
        """
        for push in self._pushes:
            name, side = push.watched.name, push.watched.side
            if push.refused and name in sums:
                raise ValueError(
                    f"`layers` must be layers whose {side}s are dense floating-point "
                    f"tensors, for a penalty to push them. Received: layers={name}, "
                    f"whose {side} is {push.refused}. Leave it out."
                )

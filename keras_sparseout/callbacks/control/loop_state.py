"""The state of a feedback loop, which a resumed run goes on from."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_sparseout.callbacks.control.plant_model import PlantModel
from keras_sparseout.layers.adjustable import AdjustableLayer

# Files of version 0.1.0 may end here, after `output_sum`.
_EARLIER_LENGTH = 12


class LoopState(NamedTuple):
    """What a resumed run needs of a loop; saved with the layer, in this order.

    Attributes:
        low: Lower bound of the setting.
        high: Upper bound of the setting.
        output: The setting on the actuator's scale.
        integral: The integral term, on the same scale.
        recent_output: Exponential mean of the last outputs.
        readings: Number of readings so far.
        level: The filtered figure, NaN before the first reading.
        slope: Its rise from one reading to the next.
        setpoint_offset: Gap between training and probe data, added to the target.
        error_in_default_bounds: Size of the last error with a setting that was not
            above the actuator's default bounds; infinite if there was none.
        sparser_blocked: Whether the setting may not move toward sparser.
        output_sum: Sum of the outputs over all readings.
        start: The first output.
        shifts: How often the setpoint has moved.
        band_low: Least of the outputs since the setting has been steady.
        band_high: Largest of them.
        steady_since: Batches that the model was trained on before these.
        square_sum: Sum of the squared outputs over all readings.
        reversed: Whether the plant clearly answers the other way than was assumed.
        plant: What was learned of the plant.
    """

    low: float
    high: float
    output: float
    integral: float
    recent_output: float
    readings: int = 0
    level: float = math.nan
    slope: float = 0.0
    setpoint_offset: float = 0.0
    error_in_default_bounds: float = math.inf
    sparser_blocked: bool = False
    output_sum: float = 0.0
    start: float = 0.0
    shifts: int = 0
    band_low: float = 0.0
    band_high: float = 0.0
    steady_since: int = 0
    square_sum: float = 0.0
    reversed: bool = False
    plant: PlantModel = PlantModel.initial(0.0)

    @classmethod
    def initial(cls, bounds: tuple[float, float], output: float) -> "LoopState":
        """Returns the state before the first reading."""
        state = cls(*bounds, output, integral=output, recent_output=output)
        return state._replace(
            start=output,
            band_low=output,
            band_high=output,
            plant=PlantModel.initial(output),
        )

    @property
    def numbers(self) -> list[float]:
        """The numbers to save."""
        return [*map(float, self[:-1]), *self.plant.numbers()]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "LoopState":
        """Returns the state that was saved as `numbers`; raises if none can be that."""
        numbers = [float(number) for number in numbers]
        fresh, own = cls.initial((0.0, 0.0), 0.0), len(cls._fields) - 1
        if len(numbers) == _EARLIER_LENGTH:
            output = numbers[cls._fields.index("output")]
            readings = numbers[cls._fields.index("readings")]
            later = cls.initial((0.0, 0.0), output)
            # As if the setting had always been this one.
            later = later._replace(start=0.0, square_sum=readings * output**2)
            numbers += later.numbers[_EARLIER_LENGTH:]
        if len(numbers) != len(fresh.numbers):
            raise ValueError(f"there should be {1 + len(fresh.numbers)}")
        known: dict[str, Any] = dict(zip(cls._fields, numbers[:own], strict=False))
        plant = PlantModel.from_numbers(numbers[own:])
        state = fresh._replace(**known, plant=plant)
        # At first these are not finite.
        required = state._replace(error_in_default_bounds=0.0)
        if math.isnan(plant.filtered):
            required = required._replace(plant=plant._replace(filtered=0.0))
        if state.readings == 0:
            required = required._replace(level=0.0)
        no_error = math.isnan(state.error_in_default_bounds)
        if no_error or not all(map(math.isfinite, required.numbers)):
            raise ValueError("not all are finite")
        return state._replace(
            readings=int(state.readings),
            sparser_blocked=bool(state.sparser_blocked),
            shifts=int(state.shifts),
            steady_since=int(state.steady_since),
            reversed=bool(state.reversed),
        )


def saved_in(layer: AdjustableLayer, signature: float) -> LoopState | None:
    """Returns the state that a loop left in a layer; None if there is none.

    Args:
        layer: The layer.
        signature: The number that stands before the state of this loop.

    Raises:
        ValueError: if the layer has numbers that no loop left there.
    """
    saved = layer.controller_state
    if saved is None or not len(saved):
        return None
    before, *numbers = saved
    if before != signature and not math.isnan(before):
        return None
    try:
        if math.isnan(before):
            raise ValueError("the first is NaN")
        return LoopState.from_numbers(numbers)
    except ValueError as error:
        raise ValueError(
            f"Layer {layer.name!r}: `controller_state` must be the numbers that a "
            f"SparsityController left there. Received: {saved.tolist()}, of which "
            f"{error}. Set it to None for the controller to begin anew, or load a "
            "file that is whole."
        ) from None

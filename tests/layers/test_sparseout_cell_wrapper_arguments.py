"""What SparseoutCellWrapper says of arguments that can't be."""

import math
import re

import pytest
from keras import layers
from sequences import UNITS

from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper


@pytest.mark.parametrize("name", ["rate", "recurrent_rate"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "0.5", True, None])
def test_a_rate_out_of_range_raises(name, value):
    message = (
        rf"(?s)`{name}` must be a number between 0 and 1.*Received: {name}={value}"
    )
    message = message.replace("0.5", "'0.5'")
    with pytest.raises(ValueError, match=message):
        SparseoutCellWrapper(layers.LSTMCell(UNITS), **{name: value})
    cell = SparseoutCellWrapper(layers.LSTMCell(UNITS), adjustable=True)
    with pytest.raises(ValueError, match=message):
        setattr(cell, name, value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"recurent_rate": 0.5}, "Did you mean `recurrent_rate`?"),
        ({"noise_shape": (None, 1)}, "`noise_shape` is no argument"),
        ({"q": -1}, "`q` must be a finite number >= 0"),
        ({"seed": 0.5}, "`seed` must be an integer"),
        ({"epsilon": 0}, "`epsilon` must be"),
        ({"stop_gradient": 1}, "`stop_gradient` must be True or False"),
        ({"adjustable": None}, "`adjustable` must be True or False"),
        ({"cell": layers.LSTM}, "Make one first: SparseoutCellWrapper(LSTM(...))"),
        ({"cell": layers.LSTM(3)}, "keras.layers.RNN(SparseoutCellWrapper(cell))"),
    ],
    ids=str,
)
def test_bad_arguments_raise(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SparseoutCellWrapper(**{"cell": layers.LSTMCell(UNITS), **kwargs})


@pytest.mark.parametrize("name", ["rate", "recurrent_rate", "q"])
def test_assigning_a_constant_raises(name):
    cell = SparseoutCellWrapper(layers.LSTMCell(UNITS), 0.5)
    with pytest.raises(AttributeError, match=rf"(?s)`{name}`.*adjustable=True"):
        setattr(cell, name, 0.75)

"""Checks of arguments: one rule gives one message everywhere."""

from keras_sparseout.utils.validation.choices import (
    check_axis,
    check_bool,
    check_keywords,
    check_where,
)
from keras_sparseout.utils.validation.messages import did_you_mean, some_of, value_error
from keras_sparseout.utils.validation.numeric import (
    check_c,
    check_count,
    check_epsilon,
    check_positive,
    check_powers,
    check_q,
    check_rate,
    check_recurrent_rate,
    check_seed,
    check_share,
    check_threshold,
    check_weight,
    is_int,
    is_real,
)
from keras_sparseout.utils.validation.tensors import (
    check_dense,
    check_floating,
    check_noise_shape,
    check_noise_shape_fits,
    noise_shape_fits,
    shape_of,
)

__all__ = [
    "check_axis",
    "check_bool",
    "check_c",
    "check_count",
    "check_dense",
    "check_epsilon",
    "check_floating",
    "check_keywords",
    "check_noise_shape",
    "check_noise_shape_fits",
    "check_positive",
    "check_powers",
    "check_q",
    "check_rate",
    "check_recurrent_rate",
    "check_seed",
    "check_share",
    "check_threshold",
    "check_weight",
    "check_where",
    "did_you_mean",
    "is_int",
    "is_real",
    "noise_shape_fits",
    "shape_of",
    "some_of",
    "value_error",
]

"""The adjustable layers among those that a callback is to move."""

from keras_sparseout.layers.adjustable import has_knob
from keras_sparseout.utils.layer_text import call_of


def adjustable_ones(watched, name, *, named):
    """Returns those of `watched` whose layers have the knob `name` as a variable.

    Args:
        watched: Layers, as `WatchedLayer`s.
        name: Name of the knob.
        named: Whether the user named these layers, so that a constant is an error;
            otherwise it is one only if none is adjustable.
    """
    having = [w for w in watched if has_knob(w.layer, name)]
    adjustable = [w for w in having if w.layer.adjustable]
    constant = [w for w in having if not w.layer.adjustable]
    if constant and (named or not adjustable):
        raise ValueError(
            f"`layers` must be adjustable for their `{name}` to change. Received: "
            f"{', '.join(w.name for w in constant)} with adjustable=False. Make it "
            f"{call_of(constant[0].layer)[:-1]}, adjustable=True)."
        )
    return adjustable

"""What is said of a control inside the training step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.utils import validation


class Shortfall(NamedTuple):
    """Why layers did not come to their target, if the run was too short.

    Attributes:
        target: The target.
        batches: How many batches the run had.
        few: Whether these are few for any target.
        ramp: After how many batches the setpoint would have been there.
        frozen: Whether `freeze_after` held the setting before.
        late: Whether the last step that a floor of accuracy allows came too late.
    """

    target: float
    batches: int
    few: bool
    ramp: int
    frozen: bool
    late: bool = False


def say_found(
    messages: ControllerMessages,
    subject: str,
    figure: float,
    target: float,
    values: Mapping[str, float],
) -> None:
    """Prints what a run came to, with the last settings."""
    settings = ", ".join(f"{key} = {value:.3g}" for key, value in values.items())
    messages.print(f"{subject} is {figure:.3f}, asked for {target:g}, at {settings}")


def say_no_figure(messages: ControllerMessages, subject: str) -> None:
    """Prints that the metric was never defined, so that nothing was moved."""
    messages.print(
        f"{subject} was not a number in any batch, so nothing was moved. Hoyer's "
        "sparsity needs two units or more, and outputs that are not all 0"
    )


def say_too_sparse(
    messages: ControllerMessages,
    subject: str,
    figures: tuple[float, float],
    setting: tuple[str, float],
    rose: bool,
) -> None:
    """Prints that the layers are sparser than asked, with the setting at its least.

    Args:
        messages: What the controller says.
        subject: What is controlled.
        figures: The figure, and the target.
        setting: What is moved, and its lower bound.
        rose: Whether the figure was below the target as the run began.
    """
    figure, target = figures
    actuator, least = setting
    remedy = "Ask for more, or leave these layers out"
    if rose:
        remedy = "It rose in the run. Give more epochs, a lower `gain`, or ask for more"
    why = f"at {least:g}, which can't make it denser"
    if least > 0:
        why = f"at its lower bound {least:g}"
        remedy = "Give `bounds` that begin at 0, or ask for more"
    messages.print(
        f"{subject} is {figure:.3f}, above the target {target:g}, with the {actuator} "
        f"{why}. {remedy}"
    )


def say_too_short(
    messages: ControllerMessages, metric: str, layers: Sequence[str], why: Shortfall
) -> None:
    """Prints that the run was too short for these layers."""
    subject = f"{metric} of {validation.some_of(layers)}"
    if why.frozen:
        messages.frozen_early(subject, why.target)
        return
    if why.late:
        text = (
            f"the run of {why.batches} batches ended before {subject} came to "
            f"{why.target:g}: with a floor of accuracy it goes at most a quarter of "
            "the way an epoch. Give more epochs"
        )
    elif why.ramp > why.batches:
        text = (
            f"the run ended after {why.batches} batches, before the ramp of {subject} "
            f"to {why.target:g} did, after {why.ramp}. Give a smaller "
            "`reach_by`; if the length of the run is unknown, give it: steps_per_epoch="
            " of fit, or epochs= and steps= of keras.callbacks.CallbackList"
        )
    elif why.few:
        text = (
            f"the run has {why.batches} batches, which were too few to bring {subject} "
            f"to {why.target:g}. Give more epochs, or smaller batches"
        )
    else:
        text = (
            f"the run ended before {subject} came to {why.target:g}. Give more epochs, "
            "a higher learning rate, or a smaller `reach_by`"
        )
    messages.print(text)


def warn_of_bound(
    messages: ControllerMessages,
    subject: str,
    figures: tuple[float, float],
    bound: tuple[str, float],
) -> None:
    """Warns that layers stay short of their target with the setting at its bound.

    Args:
        messages: What the controller says.
        subject: What is controlled.
        figures: The figure, and the target.
        bound: What is moved, and the bound.
    """
    figure, target = figures
    actuator, high = bound
    also = ", raise the learning rate" if actuator == "penalty" else ""
    messages.warn(
        f"{subject} can't be brought to {target:g} with {actuator} at its bound "
        f"{high:g}: it stays at {figure:.3f}. Widen `bounds`{also}, or ask for less",
        about=("reach", subject),
    )


def warn_of_wrong_way(
    messages: ControllerMessages,
    subject: str,
    pushed: tuple[str, float],
    level: float,
    start: float,
) -> None:
    """Warns that a penalty makes the activations less sparse by the metric.

    Whether the other kind works on this model is not known without a try.

    Args:
        messages: What the controller says.
        subject: What is controlled.
        pushed: The kind of penalty, and its lower bound.
        level: The figure.
        start: What it was as the run began.
    """
    kind, least = pushed
    stopped = "it no longer pushes"
    if least > 0:
        stopped = f"it stays at its lower bound {least:g}"
    other = "l1" if kind == "hoyer_square" else "hoyer_square"
    messages.warn(
        f"the penalty {kind!r} moved {subject} the wrong way here, from {start:.3f} to "
        f'{level:.3f}, so {stopped}. kind="{other}" was not tried here: it '
        "may work, or another `metric`",
        about=("wrong way", subject),
    )


def warn_of_no_gradient(messages: ControllerMessages, layers: str) -> None:
    """Warns that no gradient comes through layers, so that nothing moves them."""
    messages.warn(
        f"no trainable weights come before {layers}, or no gradient of the loss comes "
        "to it in the samples that are measured, so a penalty can't move it. Leave it "
        "out of `layers`, make layers before it trainable, or, where few samples have "
        "a loss, raise `sample_size`",
        about=("no gradient", layers),
    )

"""The weights of penalties as algebra; in a control: test_step_control.py."""

import numpy as np

from keras_sparseout.callbacks.control import push_weights


def test_the_norms_move_by_the_calls_of_each_layer_alone():
    rng = np.random.default_rng(0)
    norms = rng.uniform(size=(push_weights.PARTS, 4)).astype("float32")
    measured = rng.uniform(size=norms.shape).astype("float32")
    # Once, twice, not at all, and once with a loss that overflowed.
    measured[0] = 1, 2, 0, 1
    measured[1:, 2] = 0
    measured[1, 3] = np.inf
    moved = np.asarray(push_weights.averaged(norms, measured))
    once = 0.98 * norms[:, 0] + 0.02 * measured[:, 0]
    np.testing.assert_allclose(moved[:, 0], once, rtol=1e-5)
    twice = 0.98**2 * norms[:, 1] + (1 - 0.98**2) * measured[:, 1] / 2
    np.testing.assert_allclose(moved[:, 1], twice, rtol=1e-5)
    np.testing.assert_array_equal(moved[:, 2:], norms[:, 2:])


def test_a_layer_that_is_spared_leaves_the_push_of_its_group_to_the_others():
    norms = np.array([[1.0, 1.0], [0.2, 0.3], [0.1, 0.4], [10.0, 20.0]])
    members, outputs = np.ones((1, 2)), np.array([4.0])
    told = outputs, norms, np.array([0.0, 1.0]), members
    first, second = push_weights.weights(np, *told)
    assert first == 0
    asked = push_weights.to_push(outputs)[0] * (0.2 + 0.3)
    np.testing.assert_allclose(second * 0.4, asked)

"""Walks through a graph: what is behind a tensor, and what depends on one."""

import argparse

import pytest
import tensorflow as tf

from keras_sparseout.backend import graph


@pytest.fixture(scope="module")
def traced():
    """Tensors of a graph, by what they are."""
    tensors = argparse.Namespace()
    tensors.variable = tf.Variable(2.0)

    @tf.function(autograph=False)
    def function(x):
        tensors.x = x
        tensors.relu = tf.nn.relu(x)
        tensors.shifted = tensors.relu + 1.0
        tensors.largest = tf.argmax(tensors.shifted, axis=-1)
        tensors.zeros = tf.zeros_like(tensors.shifted)
        looped = tf.map_fn(lambda row: tf.matmul(row, row), tensors.shifted)
        tensors.end = looped + tensors.zeros
        tensors.alone = tf.constant(1.0) + 2.0
        tensors.weight = tensors.variable * 2.0
        return tensors.end

    function.get_concrete_function(tf.TensorSpec((None, 3, 3)))
    return tensors


def test_activations_are_followed_up_to_barriers(traced):
    behind = graph.activations_behind(traced.shifted)
    assert {traced.x.name, traced.relu.name, traced.shifted.name} <= behind
    behind = graph.activations_behind(traced.shifted, {traced.relu.name})
    assert traced.relu.name in behind
    assert traced.x.name not in behind


@pytest.mark.parametrize("name", ["largest", "zeros"])
def test_activations_end_where_only_places_or_shapes_go_on(traced, name):
    assert traced.shifted.name not in graph.activations_behind(getattr(traced, name))


def test_operations_between_two_tensors(traced):
    kinds = {o.type for o in graph.operations_between(traced.x, traced.shifted)}
    assert {"Relu", "AddV2"} <= kinds
    assert "Placeholder" not in kinds


def test_operations_behind_a_tensor_are_those_whose_values_it_needs(traced):
    names = [o.name for o in graph.operations_behind([traced.end])]
    assert len(names) == len(set(names))
    assert {traced.end.op.name, traced.relu.op.name} <= set(names)
    names = [o.name for o in graph.operations_behind([traced.zeros])]
    assert traced.relu.op.name not in names


def test_dependents_follow_shapes_too(traced):
    names = graph.dependents(traced.x.graph, [traced.x])
    assert {traced.zeros.op.name, traced.largest.op.name, traced.end.op.name} <= names
    assert traced.alone.op.name not in names


def test_variables_are_told_from_constants(traced):
    [handle] = graph.variables(traced.x.graph)
    names = graph.dependents(traced.x.graph, [handle])
    assert traced.weight.op.name in names
    assert names.isdisjoint({traced.alone.op.name, traced.end.op.name})


def test_types_of_operations_inside_of_loops(traced):
    [loop] = [
        o for o in graph.operations_behind([traced.end]) if o.type.endswith("While")
    ]
    assert {loop.type, "MatMul"} <= set(graph.types_in(loop))
    assert list(graph.types_in(traced.relu.op)) == ["Relu"]


def test_only_tensors_of_a_graph_are_found(traced):
    structure = {"a": [traced.x, None], "b": (1.0, tf.zeros(2))}
    [found] = graph.tensors_in(structure)
    assert found is traced.x

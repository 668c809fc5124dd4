"""One layer at a time, beside the formulas written out."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.layers.dense import Dense

SLOPE = math.sqrt(2 / math.pi)


def gelu(z):
    return 0.5 * z * (1 + np.tanh(SLOPE * (z + 0.044715 * z**3)))


def gelu_slope(z):
    t = np.tanh(SLOPE * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * SLOPE * (1 + 3 * 0.044715 * z**2)


PLAIN = {
    None: (lambda z: z, np.ones_like),
    "relu": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "gelu": (gelu, gelu_slope),
}


def dense(n_in, n_out, activation=None, **options):
    return Dense(n_in, n_out, activation, dtype="float64", **options)


@pytest.mark.parametrize("k", [0, 1, 2, 9])
@pytest.mark.parametrize("activation", PLAIN)
def test_forward_and_backward(activation, k):
    rng = np.random.default_rng(k)
    x, delta = rng.standard_normal((k, 4)), rng.standard_normal((k, 3))
    w, b = rng.standard_normal((4, 3)), rng.standard_normal(3)
    forward, slope = PLAIN[activation]
    z = x @ w + b
    before = delta * slope(z)
    layer = dense(4, 3, activation)
    grads = [np.full((4, 3), np.nan), np.full(3, np.nan)]

    output, saved = layer.forward(x, [w, b])
    assert_allclose(output, forward(z), rtol=1e-12, atol=1e-15)
    input_delta = layer.backward(delta.copy(), saved, [w, b], grads)

    assert_allclose(grads[0], x.T @ before, rtol=1e-12, atol=1e-13)
    assert_allclose(grads[1], before.sum(axis=0), rtol=1e-12, atol=1e-13)
    assert_allclose(input_delta, before @ w.T, rtol=1e-12, atol=1e-13)


def test_without_bias_and_input_gradient():
    rng = np.random.default_rng(0)
    x, w, delta = (rng.standard_normal(s) for s in ((5, 4), (4, 3), (5, 3)))
    layer = dense(4, 3, bias=False, input_gradient=False)
    grads = [np.empty((4, 3))]
    output, saved = layer.forward(x, [w])
    assert_allclose(output, x @ w)
    assert layer.backward(delta, saved, [w], grads) is None
    assert_allclose(grads[0], x.T @ delta)
    assert [t.name for t in layer.tensors] == ["weight"]


def test_workspaces_are_reused_and_grow():
    layer = dense(2, 2)
    params = [np.eye(2), np.zeros(2)]

    def forward(x):
        output, saved = layer.forward(x, params)
        layer.drop(saved)
        return output

    large, small = forward(np.ones((8, 2))), forward(np.ones((3, 2)))
    assert np.shares_memory(large, small)
    assert np.shares_memory(large, forward(np.ones((9, 2))))
    larger = forward(np.full((10, 2), 2.0))
    assert not np.shares_memory(large, larger)
    assert (larger == 2).all()


@pytest.mark.parametrize("activation", PLAIN)
def test_several_passes_are_in_flight(activation):
    """Also of different sizes, with other parameters, and backward in any order."""
    rng = np.random.default_rng(3)
    passes = [
        (rng.standard_normal((k, 4)), rng.standard_normal((k, 3)), params)
        for k, params in zip(
            (5, 2, 7),
            [[rng.standard_normal((4, 3)), rng.standard_normal(3)] for _ in range(3)],
        )
    ]

    def apart(x, delta, params):
        layer = dense(4, 3, activation)
        output, saved = layer.forward(x, params)
        grads = [np.empty((4, 3)), np.empty(3)]
        return output, layer.backward(delta.copy(), saved, params, grads), *grads

    want = [apart(*one) for one in passes]
    layer = dense(4, 3, activation)
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        in_flight = [layer.forward(x, params) for x, _, params in passes]
        for i in order:
            (output, saved), (_, delta, params) = in_flight[i], passes[i]
            assert np.array_equal(output, want[i][0])
            grads = [np.empty((4, 3)), np.empty(3)]
            found = layer.backward(delta.copy(), saved, params, grads)
            for a, b in zip((found, *grads), want[i][1:]):
                assert np.array_equal(a, b)
            layer.drop(saved)
        assert len(layer._spare) == 3


def test_keeps_neither_parameters_nor_gradients():
    layer = dense(2, 2, "relu")
    params, grads = ([np.ones((2, 2)), np.ones(2)] for _ in "12")
    output, saved = layer.forward(np.ones((1, 2)), params)
    layer.backward(output, saved, params, grads)
    layer.drop(saved)
    assert layer._spare == [saved] and saved.input is None
    held = [*vars(layer).values(), *(getattr(saved, k, None) for k in saved.__slots__)]
    kept = [value for value in held if isinstance(value, np.ndarray)]
    assert kept
    for array in kept:
        assert not any(np.shares_memory(array, other) for other in params + grads)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(n_in=0, n_out=1), "n_in: expected an integer >= 1, got 0"),
        (dict(n_in=1, n_out=True), "n_out: expected an integer >= 1, got True"),
        (dict(n_in=1, n_out=1, activation="elu"), "activation: .* got 'elu'"),
        (
            dict(n_in=1, n_out=1, activation="relu", bias=False),
            "bias: expected True with activation 'relu'",
        ),
    ],
)
def test_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        dense(**arguments)

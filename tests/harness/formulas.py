"""The formulas of hot loops, line by line in float64: what every backend is held to."""

import math

import numpy as np


def sgd(p, grads, *, lr, grad_scale, l2, momentum, nesterov):
    """Return parameters and velocity after an update by each of ``grads``."""
    v = np.zeros_like(p)
    for grad in grads:
        g = grad_scale * grad + l2 * p
        v = momentum * v + g
        p = p - lr * (g + momentum * v if nesterov else v)
    return p, v


def adam(p, grads, *, lr, beta1, beta2, eps, grad_scale, l2, decay):
    """Return parameters and both moments after an update by each of ``grads``."""
    m = v = np.zeros_like(p)
    for t, grad in enumerate(grads, start=1):
        g = grad_scale * grad + l2 * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p = p - lr * decay * p - lr * m_hat / (np.sqrt(v_hat) + eps)
    return p, m, v


def adagrad(p, grads, *, lr, eps, grad_scale, l2):
    """Return parameters and sums of squares after an update by each of ``grads``."""
    squares = np.zeros_like(p)
    for grad in grads:
        g = grad_scale * grad + l2 * p
        squares = squares + g**2
        p = p - lr * g / (np.sqrt(squares) + eps)
    return p, squares


def softmax_cross_entropy(z, y, w):
    """Return the weighted loss sum and its gradient."""
    z = z - z.max(axis=1, keepdims=True, initial=-np.inf)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    rows = np.arange(len(z))
    onehot = np.zeros_like(z)
    onehot[rows, y] = 1
    losses = np.log(np.exp(z).sum(axis=1)) - z[rows, y]
    return np.sum(w * losses), w[:, None] * (p - onehot)


def logistic(z, y, w):
    """Return the weighted loss sum and its gradient."""
    losses = np.logaddexp(0, z) - y * z
    return np.sum(w * losses), w * (0.5 * (1 + np.tanh(z / 2)) - y)


def squared_error(h, y, w):
    """Return the weighted loss sum and its gradient."""
    error = h - y
    return 0.5 * np.sum(w[:, None] * error**2), w[:, None] * error


def gelu(x):
    angle = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(angle))


def gelu_slope(x):
    angle = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    t = np.tanh(angle)
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner

"""The critical batch size from norms of gradients: planted, in closed form, by rank."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from spread import dataset
from strategies import PLAIN

import pympi_train as pt
from pympi_train.backends.numpy import ops
from pympi_train.errors import ConfigError
from pympi_train.flat.state import State
from pympi_train.train.gradient_noise import STEPS, GradientNoise, noise_scale

MPI = pytest.importorskip("mpi4py.MPI")
NUMBERS = ("critical_batch_size", "gradient_square", "trace")
WEIGHTS = [5, 17, 9]  # of three shares


def plain_estimate(steps, mean_weights=None):
    """The estimates of steps, each a list by share of lists of (rows, gradient).

    ``mean_weights`` are those of the rows of each step. The average is over all steps,
    as the exponential one is apart from its weights.
    """
    within, across, square, inverse = [], [], [], []
    n_within = n_across = 0.0
    total = 0.0
    for age, shares in enumerate(reversed(steps)):
        shares = [[b for b in share if b[0] > 0] for share in shares]
        shares = [share for share in shares if share]
        factor = (1 - 1 / STEPS) ** age
        batches = [batch for share in shares for batch in share]
        weight = sum(w for w, _ in batches)
        mean = sum(g for _, g in batches) / weight
        means = []
        for share in shares:
            own = sum(w for w, _ in share)
            means.append((own, sum(g for _, g in share) / own))
            for w, g in share:
                within.append(factor * w * np.square(g / w - means[-1][1]).sum())
        for own, g in means:
            across.append(factor * own * np.square(g - mean).sum())
        n_within += factor * (len(batches) - len(shares))
        n_across += factor * (len(shares) - 1)
        square.append(factor * np.square(mean).sum())
        inverse.append(factor / weight)
        total += factor
    by_batches = n_within > (total / 2 if n_across > 1e-9 else 0)
    sums, n = (within, n_within) if by_batches else (across, n_across)
    trace = sum(sums) / n
    mean_square = (sum(square) - trace * sum(inverse)) / total
    ages = (1 - 1 / STEPS) ** np.arange(len(steps))[::-1]
    unit = 1 if mean_weights is None else np.average(mean_weights, weights=ages) ** -2
    return {
        "critical_batch_size": trace / mean_square if mean_square > 0 else None,
        "gradient_square": unit * mean_square,
        "trace": unit * trace,
        "between": "micro-batches" if by_batches else "ranks",
    }


def add_step(noise, shares):
    """Show a step to a GradientNoise, as a single rank with several shares does."""
    noise.begin()
    whole = sum(g for share in shares for _, g in share)
    for share in shares:
        for weight, gradient in share:
            noise.begin_batch(weight)
            if len(share) > 1:
                noise.see_batch(ops, gradient)
        noise.see_share(ops, sum(g for _, g in share))
        noise.end_share()
    weight = sum(w for share in shares for w, _ in share)
    noise.end_step(ops, [whole], weight, is_counted=True)
    noise.commit()


def drawn(rng, mean, spread, parts):
    """Gradient sums of ``parts`` rows drawn with this mean and standard deviations."""
    return [
        (n, n * mean + math.sqrt(n) * spread * rng.standard_normal(mean.size))
        for n in parts
    ]


@pytest.mark.parametrize(
    "shares, between",
    [
        ([[n] for n in WEIGHTS], "ranks"),
        ([WEIGHTS], "micro-batches"),
        ([[4, 4, 1], [4, 4, 4, 4, 4], []], "micro-batches"),
    ],
    ids=["ranks", "one-rank", "both"],
)
def test_planted_gradients_give_their_noise_scale(shares, between):
    rng = np.random.default_rng(7)
    mean, spread = rng.standard_normal(40), rng.uniform(0.5, 2, 40)
    noise, steps = GradientNoise(), []
    for _ in range(3 * STEPS):
        steps.append([drawn(rng, mean, spread, parts) for parts in shares])
        add_step(noise, [share for share in steps[-1] if share])
    found = noise.estimate(MPI.COMM_SELF)
    want = plain_estimate(steps)
    assert found.pop("between") == want.pop("between") == between
    assert_allclose([found[k] for k in NUMBERS], [want[k] for k in NUMBERS], 1e-9)
    trace, square = float(spread @ spread), float(mean @ mean)
    assert_allclose(found["trace"], trace, rtol=0.05)
    assert_allclose(found["gradient_square"], square, rtol=0.05)
    assert_allclose(found["critical_batch_size"], trace / square, rtol=0.07)


def test_shares_that_differ_do_not_count_where_micro_batches_do():
    """As those of a sorted file, whose order still mixes each batch."""
    rng = np.random.default_rng(8)
    means, spread = 3 * rng.standard_normal((2, 40)), np.ones(40)
    alone, both = GradientNoise(), GradientNoise()
    for _ in range(2 * STEPS):
        shares = [drawn(rng, mean, spread, [8, 8]) for mean in means]
        add_step(both, shares)
        whole = [[(16, sum(g for _, g in share))] for share in shares]
        add_step(alone, whole)
    assert_allclose(both.estimate(MPI.COMM_SELF)["trace"], 40, rtol=0.05)
    assert alone.estimate(MPI.COMM_SELF)["trace"] > 1000


def test_short_last_batches_of_epochs_do_not_matter():
    rng, noise = np.random.default_rng(2), GradientNoise()
    for turn in range(2 * STEPS):
        parts = [3] if turn % 4 == 3 else [4, 4]
        add_step(noise, [drawn(rng, np.ones(40), np.ones(40), parts)])
    found = noise.estimate(MPI.COMM_SELF)
    assert found["between"] == "micro-batches"
    assert_allclose(found["trace"], 40, rtol=0.06)


def test_a_step_that_was_refused_or_failed_does_not_count():
    rng, noise, other = np.random.default_rng(9), GradientNoise(), GradientNoise()
    mean, spread = np.ones(5), np.ones(5)
    for turn in range(6):
        step = [drawn(rng, mean, spread, [3]), drawn(rng, mean, spread, [4])]
        if turn % 2:
            add_step(other, step)
            add_step(noise, step)
            continue
        noise.begin()
        noise.begin_batch(3)
        noise.see_share(ops, step[0][0][1])
        if turn:  # complete, and then refused; else it failed in backward
            noise.end_step(ops, [np.full(5, np.inf)], 3, is_counted=True)
            noise.drop()
    assert noise.totals(MPI.COMM_SELF) == other.totals(MPI.COMM_SELF)


def test_one_piece_a_step_tells_nothing_and_a_gradient_of_noise_no_size():
    noise = GradientNoise()
    assert set(noise.estimate(MPI.COMM_SELF).values()) == {None}
    add_step(noise, [[(4, np.ones(3))]])
    assert set(noise.estimate(MPI.COMM_SELF).values()) == {None}
    found = noise_scale([2.0, 2, 2.0, 2, 0.0, 0.0, 0.5, 1, 1])
    assert found["critical_batch_size"] is None and found["trace"] == 2


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_loss_scale_has_no_effect(scale):
    rng, found = np.random.default_rng(3), []
    steps = [[drawn(rng, np.ones(5), np.ones(5), [3, 4])] for _ in range(5)]
    for factor in (1.0, scale):
        noise = GradientNoise()
        for (share,) in steps:
            noise.begin()
            for weight, gradient in share:
                noise.begin_batch(weight)
                noise.see_batch(ops, factor * gradient)
            whole = factor * sum(g for _, g in share)
            noise.see_share(ops, whole)
            noise.end_step(ops, [whole], 7, scale=factor, is_counted=True)
            noise.commit()
        found.append(noise.totals(MPI.COMM_SELF))
    assert_allclose(*found, rtol=1e-12)


MODELS = {
    "mlp": lambda: pt.MLP(6, [40, 40], 3, dtype="float64"),
    "softmax": lambda: pt.Softmax(6, 3, dtype="float64"),
}


def gradient_of(model, params, batch):
    """The gradient sum of a batch, as a new flat block."""
    block = np.zeros(model.layout.size)
    model.loss(model.layout.views(params), batch)
    model.gradient(model.layout.views(params), model.layout.views(block))
    return block


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("most", [100, 4], ids=["ranks", "micro"])
@pytest.mark.parametrize(
    "how", ["allreduce", "overlap", "hierarchical", "sharded-1", "one"]
)
def test_steps_of_uneven_ranks_equal_the_serial_formula(comm, how, most):
    """Also for a rank without rows, with weights, and for one that is alone."""
    alone = how == "one"
    ranks = MPI.COMM_SELF if alone else comm
    parallel = pt.Parallel(**({} if alone else PLAIN[how]))
    rng = np.random.default_rng(5)
    model, by_hand, steps, mean_weights = MODELS["mlp"](), MODELS["mlp"](), [], []
    how = {"comm": ranks, "parallel": parallel, "micro_batch_size": most}
    made_of = model, pt.Adam(lr=1e-2)
    with pt.Trainer(*made_of, backend="numpy", gradient_noise=True, **how) as trainer:
        for _ in range(4):
            shares = []
            for rank in range(ranks.size):
                n = (13, 0, 6)[rank % 3]
                x, y = rng.standard_normal((n, 6)), rng.integers(0, 3, n)
                weights = rng.uniform(0.5, 2, n)
                shares.append(pt.Batch(x, y, weights))
            params, own = trainer.params.copy(), []
            for share in shares:
                pieces = range(0, max(1, len(share.x)), most)
                batches = [
                    pt.Batch(*(a[i : i + most] for a in share[:3])) for i in pieces
                ]
                sums = [gradient_of(by_hand, params, batch) for batch in batches]
                own.append([(len(b.x), g) for b, g in zip(batches, sums)])
            steps.append(own)
            whole = np.concatenate([share.weights for share in shares])
            mean_weights.append(whole.mean())
            trainer.step(shares[ranks.rank])
        found = trainer.noise.estimate(ranks)
        again = GradientNoise()
        again.take(trainer.noise.totals(ranks), ranks.rank)
        assert again.estimate(ranks) == found
    if ranks.size < 3 and most == 100:  # one rank has rows, and those in one piece
        assert found["trace"] is None
        return
    want = plain_estimate(steps, mean_weights)
    assert found["between"] == want["between"]
    for name in NUMBERS:
        if want[name] is None:
            assert found[name] is None
        else:
            assert_allclose(found[name], want[name], rtol=1e-9, err_msg=name)


@pytest.mark.mpi(min_size=2)
def test_linear_regression_has_the_noise_scale_of_theory(comm):
    r"""For x of a standard normal distribution and y = w x + e, the gradient of a row
    at v has mean d = v - w, and a covariance of trace (n + 1) |d|^2 + n var(e)."""
    n, width, deviation = 4000, 5, 0.7
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((n, width)), np.array([1.0, -2, 0.5, 0, 1])
    y = (x @ w + deviation * rng.standard_normal(n))[:, None]
    data = dataset(comm, "even", x, y)
    model = pt.Linear(width, intercept=False, dtype="float64")
    how = {"batch_size": 40, "backend": "numpy", "gradient_noise": True, "comm": comm}
    with pt.Trainer(model, pt.SGD(lr=1e-12), **how) as trainer:
        (record,) = trainer.fit(data, epochs=1)
        square = float(np.square(trainer.params[:width] - w).sum())
    trace = (width + 1) * square + width * deviation**2
    found = record["gradient_noise"]
    assert_allclose(found["gradient_square"], square, rtol=0.15)
    assert_allclose(found["trace"], trace, rtol=0.15)
    assert_allclose(found["critical_batch_size"], trace / square, rtol=0.25)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("unit", [1, 10])
def test_weights_of_rows_in_small_shares_hide_no_noise(comm, unit):
    """A share of two or three rows; the unit of weights has no effect."""
    n, width = 6000, 12
    rng = np.random.default_rng(11)
    x, w = rng.standard_normal((n, width)), rng.standard_normal(width)
    y = (x @ w + rng.standard_normal(n))[:, None]
    weights = rng.choice([0.0, 0.5, 2.0], n)
    data = dataset(comm, "even", x, y, unit * weights)
    model = pt.Linear(width, intercept=False, dtype="float64")
    how = {"batch_size": 8, "backend": "numpy", "gradient_noise": True, "comm": comm}
    with pt.Trainer(model, pt.SGD(lr=1e-12), **how) as trainer:
        (record,) = trainer.fit(data, epochs=1)
    rows = (weights / weights.mean())[:, None] * -y * x  # their gradients at 0
    found = record["gradient_noise"]
    assert_allclose(found["trace"], rows.var(axis=0).sum(), rtol=0.2)
    square = np.square(rows.mean(axis=0)).sum()
    assert_allclose(found["gradient_square"], square, rtol=0.5)


@pytest.mark.mpi(min_size=2)
def test_exact_reduction_gives_the_same_on_any_ranks_and_resumed(comm):
    rng, found = np.random.default_rng(6), []
    x = rng.standard_normal((90, 6))
    y = x[:, :3].argmax(1)

    def train(ranks, epochs, state=None, **more):
        data = pt.Dataset.split(x, y, comm=ranks)
        how = {"batch_size": 20, "backend": "numpy", "comm": ranks, **more}
        made_of = MODELS["softmax"](), pt.Adam(lr=1e-2)
        with pt.Trainer(*made_of, gradient_noise=True, **how) as trainer:
            if state is not None:
                trainer.load_state(state)
            records = trainer.fit(data, epochs=epochs)
            state = State.merged(ranks.allgather(trainer.state()))
        return records[-1]["gradient_noise"], state

    exact = {"parallel": pt.Parallel(reduction="exact", virtual_shards=4)}
    for ranks in (comm, MPI.COMM_SELF):
        found.append(train(ranks, 3, **exact)[0])
    assert [f.pop("between") for f in found] == ["ranks", "ranks"]
    assert_allclose(*([f[k] for k in NUMBERS] for f in found), rtol=1e-9)
    whole, _ = train(comm, 3)
    _, state = train(comm, 2)
    assert train(comm, 1, state)[0] == whole


@pytest.mark.parametrize(
    "parallel, optimizer, reason",
    [
        (pt.Parallel(strategy="local"), pt.Adam(), "at one point"),
        (pt.Parallel(strategy="sharded", stage=2), pt.Adam(), "stage 1"),
        (pt.Parallel(compression="int8"), pt.Adam(), "no compression"),
        (pt.Parallel(), pt.LBFGS(), "lbfgs takes all rows"),
    ],
)
def test_it_is_refused_where_it_cannot_be_had(parallel, optimizer, reason):
    how = {"parallel": parallel, "comm": MPI.COMM_SELF, "gradient_noise": True}
    with pytest.raises(ConfigError, match=f"gradient_noise .*{reason}"):
        pt.Trainer(pt.Softmax(3, 2), optimizer, **how)

"""Job files: what they stand for, and what is refused before anything starts."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.errors import ConfigError
from pympi_train.pool.jobfile.order import order_jobs
from pympi_train.pool.jobfile.plan import read_plan
from pympi_train.pool.jobfile.tables import JobSection

ONE = '[[job]]\nname = "a"\nconfig = "c.toml"\n'
EXACT = "set = { parallel.reduction = 'exact', parallel.virtual_shards = 2 }"


def job(name, *lines, config="c.toml"):
    begin = f'[[job]]\nname = "{name}"\nconfig = "{config}"'
    return "\n".join([begin, *lines, ""])


def test_defaults(plan_of, folder):
    plan = plan_of(ONE)
    assert plan.directory == str(folder / "runs" / "jobs")
    (one,) = plan.jobs
    assert one.config.output.directory == os.path.join(plan.directory, "jobs", "a")
    assert one.config.data.train == str(folder / "x.npz")
    assert one.config.train.epochs == 3
    assert (one.min_ranks, one.max_ranks, one.priority, one.retries) == (1, 4, 0, 0)
    assert (one.gpus, one.memory_gb, one.after, one.varied) == (0, None, (), {})


def test_sweep_with_overrides(plan_of):
    text = job(
        "a",
        'set = ["train.batch_size=8", "model.l2=0.5"]',
        'sweep = { optimizer.learning_rate = [1, 0.1], "model.l2" = [0, 1] }',
        "priority = 2",
        "memory_gb = 3",
    )
    jobs = plan_of(text).jobs
    assert [j.name for j in jobs] == ["a-1", "a-2", "a-3", "a-4"]
    assert [j.config.optimizer.learning_rate for j in jobs] == [1, 1, 0.1, 0.1]
    assert [j.config.model.l2 for j in jobs] == [0, 1, 0, 1]
    assert {j.config.train.batch_size for j in jobs} == {8}
    assert {(j.priority, j.memory_gb) for j in jobs} == {(2, 3.0)}
    assert len({j.digest for j in jobs}) == 4
    assert jobs[1].varied == {"optimizer.learning_rate": 1, "model.l2": 1}


def test_digest_is_of_what_is_written(plan_of):
    first = plan_of(job("a", "set = { train.epochs = 3 }")).jobs[0].digest
    assert plan_of(ONE).jobs[0].digest == first
    assert plan_of(job("b", "priority = 3")).jobs[0].digest == first
    assert plan_of(job("a", "set = { train.epochs = 4 }")).jobs[0].digest != first


def test_run_directory_of_the_configuration_is_not_used(plan_of, folder):
    text = (folder / "c.toml").read_text() + '[output]\ndirectory = "$ABSENT/run"\n'
    (folder / "own.toml").write_text(text)
    plan = plan_of('[pool]\ndirectory = "p"\n' + job("a", config="own.toml"))
    assert plan.jobs[0].config.output.directory == str(folder / "p" / "jobs" / "a")


def test_names_are_relative_to_their_files(folder, monkeypatch):
    (folder / "sub").mkdir()
    (folder / "sub" / "c.toml").write_text((folder / "c.toml").read_text())
    text = '[pool]\ndirectory = "../$WHERE"\n' + job("a", config="../sub/c.toml")
    (folder / "sub" / "j.toml").write_text(text)
    monkeypatch.setenv("WHERE", "out")
    plan = read_plan("sub/j.toml", 1)
    assert plan.directory == str(folder / "out")
    assert plan.jobs[0].config.data.train == str(folder / "sub" / "x.npz")


def test_jobs_come_after_those_that_they_need(plan_of):
    sweep = "sweep = { train.seed = [1, 2] }"
    text = job("c", 'after = ["b", "a"]') + job("a", sweep) + job("b", 'after = "a-2"')
    jobs = plan_of(text).jobs
    assert [j.name for j in jobs] == ["a-1", "a-2", "b", "c"]
    assert [j.after for j in jobs] == [(), (), ("a-2",), ("b", "a-1", "a-2")]


@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=8))
def test_order(needs):
    n = len(needs)
    needs = [sorted(i for i in found if i < n) for found in needs]
    tables = [
        {"name": f"j{i}", "config": "c", "after": [f"j{k}" for k in found]}
        for i, found in enumerate(needs)
    ]
    entries = [JobSection(table, i, "f") for i, table in enumerate(tables)]
    done, left = set(), set(range(n))
    while ready := {i for i in left if done.issuperset(needs[i])}:
        done, left = done | ready, left - ready
    if left:
        with pytest.raises(ConfigError, match="waits for"):
            order_jobs(entries, "f")
        return
    order = [int(entry.table.name[1:]) for entry, _ in order_jobs(entries, "f")]
    assert sorted(order) == list(range(n))
    for place, i in enumerate(order):
        assert set(needs[i]) <= set(order[:place])
    if all(k < i for i, found in enumerate(needs) for k in found):
        assert order == list(range(n))


@pytest.mark.parametrize(
    "text, told",
    [
        ("", ["jobs.toml: no job", r"\[\[job\]\]"]),
        ("[pool\n", ["jobs.toml: ", "line 1, column 6"]),
        ("[jobs]", ["unknown section 'jobs'", "mean 'job'"]),
        ("[job]\nname = 'a'", [r"in double brackets: \[\[job\]\]"]),
        ("job = [1]", ["in double brackets"]),
        ("pool = 1\n" + ONE, [r"\[pool\] must be a table"]),
        ("[pool]\ndir = 'x'\n" + ONE, ["unknown key 'dir'"]),
        ("[pool]\ndirectory = 's3://a/b'\n" + ONE, ["expected a folder, got the URL"]),
        ("[pool]\ndirectory = '$NOT_SET/b'\n" + ONE, ["'NOT_SET' is not set"]),
        ("[[job]]\nconfig = 'c.toml'", ["number 1", "needs the key 'name'"]),
        ("[[job]]\nname = 'a'", ["'a'", "needs the key 'config'"]),
        (ONE + "prio = 1", ["'a'", "unknown key 'prio'", "mean 'priority'"]),
        (ONE + "gpus = -1", ["gpus must be one of 0, 1, got -1"]),
        (ONE + "memory_gb = 0", ["memory_gb must be above 0"]),
        (ONE + "retries = -1", ["retries must be at least 0"]),
        (ONE + "min_ranks = 0", ["min_ranks must be at least 1"]),
        (ONE + "min_ranks = 3\nmax_ranks = 2", ["min_ranks = 3 > max_ranks = 2"]),
        (ONE + "min_ranks = 5", ["min_ranks = 5", "the pool has 4 ranks"]),
        (ONE + 'after = "b"', ["after: unknown job 'b'", "known: a"]),
        (ONE + 'after = "a"', ["'a' waits for 'a'"]),
        (ONE + job("b", 'after = "c"') + job("c", 'after = "b"'), ["waits for 'c'"]),
        (ONE + ONE, ["two jobs have the name 'a'"]),
        (ONE + job("A"), ["'a' and 'A' would have one run directory"]),
        (
            job("a", "sweep = { train.seed = [1] }") + job("a-1"),
            ["two jobs have the name 'a-1'"],
        ),
        (ONE + 'how = "zip"', ["how is for a sweep"]),
        (ONE + "sweep = {}", ["sweep: it is empty"]),
        (ONE + "sweep = { train.seed = [] }", ["train.seed: the list is empty"]),
        (ONE + "sweep = { train.sed = [1] }", ["unknown key 'sed'", "mean 'seed'"]),
        (ONE + "sweep = { trian.seed = [1] }", ["unknown section 'trian'", "'train'"]),
        (ONE + "sweep = { lr = [1] }", ["sweep lr: expected section.key"]),
        (ONE + "sweep = { train.seed = [1, 'b'] }", ["must be an integer, got 'b'"]),
        (ONE + "sweep = { train.epochs = [0] }", ["epochs must be at least 1, got 0"]),
        (ONE + "sweep = { output.directory = ['b'] }", ["has its own run directory"]),
        (ONE + "set = { output.directory = 'b' }", ["has its own run directory"]),
        (ONE + "set = ['output.directory=b']", ["has its own run directory"]),
        (ONE + "set = ['train.epochs']", ["set train.epochs: expected section.key="]),
        (ONE + "set = 3", ["set must be a list, each a string or a table, got 3"]),
        (ONE + "set = { train.epoch = 3 }", ["'a' set", "mean 'epochs'"]),
        (ONE + "set = { model.kind = 'sofmax' }", ["kind must be one of", "'sofmax'"]),
        (
            job("a", "sweep = { optimizer.name = ['adam', 'lbfgs'] }")
            + 'set = { model.kind = "mlp" }',
            ["job 'a-2'", "c.toml: lbfgs is for the convex models"],
        ),
        (job("a", config="absent.toml"), ["'a' config", "absent.toml: No such file"]),
        (job("a", config="jobs.toml"), ["'a' config: the job file names itself"]),
        (job("a", config="./x/../jobs.toml"), ["No such file|names itself"]),
        (
            job("a", config="https://x/c.toml"),
            ["'a' config: expected a file, got the URL https://x/c.toml"],
        ),
        (
            ONE + "sweep = { optimizer.learning_rate = [1, 1.0] }",
            ["'a' sweep: .*learning_rate': 1} and .*: 1.0} are the same training"],
        ),
        (
            ONE + "max_ranks = 1\nset = { parallel.strategy = 'server' }",
            ["max_ranks = 1, but .*servers = 1 takes at least 2 ranks: raise it"],
        ),
        (ONE + "set = { elastic.ranks = 2 }", ["the pool gives ranks to its jobs"]),
        (ONE + "set = { elastic.survive = true }", ["survive: the pool gives ranks"]),
        (
            ONE + "min_ranks = 3\n" + EXACT,
            ["min_ranks = 3", "virtual_shards = 2 takes between 1 and 2"],
        ),
        (
            ONE + "set = { parallel.strategy = 'server', parallel.servers = 4 }",
            ["servers = 4 takes at least 5 ranks, but the pool has 4 ranks"],
        ),
        (
            job("a", "sweep = { train.seed = [1, 2] }")
            + "set = { checkpoint.directory = 's' }",
            ["'a-1' and 'a-2' would both save to"],
        ),
    ],
)
def test_what_is_refused(plan_of, text, told):
    with pytest.raises(ConfigError) as caught:
        plan_of(text)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for words in told:
        caught.match(words)


NAMES = ["", ".", "..", "a/b", "a b", "-a", ".a", "a\\n", "é", "a" * 101, "$HOME", "~"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(plan_of, name):
    with pytest.raises(ConfigError, match="a name has letters, digits"):
        plan_of(job(name))


@pytest.mark.parametrize("name", ["a", "7", "lr=0.01", "A_b-c+d.e", "a" * 100])
def test_names(plan_of, name):
    assert [j.name for j in plan_of(job(name)).jobs] == [name]


def test_too_many_jobs(plan_of):
    seeds = list(range(6000))
    text = "".join(job(n, f"sweep = {{ train.seed = {seeds} }}") for n in "ab")
    with pytest.raises(ConfigError, match="12,000 jobs, at most 10,000"):
        plan_of(text)


@pytest.mark.parametrize(
    "lines, n_ranks, bounds",
    [
        ("", 1, (1, 1)),
        ("max_ranks = 16", 4, (1, 4)),
        ("min_ranks = 2\nmax_ranks = 3", 4, (2, 3)),
        (EXACT, 4, (1, 2)),
        ("max_ranks = 3\n" + EXACT, 4, (1, 2)),
        ("set = { parallel.strategy = 'server', parallel.servers = 2 }", 4, (3, 4)),
    ],
)
def test_numbers_of_ranks(plan_of, lines, n_ranks, bounds):
    (one,) = plan_of(ONE + lines, n_ranks).jobs
    assert (one.min_ranks, one.max_ranks) == bounds

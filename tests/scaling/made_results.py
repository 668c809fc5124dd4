"""Results of trainings to a score, made up."""

from pympi_train.config.config import parse

TEXT = """
[data]
train = "x.csv"
validation = 0.25
[model]
kind = "softmax"
[optimizer]
name = "sgd"
learning_rate = 0.2
[train]
batch_size = 20
epochs = 12
monitor = "accuracy"
[output]
directory = "run"
"""


def configure(settings=()):
    return parse(TEXT, folder="/data", overrides=settings)


def record(epoch, accuracy, wall_s=0.5):
    noise = {"critical_batch_size": 10.0 * epoch, "gradient_square": 1.0, "trace": 2.0}
    return {
        "epoch": epoch,
        "step": 4 * epoch,
        "samples": 100 * epoch,
        "accuracy": accuracy,
        "wall_s": wall_s,
        "gradient_noise": noise,
    }


def made_rows(sizes, *, least_samples=5000.0, least_steps=40.0, critical=None):
    return [
        {
            "ranks": ranks,
            "batch_size": size,
            "seed": seed,
            "learning_rate": 0.1,
            "score": 0.9,
            "error": None,
            "metric": "accuracy",
            "best": 0.95,
            "epochs": 3,
            "step_s": 0.01,
            "samples": (least_samples + least_steps * size) * (1 + 0.1 * (seed - 1)),
            "reached_s": 30.0 / ranks,
            "critical_batch_size": critical,
        }
        for size in sizes
        for seed in (0, 1, 2)
        for ranks in (1, 2)
    ]

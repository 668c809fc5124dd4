"""What the fitted model says of more ranks: the best way at each number."""

from pympi_train.errors import ConfigError
from pympi_train.scaling.model.fit import fit_model
from pympi_train.scaling.model.predict import predictions, rank_limit
from pympi_train.scaling.model.ways import SAME, Way

COLUMNS = ("ranks", "allreduce", "efficiency", "fastest way", "step ms", "efficiency")


class Forecast:
    """Predictions from a study.

    Parameters
    ----------
    study : dict
        The content of its file.

    Attributes
    ----------
    rows : list of list of str
        In the order of ``COLUMNS``, ascending ranks; step times in milliseconds. The
        fastest way is one whose result is that of one process.
    sentences : list of str
        The ranks at which efficiency falls below 80 %, and the error of the model.
    """

    def __init__(self, study):
        self.rows, self.sentences = [], []
        modes = {m["mode"] for m in study["measurements"] if m["error"] is None}
        mode = "strong" if "strong" in modes else "weak"
        try:
            model = fit_model(study)
        except ConfigError:
            return
        by_ranks: dict = {}
        for one in predictions(model, mode):
            by_ranks.setdefault(one.ranks, []).append(one)
        plain = Way("allreduce")
        for ranks, found in sorted(by_ranks.items()):
            own = next(one for one in found if str(one.way) == str(plain))
            same = [one for one in found if one.way.result == SAME]
            best = min(same, key=lambda one: one.step_s)
            self.rows.append([
                f"{ranks:,}",
                f"{1e3 * own.step_s:.3f}",
                f"{100 * own.efficiency:.0f} %",
                str(best.way),
                f"{1e3 * best.step_s:.3f}",
                f"{100 * best.efficiency:.0f} %",
            ])
        limit = rank_limit(model, plain, mode)
        where = "at no number of ranks" if limit is None else f"at {limit:,} ranks"
        self.sentences = [
            f"By the model, the efficiency of {mode} scaling with allreduce falls below "
            f"80 % {where}.",
            f"The model: {model.error}.",
        ]

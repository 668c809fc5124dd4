"""How a training has ended, and its result, in lines of text."""

from pympi_train.data.formats.rows import shown
from pympi_train.runs.speech import counted
from pympi_train.runs.terminal.descriptions import compare_seconds, describe_noise

_ENDINGS = {
    "patience": "no better epoch for [train] patience epochs",
    "target": "[train] monitor has reached the target",
    "gradient": "the gradient is within [optimizer] tolerance",
    "decrease": "the loss decreases no more",
    "line search": "no step decreases the loss beyond rounding",
}
_HOW_TO_GO_ON = {
    "epochs": "raise [train] epochs to go on",
    "patience": "early stopping ended it; to train its weights further, start a run "
    "with [train] init",
    "target": "the target was reached; set another [train] target to go on",
    "gradient": "the gradient is within [optimizer] tolerance; lower that to go on",
}


def finished_line(directory, result):
    """Return the line about a finished run that was to be resumed."""
    why = result["ended"]
    return (
        f"finished {directory}: {counted(result['epochs'], 'epoch')}, nothing is left "
        "to do; " + _HOW_TO_GO_ON.get(why, _ENDINGS.get(why, ""))
    )


def ending_lines(result, epochs, tolerance):
    """Return the lines on why a training ended, and which weights it kept.

    Parameters
    ----------
    result : dict
        As in result.json.
    epochs : int
        The most that were allowed.
    tolerance : float
        Of the elements of the gradient.
    """
    lines, why = [], result["ended"]
    if why == "epochs" and "largest_gradient" in result:
        lines.append(
            f"ended    after {counted(result['epochs'], 'iteration')}, all that "
            "[train] epochs allows, and did not converge: the largest element of the "
            f"gradient is {result['largest_gradient']:.3g}, [optimizer] tolerance is "
            f"{tolerance:g}; raise [train] epochs"
        )
    elif why != "epochs":
        at = f"in epoch {result['epochs']:,} of {epochs:,}"
        lines.append(f"ended    {at}: {_ENDINGS[why]}")
    if result["kept_epoch"] < result["epochs"]:
        kept = f"the weights of epoch {result['kept_epoch']}, the best"
        lines.append(f"kept     {kept}")
    return lines


def outcome_lines(result, train_s, all_s):
    """Return the lines of losses, metrics, seconds and choices of a finished training.

    Parameters
    ----------
    result : dict
        As in result.json.
    train_s, all_s : float
        Seconds of the epochs, and from the start of the process.
    """
    measured = dict(result["validation"] or {})
    targets = measured.pop("targets", {})
    found = {"train loss": result["train_loss"]}
    found |= {f"validation {name}": value for name, value in measured.items()}
    lines = ["result   " + ", ".join(f"{k} {v:.6g}" for k, v in found.items())]
    for name, of in targets.items():
        values = f"RMSE {of['rmse']:.6g}, R2 {of['r2']:.6g}"
        lines.append(f"         {shown(name)}: validation {values}")
    lines.append(
        f"         {counted(result['steps'], 'step')} in {train_s:.1f} s "
        f"({all_s:.1f} s in all), {result['samples_per_s']:,.0f} samples/s"
    )
    if "gradient_noise" in result:
        lines.append(f"noise    {describe_noise(result['gradient_noise'])}")
    chosen = result["exchange"]
    if "overlap_seconds" in chosen:
        times = compare_seconds(chosen["overlap"], chosen["overlap_seconds"])
        lines.append(f"overlap  {chosen['overlap']}{times}, backward with exchange")
    return lines

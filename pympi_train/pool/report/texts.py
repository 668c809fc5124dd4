"""Short texts about the jobs of a pool."""

from pympi_train.pool.report.chart import neighbours

SHOWN_CHARACTERS = 70


def varied_text(varied):
    """Return "model.l2=0 optimizer.name=sgd" for the values of a sweep."""
    return " ".join(f"{path}={value}" for path, value in varied.items())


def shortened(text):
    """Return the first line of ``text``, cut if it is long."""
    text = text.strip().partition("\n")[0]
    is_long = len(text) > SHOWN_CHARACTERS
    return text[: SHOWN_CHARACTERS - 3] + "..." if is_long else text


def score_text(result):
    """Return the quality that the result of a training has, as text."""
    if not isinstance(result, dict):
        return ""
    measured = result.get("validation") or {}
    for name in ("accuracy", "r2", "perplexity", "loss"):
        if isinstance(measured.get(name), (int, float)):
            return f"validation {name} {measured[name]:.6g}"
    loss = result.get("train_loss")
    return f"train loss {loss:.6g}" if isinstance(loss, (int, float)) else ""


def ranks_text(ranks):
    """Return ranks as text, for example "0-3,8".

    >>> ranks_text([8, 0, 1, 2, 3])
    '0-3,8'
    """
    return ",".join(
        f"{first}-{first + n - 1}" if n > 1 else str(first)
        for first, n in neighbours(ranks)
    )

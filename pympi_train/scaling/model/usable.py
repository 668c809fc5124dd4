"""What of a study can be used for a fit."""

from pympi_train.errors import ConfigError


def usable_measurements(study):
    """Return the measurements that have succeeded and, if any, had enough cores."""
    good = [one for one in study.get("measurements", ()) if one.get("error") is None]
    if not good:
        raise ConfigError(
            "the study has no measurement of a step that succeeded: run pympi-train "
            "scaling with --ranks 1,2 at least"
        )
    good.sort(key=lambda one: one["ranks"])
    return [one for one in good if not one["oversubscribed"]] or good


def is_predictable(study):
    """Return whether steps on two numbers of ranks can be used.

    What of a step shrinks with the ranks is not known otherwise.
    """
    try:
        return len({one["ranks"] for one in usable_measurements(study)}) > 1
    except ConfigError:
        return False


def usable_exchanges(study):
    """Return the exchanges of numbers of ranks that had enough cores, if there are any.
    """
    found = list(study.get("exchanges", ()))
    crowded = {
        one["ranks"] for one in study["measurements"] if one.get("oversubscribed")
    }
    return [one for one in found if one["ranks"] not in crowded] or found

"""Whether lanes apply to a configuration."""

MODELS = ("linear", "logistic", "softmax")
ALWAYS = (
    (
        "the model is not linear, logistic or softmax",
        lambda c: c.model.kind not in MODELS,
    ),
    ("the GPU backend has no kernels for lanes", lambda c: c.train.backend == "cuda"),
    ("lanes compute in full precision", lambda c: c.train.precision != "full"),
    (
        "lanes sum whole gradients: strategy must be auto or allreduce",
        lambda c: c.parallel.strategy not in ("auto", "allreduce"),
    ),
    (
        "the sum of the lanes' gradients is not compressed",
        lambda c: c.parallel.compression != "none",
    ),
    (
        "patience and target would end each training at another epoch",
        lambda c: c.train.patience is not None or c.train.target is not None,
    ),
    (
        "gradient_noise is estimated for a training by itself",
        lambda c: c.train.gradient_noise,
    ),
    ("[train] init gives weights to start from", lambda c: c.train.init is not None),
)
OF_FOLDS = (
    (
        'missing = "mean" or "median" is fitted over the training rows of a fold',
        lambda c: c.data.missing in ("mean", "median"),
    ),
    (
        "rare_categories counts the training rows of a fold",
        lambda c: c.data.rare_categories is not None,
    ),
    (
        "class weights do not count among held-out rows, and weights of lanes do",
        lambda c: bool(c.model.class_weights),
    ),
    (
        "oversample repeats training rows of a fold",
        lambda c: c.data.oversample is not None,
    ),
    (
        "clip limits features that are standardised over a fold",
        lambda c: c.data.clip is not None,
    ),
    (
        "targets are standardised over the training rows of a fold, unless [data] "
        "standardize_target = false",
        lambda c: c.model.kind == "linear" and _standardises_targets(c.data),
    ),
)


def _standardises_targets(data):
    asked = data.standardize_target
    return data.standardize if asked is None else asked


def why_not_lanes(config, *, folds=None):
    """Return why lanes do not apply to a configuration, or None if they do.

    Parameters
    ----------
    config : Config
    folds : int, optional
        Number of folds, if there is cross-validation.
    """
    reasons = ALWAYS if folds is None else ALWAYS + OF_FOLDS
    return next((reason for reason, applies in reasons if applies(config)), None)

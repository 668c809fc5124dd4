"""How much of a pool's ranks its jobs have used."""

from pympi_train.pool.history import KILLED


def measure_utilisation(history, now_s):
    """Return what the pool's ranks did, in rank-seconds.

    Parameters
    ----------
    history : History
    now_s : float
        The present, in seconds since 1970.

    Returns
    -------
    dict
        makespan_s: seconds of all sessions;
        available_s: the ranks of each session, times its seconds;
        assigned_s: rank-seconds of jobs;
        training_s, startup_s: rank-seconds in steps and evaluations, and in what
        precedes them, of jobs that have ended;
        assigned, training, startup: the same as a fraction of ``available_s``;
        is_partial: whether a session runs or was killed.
        ``training`` is the utilisation. If it is partial, it lacks the jobs that run or
        were killed.
    """
    spans_s = [session.seconds(now_s) for session in history.sessions]
    sizes = [session.n_ranks for session in history.sessions]
    jobs = history.jobs.values()
    spent = {
        "assigned": sum(
            len(stay.ranks) * stay.seconds(now_s)
            for job in jobs
            for stay in job.stays
        ),
        "training": sum(job.training_s for job in jobs),
        "startup": sum(job.startup_s for job in jobs),
    }
    available_s = sum(n * span_s for n, span_s in zip(sizes, spans_s))
    fractions = {k: s / available_s if available_s else 0.0 for k, s in spent.items()}
    seconds = {f"{key}_s": value for key, value in spent.items()}
    return {
        "makespan_s": sum(spans_s),
        "available_s": available_s,
        **seconds,
        **fractions,
        "is_partial": any(s.status in (None, KILLED) for s in history.sessions),
    }


def utilisation_line(found):
    """Return a line on what `measure_utilisation` returned."""
    share = {key: f"{100 * found[key]:.1f} %" for key in ("assigned", "training")}
    startup = f"start-up {100 * found['startup']:.1f} %"
    if found["is_partial"]:
        return f"{share['assigned']} of the rank-seconds so far were given to jobs"
    return (
        f"{share['training']} of the rank-seconds in steps and evaluation; {startup}, "
        f"given to jobs {share['assigned']}"
    )

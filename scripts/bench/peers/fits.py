"""Seconds of whole trainings, of this package and of programs of one process.

Logistic regression on "dense", 100,000 x 50, and "wide", 100,000 x 20,000 with 40
entries a row; float32, one thread per process. The peers do not take the same steps,
so three questions stand for the work that they do:

* epoch: seconds of an epoch of stochastic gradient descent over all rows. Ours: batches
  of 256 rows. scikit-learn: ``SGDClassifier.partial_fit`` of all rows; Vowpal Wabbit: a
  pass of its cache; both update after each row. LIBLINEAR has no epochs.
* score: seconds of training until the loss on a fifth as many held-out rows is at most
  ``TARGETS``, within ten epochs; without the evaluations. Ours: AdaGrad, batches of 256
  rows; the peers as above, all with their default rates; LIBLINEAR: solver 0, its
  default tolerance.
* solve: seconds until the objective at C = 1 without intercept is at most 1e-4 above
  the least one, with the loosest power of ten as tolerance that gets there. Ours:
  L-BFGS; scikit-learn: ``LogisticRegression(solver="lbfgs")``; LIBLINEAR: solver 0.
"""

import sparse_rows
from peers import rows
from peers.environments import HERE, on_ranks, run

PEERS = ("sklearn", "liblinear", "vw")
HELD = {"dense": "dense_held", "wide": "held"}
TARGETS = {"dense": 0.53, "wide": 0.545}  # log loss; the least of dense is 0.5216
ABOVE = 1e-4
QUESTIONS = {
    "epoch": "epoch, logistic, {}",
    "score": "to a held-out loss of {}, logistic, {}",
    "solve": "to an objective 1e-4 above the least, logistic, {}",
}
SIZES = {"dense": "dense 100,000 x 50", "wide": "sparse 100,000 x 20,000"}


def measure(peers, pythons, repeats, folder):
    """Yield (question, {side: [seconds or None, by round]}) for each question.

    Parameters
    ----------
    peers, pythons, repeats
        As for ``steps.measure``. LIBLINEAR is needed for the least objective.
    folder : Path
        For the rows, some 200 MB.

    Yields
    ------
    Sides are "ours" (one rank), "ours 2" (two ranks) and the peers that can answer.
    None stands for a round in which a side did not get there.
    """
    peers = [peer for peer in peers if peer in PEERS]
    rows.make_dense(folder)
    sparse_rows.make_data(folder, 100_000)
    for name, held in HELD.items():
        task = [name, held, str(folder)]
        least = run([[*worker("liblinear", pythons), *task, "0", "0"]])["reference"]
        task += [str(least * (1 + ABOVE)), str(TARGETS[name])]
        rounds = []
        for _ in range(repeats):
            found = {
                side: run([[*worker(side, pythons), *task]])
                for side in ("ours", "ours 2", *peers)
            }
            rounds.append(found)
        for question, text in QUESTIONS.items():
            of = (TARGETS[name], SIZES[name]) if question == "score" else [SIZES[name]]
            yield text.format(*of), {
                side: [one[side][question]["s"] for one in rounds]
                for side in rounds[0]
                if question in rounds[0][side]
            }


def worker(side, pythons):
    """Return the command that answers the questions, without its arguments."""
    if side.startswith("ours"):
        return on_ranks(2 if side == "ours 2" else 1, str(HERE / "ours_fit.py"))
    return [pythons[side], str(HERE / f"{side}_fit.py")]

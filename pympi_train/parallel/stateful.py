"""The state of a strategy between steps: arrays and a few numbers on each rank."""

from typing import NamedTuple

from pympi_train.flat.state import held


class Kept(NamedTuple):
    """What a rank holds at some time: what `Stateful.holdings` and `numbers` return."""

    holdings: list
    numbers: dict


class Stateful:
    """Base of strategies: names what they hold, keeps it, saves and takes it.

    Attributes
    ----------
    kept : Kept or None
        See `keep`.
    """

    kept = None

    def holdings(self):
        """Return what this rank holds of all that survives a step: list of Holding."""
        return []

    def numbers(self):
        """Return what survives besides, as plain values by name."""
        return {} if self._optimizer is None else {"updates": self._optimizer.step}

    def take_numbers(self, numbers):
        """Go on from what `numbers` returned."""
        if self._optimizer is not None:
            self._optimizer.step = numbers["updates"]

    def choices(self):
        """Return what was chosen by measuring and decides bits: a dict by key."""
        return {}

    def take_choices(self, choices):
        """Choose what `choices` of another training returned, where that can be."""

    def restored(self):
        """Give all ranks what was just written to the holdings of each. Collective."""

    def loaded(self):
        """Take note that the holdings were written from a state."""

    def finish(self):
        """Wait for what is under way; raise RuntimeError where nothing can be saved."""

    def keep(self):
        """Keep a copy of all that, in place of the one before, to `go_back` to it."""
        self.kept = self._copy_at(self.numbers())

    def _copy_at(self, numbers):
        return Kept([holding.copy() for holding in self.holdings()], numbers)

    def go_back(self):
        """Go back to what was kept, and drop the copy. Collective."""
        kept, self.kept = self.kept, None
        self.take_numbers(kept.numbers)
        for copy, holding in zip(kept.holdings, self.holdings()):
            holding.ops.copy(copy.array, holding.array)
        self.restored()

    def add_to(self, state):
        """Add to a State what this rank holds, and what it has kept.

        Raises
        ------
        RuntimeError
            If it cannot be saved now.
        """
        self.finish()
        _add(Kept(self.holdings(), self.numbers()), state)
        if self.kept is not None:
            _add(self.kept, state, "best/")

    def read(self, state, prefix=""):
        """Return what `take` takes: all that this rank has to hold.

        Parameters
        ----------
        state : State
            Of all ranks of a training, on these ranks or others.
        prefix : {"", "best/"}
            Of what it had kept.

        Returns
        -------
        Kept
            Its arrays lie in host memory; None where the default will do.

        Raises
        ------
        DataError
            If something is missing or of another shape.
        """
        now, found = self.numbers(), []
        numbers = {**now, **state.values.get(f"{prefix}numbers", {})}
        self.take_numbers(numbers)
        try:
            for holding in self.holdings():
                named = holding._replace(name=prefix + holding.name)
                found.append(holding._replace(array=state.array_of(named)))
        finally:
            self.take_numbers(now)
        return Kept(found, numbers)

    def take(self, found):
        """Go on from what `read` found. Collective."""
        self.take_numbers(found.numbers)
        _write(found.holdings, self.holdings())
        self.loaded()
        self.restored()

    def take_kept(self, found):
        """Keep what `read` found, to `go_back` to it."""
        now = self.numbers()
        self.take_numbers(found.numbers)
        self.kept = self._copy_at(found.numbers)
        self.take_numbers(now)
        _write(found.holdings, self.kept.holdings)


def optimizer_holdings(optimizer, space, ops, **how):
    """Return the Holdings of an optimizer's state, whose blocks are ``space``'s."""
    state = {} if optimizer is None else optimizer.state
    return [
        held(f"optimizer/{name}", space, block, ops, **how)
        for name, block in state.items()
    ]


def _add(kept, state, prefix=""):
    for holding in kept.holdings:
        state.add(holding._replace(name=prefix + holding.name))
    if kept.numbers:
        state.values[f"{prefix}numbers"] = kept.numbers


def _write(found, holdings):
    for read, holding in zip(found, holdings):
        if read.array is None:
            holding.ops.fill(holding.array, read.default)
        else:
            holding.ops.from_host(read.array, holding.array)

"""The state of a strategy between steps: arrays and a few numbers on each rank."""

from typing import NamedTuple

import numpy as np

from pympi_train.errors import DataError
from pympi_train.flat.state import held

PARAMS = "params"  # the name of the parameters among the holdings


class Kept(NamedTuple):
    """A copy of a rank's state: the results of `Stateful.holdings` and `numbers`."""

    holdings: list
    numbers: dict


class Stateful:
    """Base of strategies: lists their state, copies, saves and restores it.

    Attributes
    ----------
    kept : Kept or None
        The copy that `keep` made.
    """

    kept = None

    def holdings(self):
        """Return this rank's arrays that persist between steps: list of Holding."""
        return []

    def numbers(self):
        """Return the rest of the state, as plain values by name."""
        return {} if self._optimizer is None else {"updates": self._optimizer.step}

    def take_numbers(self, numbers):
        """Restore the values that `numbers` returned."""
        if self._optimizer is not None:
            self._optimizer.step = numbers["updates"]

    def choices(self):
        """Return the measured choices that affect the result's bits, by key."""
        return {}

    def take_choices(self, choices):
        """Adopt the `choices` of another training, where possible."""

    def restored(self):
        """Update whatever depends on the holdings just written. Collective."""

    def loaded(self):
        """Called after the holdings were written from a saved state."""

    def finish(self):
        """Complete pending work; raise RuntimeError if the state cannot be saved."""

    def keep(self):
        """Copy the state for `go_back`, replacing the previous copy."""
        self.kept = self._copy_at(self.numbers())

    def _copy_at(self, numbers):
        return Kept([holding.copy() for holding in self.holdings()], numbers)

    def go_back(self):
        """Restore the state that `keep` copied, and drop the copy. Collective."""
        kept, self.kept = self.kept, None
        self.take_numbers(kept.numbers)
        for copy, holding in zip(kept.holdings, self.holdings()):
            holding.ops.copy(copy.array, holding.array)
        self.restored()

    def add_to(self, state):
        """Add this rank's state and its kept copy to a State.

        Raises
        ------
        RuntimeError
            If the state cannot be saved now.
        """
        self.finish()
        _add(Kept(self.holdings(), self.numbers()), state)
        if self.kept is not None:
            _add(self.kept, state, "best/")

    def read(self, state, prefix=""):
        """Return this rank's part of a saved state, for `take` or `take_kept`.

        Parameters
        ----------
        state : State
            Of all ranks of a training, whose number may differ from that of these.
        prefix : {"", "best/"}
            "best/" reads the kept copy.

        Returns
        -------
        Kept
            Its arrays lie in host memory; an array is None if the default applies.

        Raises
        ------
        DataError
            If an array is missing or has another shape.
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
        """Restore the state that `read` returned. Collective."""
        self.take_numbers(found.numbers)
        _write(found.holdings, self.holdings())
        self.loaded()
        self.restored()

    def read_params(self, tensors):
        """Return this rank's parameters with the values of some tensors.

        Parameters
        ----------
        tensors : dict of str to ndarray or the like
            Values by the name of a tensor, in its shape. Parts are read by slices. The
            other tensors keep the values that they have.

        Returns
        -------
        list of Holding
            In host memory, for `take_params`.

        Raises
        ------
        DataError
            If a tensor cannot be read, or has a NaN or an infinity.
        """
        found = []
        for holding in self._params_held():
            array = np.array(holding.ops.to_host(holding.array))
            for name, _, box, place in holding.parts():
                name = name.removeprefix(f"{PARAMS}/")
                if name in tensors:
                    part = array[place].reshape([b - a for a, b in box])
                    with np.errstate(over="ignore"):  # to another dtype
                        part[...] = tensors[name][tuple(slice(*pair) for pair in box)]
                    if not np.isfinite(part).all():
                        raise DataError(f"{name} has NaN or infinity")
            found.append(holding._replace(array=array))
        return found

    def take_params(self, found):
        """Start from what `read_params` returned. Collective."""
        _write(found, self._params_held())
        self.loaded()
        self.restored()

    def _params_held(self):
        return [holding for holding in self.holdings() if holding.name == PARAMS]

    def take_kept(self, found):
        """Use what `read` returned as the kept copy, for `go_back`."""
        now = self.numbers()
        self.take_numbers(found.numbers)
        self.kept = self._copy_at(found.numbers)
        self.take_numbers(now)
        _write(found.holdings, self.kept.holdings)


def optimizer_holdings(optimizer, space, ops, **how):
    """Return the Holdings of an optimizer's state: blocks of the Layout or Part."""
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

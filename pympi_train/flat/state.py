"""The saved state of a training: tensors by name and region, and plain values."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pympi_train.errors import DataError
from pympi_train.flat.boxes import boxes_of, difference, intersection, size_of, within
from pympi_train.flat.memory import Layout
from pympi_train.flat.parts import Part


class Region(NamedTuple):
    """A region of a tensor.

    Attributes
    ----------
    shape : tuple of int
        Shape of the whole tensor.
    box : tuple of (int, int)
        Bounds of the region; see `flat.boxes`.
    array : ndarray
        Its elements, of the box's shape.
    n_blocks : int or None
        Number of blocks, if each rank has its own. The first dimension of the other
        attributes is then the rank.
    """

    shape: tuple
    box: tuple
    array: np.ndarray
    n_blocks: int | None = None


class Holding(NamedTuple):
    """An array of this rank, and the elements of a flat block that it holds.

    Attributes
    ----------
    name : str
        Name of the block, such as "params" or "optimizer/m".
    layout : Layout
        Layout of the block.
    array : array, shape (n,)
        In the memory of ``ops``.
    ops : module
        Functions of the backend.
    stretches : tuple of (int, int, int)
        Start and stop of each stretch in the block, and its start in the array.
    of_rank : (int, int) or None
        (number, count) of this block if each rank, or each node, has its own; None if
        the block is the same for all.
    mixing : {"mean", "sum"}
        What a block becomes if the number of blocks has changed: the mean of the saved
        blocks, or an equal share of their sum. A block for all counts as one.
    default : float or None
        Initial value if a state does not have the block; None if it must have it.
    """

    name: str
    layout: Layout
    array: Any
    ops: Any
    stretches: tuple
    of_rank: tuple | None = None
    mixing: str = "mean"
    default: float | None = None

    def copy(self):
        """Return the Holding of a copy of the array, in the same memory."""
        array = self.ops.empty(self.array.shape, self.array.dtype)
        self.ops.copy(self.array, array)
        return self._replace(array=array)

    def parts(self):
        """Yield (name, shape, box, slice of the array) of the tensors' boxes in it."""
        layout = self.layout
        for start, stop, first in self.stretches:
            for tensor, offset in zip(layout.tensors, layout.offsets):
                low, high = max(start, offset), min(stop, offset + tensor.size)
                if low >= high:
                    continue
                at = first + low - start
                for box in boxes_of(tensor.shape, low - offset, high - offset):
                    end = at + size_of(box)
                    name = f"{self.name}/{tensor.name}"
                    yield name, tensor.shape, box, slice(at, end)
                    at = end


def held(name, space, array, ops, *, slices=None, **how):
    """Return the Holding of an array that holds a block, or slices of it.

    Parameters
    ----------
    name, array, ops, how
        As for `Holding`.
    space : Layout or Part
        Layout of the block, or Part of a larger block.
    slices : sequence of (int, int, int), optional
        Stretches of that block, if the array does not hold all of it.
    """
    layout, stretches = space, ((0, space.size, 0),)
    if isinstance(space, Part):
        layout = space.layout
        stretches = tuple(
            (piece.start, piece.stop, place.start)
            for piece, place in zip(space.pieces, space.places)
        )
    if slices is not None:
        stretches = tuple(_compose(stretches, slices))
    return Holding(name, layout, array, ops, stretches, **how)


def _compose(outer, inner):
    """Yield the stretches of the block of ``outer`` held by the array of ``inner``."""
    for start, stop, first in inner:
        for low, high, place in outer:
            a, b = max(start, place), min(stop, place + high - low)
            if a < b:
                yield low + a - place, low + b - place, first + a - start


@dataclass
class State:
    """Tensors by name, each as regions, and plain values.

    It has no flat offsets, so any number of ranks with any partition can read it once
    the states of all ranks are `merged`.

    Attributes
    ----------
    values : dict
        Numbers, strings, None, and lists and dicts of them; the same on every rank that
        has them.
    regions : dict of str to list of Region
        The regions of each tensor, in host memory.
    blocks : dict of str to dict
        For each Holding that was added, its tensors: the keys of a dict.
    copies : bool
        Whether `add` copies arrays in host memory, so that they may change later.
    """

    values: dict = field(default_factory=dict)
    regions: dict = field(default_factory=dict)
    blocks: dict = field(default_factory=dict)
    copies: bool = True

    def add(self, holding):
        """Add the tensors in a Holding, or the parts that it holds."""
        host = holding.ops.to_host(holding.array)
        tensors = self.blocks.setdefault(holding.name, {})
        for name, shape, box, place in holding.parts():
            array, count = host[place].reshape(_shape(box)), None
            if self.copies:
                array = array.copy()
            if holding.of_rank is not None:
                number, count = holding.of_rank
                shape, box = (count, *shape), ((number, number + 1), *box)
                array = array[None]
            region = Region(shape, box, array, count)
            self.regions.setdefault(name, []).append(region)
            tensors[name] = None

    def array_of(self, holding):
        """Return the content of a Holding's array, in host memory.

        Returns
        -------
        ndarray, shape (n,)
            Zero in the padding. None if the state does not have the block, and the
            Holding has a default.

        Raises
        ------
        DataError
            If a part is missing, or a tensor has another shape.
        """
        found = np.zeros(len(holding.array), holding.layout.dtype)
        is_known = any(name.startswith(f"{holding.name}/") for name in self.regions)
        if holding.default is not None and not is_known:
            return None
        for name, shape, box, place in holding.parts():
            out = found[place].reshape(_shape(box))
            regions = self.regions.get(name)
            before = regions[0].n_blocks if regions else None
            if before is None:
                self.read(name, shape, box, out)
                if holding.of_rank is not None and holding.mixing == "sum":
                    out /= holding.of_rank[1]
            else:
                self._read_of_ranks(name, shape, box, out, holding, before)
        return found

    def read(self, name, shape, box, out):
        """Write the region ``box`` of a tensor to ``out``.

        Parameters
        ----------
        name : str
        shape : tuple of int
            Shape of the whole tensor.
        box : tuple of (int, int)
        out : ndarray
            Has the box's shape.

        Raises
        ------
        DataError
            If a part is missing, or the tensor has another shape.
        """
        left = [box] if size_of(box) else []
        for region in self.regions.get(name, ()):
            if region.shape != shape:
                raise DataError(
                    f"state: {name}: expected shape {shape}, found {region.shape}"
                )
            rest = []
            for part in left:
                common = intersection(part, region.box)
                if common is None:
                    rest.append(part)
                    continue
                out[within(common, box)] = region.array[within(common, region.box)]
                rest += difference(part, common)
            left = rest
        if left:
            found = f"not {left[0]}" if name in self.regions else "nothing"
            raise DataError(f"state: {name}: expected {box} of {shape}, found {found}")

    def _read_of_ranks(self, name, shape, box, out, holding, before):
        number, count = holding.of_rank or (0, 1)
        if before == count:
            self.read(name, (count, *shape), ((number, number + 1), *box), out[None])
            return
        one = np.empty((1, *out.shape), out.dtype)
        total = np.zeros(out.shape)
        for other in range(before):
            self.read(name, (before, *shape), ((other, other + 1), *box), one)
            total += one[0]
        out[...] = total / (before if holding.mixing == "mean" else count)

    @classmethod
    def merged(cls, states):
        """Return the state of a training, merged from the states of all its ranks.

        A region that several ranks have is taken from the first of them.
        """
        found = cls()
        for state in states:
            for key, value in state.values.items():
                found.values.setdefault(key, value)
            for name, regions in state.regions.items():
                kept = found.regions.setdefault(name, [])
                known = {region.box for region in kept}
                kept += [region for region in regions if region.box not in known]
        return found


def _shape(box):
    return tuple(high - low for low, high in box)

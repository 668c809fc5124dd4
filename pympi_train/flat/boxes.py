"""Boxes of tensors: the elements that a stretch of a flat block holds.

A box is a tuple of (low, high) pairs, one per dimension; high is excluded. A stretch of
an array in C order is usually not one box but a few.
"""

import math


def boxes_of(shape, start, stop):
    """Return the boxes that make up elements ``start`` to ``stop - 1`` of an array.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array, in C order; ``()`` has one element.
    start, stop : int
        ``0 <= start <= stop <= size``.

    Returns
    -------
    list of tuple of (int, int)
        In the order of the elements; at most ``max(1, 2 len(shape) - 1)`` boxes.

    Examples
    --------
    >>> boxes_of((4, 5), 3, 17)
    [((0, 1), (3, 5)), ((1, 3), (0, 5)), ((3, 4), (0, 2))]
    """
    if start == stop:
        return []
    if len(shape) == 0:
        return [()]
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row  # whole rows
    if first > last:  # within one row
        return _in_row(shape, first - 1, start, stop)
    boxes = _in_row(shape, first - 1, start, first * row)
    if first < last:
        boxes.append(((first, last), *((0, n) for n in shape[1:])))
    return boxes + _in_row(shape, last, last * row, stop)


def _in_row(shape, row, start, stop):
    """Return the boxes of elements that lie in one row of the first dimension."""
    size = math.prod(shape[1:])
    inner = boxes_of(shape[1:], start - row * size, stop - row * size)
    return [((row, row + 1), *box) for box in inner]


def size_of(box):
    """Return the number of elements of a box."""
    return math.prod(high - low for low, high in box)


def intersection(a, b):
    """Return the intersection of two boxes, or None if it is empty."""
    found = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(a, b))
    return found if all(low < high for low, high in found) else None


def difference(box, inner):
    """Return the boxes that make up ``box`` without ``inner``, a box within it.

    Examples
    --------
    >>> difference(((0, 3), (0, 4)), ((1, 2), (0, 3)))
    [((0, 1), (0, 4)), ((2, 3), (0, 4)), ((1, 2), (3, 4))]
    """
    left, rest = [], list(box)
    for axis, ((low, high), (start, stop)) in enumerate(zip(box, inner)):
        for cut in ((low, start), (stop, high)):
            if cut[0] < cut[1]:
                left.append((*rest[:axis], cut, *rest[axis + 1 :]))
        rest[axis] = (start, stop)
    return left


def stretch_around(shape, box):
    """Return the shortest stretch of an array that holds a box, and the stretch's box.

    Returns
    -------
    (int, int, box)
        Start and stop of the stretch, and the box of which it is all elements.

    Examples
    --------
    >>> stretch_around((4, 5), ((1, 3), (0, 2)))
    (5, 15, ((1, 3), (0, 5)))
    """
    if size_of(box) == 0:
        return 0, 0, box
    start, each, outer = 0, math.prod(shape), list(box)
    for axis, (low, high) in enumerate(box):
        each //= shape[axis]
        start += low * each
        if high - low > 1:
            outer[axis + 1 :] = [(0, n) for n in shape[axis + 1 :]]
            break
    outer = tuple(outer)
    return start, start + size_of(outer), outer


def within(box, outer):
    """Return the slices of ``box`` in an array that holds the box ``outer``."""
    return tuple(
        slice(low - first, high - first) for (low, high), (first, _) in zip(box, outer)
    )

"""The same arrays by name in .npz, HDF5 and Zarr."""

import warnings

import numpy as np

SUFFIXES = ("npz", "h5", "zarr")


def save_arrays(path, arrays, *, chunks=None, compressed=False, version=3):
    """Write arrays to a file whose suffix says how.

    ``chunks`` is the number of rows of a chunk; ``version`` that of Zarr,
    whose metadata are consolidated unless the name says "plain".
    """
    if path.suffix == ".npz":
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
    elif path.suffix in (".h5", ".hdf5"):
        _save_hdf5(path, arrays, chunks, compressed)
    else:
        _save_zarr(path, arrays, chunks, version)


def _save_hdf5(path, arrays, chunks, compressed):
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            values, how = np.asarray(values), {}
            if values.dtype.kind == "U":
                values, how = values.astype(object), {"dtype": h5py.string_dtype()}
            elif values.dtype.kind == "M":
                values = values.astype(h5py.opaque_dtype(values.dtype))
            if chunks and values.ndim:
                how["chunks"] = (min(chunks, len(values)), *values.shape[1:])
                how["compression"] = "gzip" if compressed else None
            file.create_dataset(name, data=values, **how)


def _save_zarr(path, arrays, chunks, version):
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types without a form in version 3
        group = zarr.open_group(path, mode="w", zarr_format=version)
        for name, values in arrays.items():
            values = np.asarray(values)
            size = (min(chunks or 7, len(values)),) if values.ndim else ()
            size += tuple(max(1, n // 2) for n in values.shape[1:])
            group.create_array(name, data=values, chunks=size)
        if "plain" not in path.name:
            zarr.consolidate_metadata(path, zarr_format=version)

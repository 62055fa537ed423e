"""Numbers that others published about a dataset: one for each image of its official training set.

Files are .npz (several arrays, each under a key), .npy, or .csv with one number on each line.
Nothing is ever unpickled: arrays of Python objects are refused.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import read_array
from numpy.typing import NDArray

from models.errors import DataError, did_you_mean


def read_official_values(
    path: Path, key: str | None, official_count: int, suffixes: Sequence[str]
) -> NDArray[Any]:
    """Integers or floats (official_count,) from a file, in the official order.

    Args:
        key: name of the array within an .npz file; other files have one array and need none.
        official_count: images in the official training set, before any is kept for validation.
        suffixes: of ``.npz``, ``.npy`` and ``.csv``, those that are allowed.

    Raises:
        DataError: there is no such file or key, the file is damaged or foreign, or it does not
            hold one number for each image.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise DataError(f"{path}: its name must end in {' or '.join(suffixes)}")
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file")
        if suffix == ".npz":
            values = _from_npz(path, key)
        else:
            values = _from_npy(path) if suffix == ".npy" else _from_csv(path)
    except DataError:
        raise
    except Exception as error:
        # What a damaged file makes zipfile, zlib and numpy raise is of a dozen kinds. Numpy's
        # second lines tell how to trust the file.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: not a readable {suffix} file: {reason}") from error
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {values.dtype} values, but numbers are expected")
    if values.shape != (official_count,):
        held = f"{values.size} values" if values.ndim == 1 else f"an array of shape {values.shape}"
        raise DataError(
            f"{path}: holds {held}, but {official_count} values are expected, one for each image "
            "of the official training set"
        )
    return values


def _from_npz(path: Path, key: str | None) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        has = f"(it has: {', '.join(members) or 'none'})"
        if key is None:
            raise DataError(f"{path}: the key of one of its arrays must be given {has}")
        if key not in members:
            raise DataError(f"{path}: has no array {key!r}{did_you_mean(key, members)} {has}")
        # Whole, so that its checksum is compared.
        member = io.BytesIO(archive.read(members[key]))
    return _read_array(member)


def _from_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        return _read_array(file)


def _read_array(file: Any) -> NDArray[Any]:
    # Unlike numpy.load, which takes any foreign file for a pickle, and says how to trust it.
    values: NDArray[Any] = read_array(file, allow_pickle=False)
    return values


def _from_csv(path: Path) -> NDArray[np.float64]:
    """Values (N,) of the lines; the first may be a heading, and empty lines do not count."""
    values = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        try:
            if line.strip():
                values.append(float(line))
        except ValueError:
            if number > 1:
                raise ValueError(
                    f"one number on each line is expected, but line {number} is {line[:40]!r}"
                ) from None
    return np.array(values, dtype=np.float64)

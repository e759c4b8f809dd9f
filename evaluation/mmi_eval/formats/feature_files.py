"""Features of pictures, or their mean and covariance, as the FID packages keep them.

``.npy``: float[n, d], a row for each picture. ``.npz`` with ``mu`` float[d] and ``sigma`` float[d, d] (unbiased): the
statistics that pytorch-fid and clean-fid write, among them ``fid_stats_mscoco256_val.npz``. ``.npz`` with one array:
rows again, whatever it is called.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import FormatError, existing_file
from .npy_files import read_npy

_WHAT = "features of pictures (.npy), or their statistics (.npz with mu and sigma)"


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of features whose rows are not known.

    Args:
        mean: float64[d].
        covariance: float64[d, d].
    """

    mean: np.ndarray
    covariance: np.ndarray


def read_features(path: str | Path) -> np.ndarray | FeatureStatistics:
    """Return rows float64[n, d], or statistics where a file holds no rows.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is damaged, holds something else, or a number is not finite.
    """
    path = existing_file(path, _WHAT)
    if not zipfile.is_zipfile(path):
        return _rows(read_npy(path, _WHAT), str(path))
    arrays = _arrays(path)
    if {"mu", "sigma"} <= arrays.keys():
        return _statistics(arrays["mu"], arrays["sigma"], str(path))
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays)) or "none"
        raise FormatError(f"{path} holds the arrays {names}; expected mu and sigma, or one array of features.")
    return _rows(next(iter(arrays.values())), str(path))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} holds no arrays that can be read ({error}); get the file again.") from None


def _rows(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim > 2 and array[0, ...].size == array.shape[1]:  # pooled features that kept their sides of 1
        array = array.reshape(array.shape[:2])
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise FormatError(f"{where} holds {array.dtype} of shape {array.shape}; expected a row of numbers per picture.")
    rows = array.astype(np.float64)
    if not np.isfinite(rows).all():
        raise FormatError(
            f"{where}, row {int(np.argmin(np.isfinite(rows).all(axis=1)))} is not finite; mend the features."
        )
    return rows


def _statistics(mean: np.ndarray, covariance: np.ndarray, where: str) -> FeatureStatistics:
    numbers = mean.dtype.kind in "fiu" and covariance.dtype.kind in "fiu"
    if not numbers or mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
        raise FormatError(
            f"{where} holds mu of shape {mean.shape} and sigma of shape {covariance.shape}; expected d and d x d "
            "numbers."
        )
    found = FeatureStatistics(mean.astype(np.float64), covariance.astype(np.float64))
    if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
        raise FormatError(f"{where} holds statistics that are not finite; compute them again.")
    return found

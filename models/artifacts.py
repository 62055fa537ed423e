"""The artefacts that pass from models to the worlds: profiles and predictions. Free of torch.

Both are single Parquet files that say in their metadata what they are, for which architecture
they were made, and where. They can be copied: a profile measured on a Raspberry Pi drives a
simulation on a laptop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import ArtifactError
from models.files import whole_file

PROFILE_FORMAT = "offramp-profile-2"
PREDICTIONS_FORMAT = "offramp-predictions-1"

#: What a row of a profile measures. ``exit``: a whole inference that computes that exit alone.
#: ``segment`` and ``branch``: the parts of one inference that computes every exit on its way;
#: rows with the same ``inference`` belong together.
MEASUREMENTS = ("exit", "segment", "branch")

_PROFILE_COLUMNS = {
    "measurement": pa.string(),
    "exit": pa.int32(),
    "batch_size": pa.int32(),
    "inference": pa.int32(),
    "seconds": pa.float64(),
}
_PREDICTION_COLUMNS = {
    "sample": pa.int32(),
    "exit": pa.int32(),
    "label": pa.int32(),
    "predicted": pa.int32(),
    "confidence": pa.float32(),
}


@dataclass(frozen=True)
class Profile:
    """Latency samples of a multi-exit network on one host.

    Attributes:
        seconds: for each batch size, three arrays (inferences, exits) in seconds by measurement;
            column *k* belongs to exit *k + 1*. Times are of the whole batch.
        about: architecture fingerprint and description, each exit's node and costs, host
            fingerprint, settings.
    """

    seconds: dict[int, dict[str, NDArray[np.float64]]]
    about: dict[str, Any]

    @property
    def exit_count(self) -> int:
        """Number of exits measured."""
        first = next(iter(self.seconds.values()))
        return int(first["exit"].shape[1])

    @property
    def architecture(self) -> str:
        """Fingerprint of the architecture that was measured."""
        fingerprint: str = self.about["architecture"]
        return fingerprint


@dataclass(frozen=True)
class Predictions:
    """What every exit of one trained network says of every sample of one split.

    Attributes:
        sample: (N,) index of the sample in the official split.
        label: (N,) true class.
        predicted: (N, exits) predicted class.
        confidence: (N, exits) largest softmax probability.
        about: architecture fingerprint, dataset, split, strategy, seed.
    """

    sample: NDArray[np.int32]
    label: NDArray[np.int32]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    about: dict[str, Any]

    @property
    def exit_count(self) -> int:
        """Number of exits."""
        return int(self.predicted.shape[1])

    @property
    def architecture(self) -> str:
        """Fingerprint of the architecture that predicted."""
        fingerprint: str = self.about["architecture"]
        return fingerprint

    def accuracy(self) -> NDArray[np.float64]:
        """(exits,) share of samples that each exit classifies correctly."""
        shares: NDArray[np.float64] = (self.predicted == self.label[:, None]).mean(axis=0)
        return shares


def write_profile(path: Path, profile: Profile) -> None:
    """Write ``profile`` as one Parquet file with one row per measured time."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _PROFILE_COLUMNS}
    for batch_size, measured in profile.seconds.items():
        for measurement in MEASUREMENTS:
            times = measured[measurement]
            inferences, exits = times.shape
            columns["measurement"].append(np.full(times.size, measurement))
            columns["exit"].append(np.tile(np.arange(1, exits + 1), inferences))
            columns["batch_size"].append(np.full(times.size, batch_size))
            columns["inference"].append(np.repeat(np.arange(inferences), exits))
            columns["seconds"].append(times.ravel())
    _write(path, columns, _PROFILE_COLUMNS, PROFILE_FORMAT, profile.about)


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ArtifactError: absent, truncated, not a profile, or with times that cannot be.
    """
    table, about = _read(
        path, PROFILE_FORMAT, "profile", _PROFILE_COLUMNS, ["architecture", "exits", "host"]
    )
    kinds = np.asarray(table["measurement"].to_pylist())
    exits, batch_sizes = table["exit"].to_numpy(), table["batch_size"].to_numpy()
    inferences, times = table["inference"].to_numpy(), table["seconds"].to_numpy()
    if not len(times) or not np.isfinite(times).all() or (times <= 0).any():
        raise ArtifactError(f"{path}: a profile needs times that are positive and finite")
    of_exits = 1 <= exits.min() <= exits.max() <= len(times)
    if not of_exits or not 0 <= inferences.min() <= inferences.max() < len(times):
        raise ArtifactError(f"{path}: exits or inferences are numbered as no profile does")
    seconds: dict[int, dict[str, NDArray[np.float64]]] = {}
    for batch_size in np.unique(batch_sizes).tolist():
        seconds[batch_size] = {}
        at_size = batch_sizes == batch_size
        measured = np.unique(inferences[at_size])
        for measurement in MEASUREMENTS:
            rows = at_size & (kinds == measurement)
            matrix = np.full((len(measured), int(exits.max())), np.nan)
            matrix[np.searchsorted(measured, inferences[rows]), exits[rows] - 1] = times[rows]
            if rows.sum() != matrix.size or np.isnan(matrix).any():
                raise ArtifactError(
                    f"{path}: measurement {measurement!r} at batch size {batch_size} is incomplete"
                )
            seconds[batch_size][measurement] = matrix
    return Profile(seconds, about)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write ``predictions`` as one Parquet file with one row per sample and exit."""
    samples, exits = predictions.predicted.shape
    columns = {
        "sample": [np.repeat(predictions.sample, exits)],
        "exit": [np.tile(np.arange(1, exits + 1), samples)],
        "label": [np.repeat(predictions.label, exits)],
        "predicted": [predictions.predicted.ravel()],
        "confidence": [predictions.confidence.ravel()],
    }
    _write(path, columns, _PREDICTION_COLUMNS, PREDICTIONS_FORMAT, predictions.about)


def read_predictions(path: Path) -> Predictions:
    """Read predictions.

    Raises:
        ArtifactError: absent, truncated, or not predictions.
    """
    table, about = _read(
        path, PREDICTIONS_FORMAT, "predictions", _PREDICTION_COLUMNS, ["architecture", "dataset"]
    )
    exits = int(table["exit"].to_numpy().max(initial=0))
    possible = 0 < exits <= len(table)
    expected = np.tile(np.arange(1, exits + 1), len(table) // exits) if possible else np.zeros(0)
    if not possible or not np.array_equal(table["exit"].to_numpy(), expected):
        raise ArtifactError(f"{path}: every sample needs one prediction from each exit, in order")
    sample = table["sample"].to_numpy().reshape(-1, exits)
    label = table["label"].to_numpy().reshape(-1, exits)
    if (sample != sample[:, :1]).any() or (label != label[:, :1]).any():
        raise ArtifactError(f"{path}: the exits of one sample disagree on its number or label")
    confidence = table["confidence"].to_numpy()
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ArtifactError(f"{path}: confidences must lie between 0 and 1")
    return Predictions(
        sample=sample[:, 0],
        label=label[:, 0],
        predicted=table["predicted"].to_numpy().reshape(-1, exits),
        confidence=confidence.reshape(-1, exits),
        about=about,
    )


def _write(
    path: Path,
    columns: dict[str, list[NDArray[Any]]],
    types: dict[str, pa.DataType],
    format: str,
    about: dict[str, Any],
) -> None:
    arrays = {
        name: pa.array(np.concatenate(columns[name]), type=column_type)
        for name, column_type in types.items()
    }
    header = {"format": format, "about": json.dumps(about, sort_keys=True)}
    with whole_file(path) as partial:
        pq.write_table(pa.table(arrays).replace_schema_metadata(header), partial)


def _read(
    path: Path, format: str, kind: str, types: dict[str, pa.DataType], about_keys: list[str]
) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not a readable {kind} file: {error}") from error
    header = table.schema.metadata or {}
    if header.get(b"format") != format.encode():
        raise ArtifactError(
            f"{path}: a Parquet file, but not a {kind} file of this version (expected {format!r})"
        )
    try:
        table = table.select(list(types)).cast(pa.schema(types))
        about = json.loads(header[b"about"])
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: a {kind} file with damaged columns: {error}") from error
    # A missing confidence or time is refused with those that cannot be.
    if any(table[name].null_count for name in types if not pa.types.is_floating(types[name])):
        raise ArtifactError(f"{path}: a {kind} file with gaps in its columns")
    missing = [key for key in about_keys if not isinstance(about, dict) or key not in about]
    if missing:
        raise ArtifactError(f"{path}: a {kind} file that does not name its {' and '.join(missing)}")
    return table, about

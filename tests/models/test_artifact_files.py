"""Profiles and predictions in files: what is written comes back; what is damaged is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from tiny_networks import examples

from models.artifacts import (
    MEASUREMENTS,
    Predictions,
    Profile,
    read_predictions,
    read_profile,
    write_predictions,
    write_profile,
)
from models.errors import ArtifactError

PROFILE_ABOUT = {
    "architecture": "0123456789abcdef",
    "exits": [
        {"exit": 1, "node": "layer1", "parameters": 10, "flops": 2000, "state_bytes": 64},
        {"exit": 2, "node": "", "parameters": 30, "flops": 5000, "state_bytes": 0},
    ],
    "host": {"cores": 4, "board": "Pi"},
}
PREDICTIONS_ABOUT = {"architecture": "0123456789abcdef", "dataset": "digits", "seed": 3}


def a_profile(batch_sizes=(1, 8), inferences=3, exits=2):
    """A profile in which every time is another."""
    generator = np.random.default_rng(0)
    return Profile(
        {
            batch_size: {name: generator.random((inferences, exits)) + 0.1 for name in MEASUREMENTS}
            for batch_size in batch_sizes
        },
        PROFILE_ABOUT,
    )


def some_predictions(samples=4, exits=3):
    generator = np.random.default_rng(0)
    return Predictions(
        sample=np.arange(100, 100 + samples, dtype=np.int32),
        label=(np.arange(samples) % 10).astype(np.int32),
        predicted=generator.integers(0, 10, (samples, exits)).astype(np.int32),
        confidence=generator.random((samples, exits)).astype(np.float32),
        about=PREDICTIONS_ABOUT,
    )


def rewrite(path, change):
    """Change the table of a file, or its metadata by returning ``(table, metadata)``."""
    table = pq.read_table(path)
    result = change(table)
    changed, metadata = result if isinstance(result, tuple) else (result, table.schema.metadata)
    pq.write_table(changed.replace_schema_metadata(metadata), path)


def without_rows(**values):
    """A change that drops the rows with all these values."""

    def change(table):
        matching = None
        for name, value in values.items():
            equal = pc.equal(table[name], value)
            matching = equal if matching is None else pc.and_(matching, equal)
        assert pc.sum(matching).as_py(), "some rows are dropped"
        return table.filter(pc.invert(matching))

    return change


def with_value(name, row, value):
    """A change that puts ``value`` into one place."""

    def change(table):
        values = table[name].to_pylist()
        values[row] = value
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, pa.array(values, table.schema.field(name).type))

    return change


def with_about(text):
    """A change that writes ``text`` where the description stands; None leaves it out."""

    def change(table):
        metadata = {b"format": table.schema.metadata[b"format"]}
        return table, metadata if text is None else metadata | {b"about": text.encode()}

    return change


def refusal(read, path):
    """The message of the error that reading ``path`` ends in; it names the file."""
    with pytest.raises(ArtifactError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "profile.parquet"
    write_profile(path, a_profile())
    return path


@pytest.fixture
def predictions(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, some_predictions())
    return path


# --- round trips ---------------------------------------------------------------------------------


@st.composite
def profiles(draw):
    exits = draw(st.integers(1, 4))
    times = st.floats(1e-9, 1e6)
    return Profile(
        {
            batch_size: {
                name: draw(arrays_of.arrays(np.float64, (inferences, exits), elements=times))
                for name in MEASUREMENTS
            }
            for batch_size, inferences in draw(
                st.dictionaries(st.integers(1, 64), st.integers(1, 5), min_size=1, max_size=3)
            ).items()
        },
        PROFILE_ABOUT,
    )


@given(written=profiles())
@examples(40)
def test_a_profile_comes_back_as_it_was(written, tmp_path_factory):
    path = tmp_path_factory.mktemp("profiles") / "profile.parquet"
    write_profile(path, written)
    read = read_profile(path)
    assert read.about == written.about
    assert read.seconds.keys() == written.seconds.keys()
    for batch_size, measured in written.seconds.items():
        assert read.seconds[batch_size].keys() == set(MEASUREMENTS)
        for name, times in measured.items():
            assert np.array_equal(read.seconds[batch_size][name], times)
    assert read.exit_count == written.exit_count
    assert read.architecture == "0123456789abcdef"


@st.composite
def predictions_of_anything(draw):
    samples, exits = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    whole = st.integers(0, 2**31 - 1)
    return Predictions(
        sample=draw(arrays_of.arrays(np.int32, samples, elements=whole)),
        label=draw(arrays_of.arrays(np.int32, samples, elements=whole)),
        predicted=draw(arrays_of.arrays(np.int32, (samples, exits), elements=whole)),
        confidence=draw(
            arrays_of.arrays(np.float32, (samples, exits), elements=st.floats(0, 1, width=32))
        ),
        about=PREDICTIONS_ABOUT | {"strategy": draw(st.text(max_size=20))},
    )


@given(written=predictions_of_anything())
@examples(60)
def test_predictions_come_back_as_they_were(written, tmp_path_factory):
    path = tmp_path_factory.mktemp("predictions") / "predictions.parquet"
    write_predictions(path, written)
    read = read_predictions(path)
    for name in ("sample", "label", "predicted", "confidence"):
        before, after = getattr(written, name), getattr(read, name)
        assert np.array_equal(after, before)
        assert after.dtype == before.dtype
    assert read.about == written.about
    assert read.exit_count == written.exit_count
    assert read.architecture == "0123456789abcdef"


def test_a_profile_has_a_row_for_each_time_and_a_column_for_what_it_is(profile):
    table = pq.read_table(profile)
    # Two batch sizes, three measurements, three inferences, two exits.
    assert len(table) == 2 * 3 * 3 * 2
    row = pc.and_(
        pc.and_(pc.equal(table["measurement"], "branch"), pc.equal(table["batch_size"], 8)),
        pc.and_(pc.equal(table["exit"], 2), pc.equal(table["inference"], 1)),
    )
    assert table.filter(row)["seconds"].to_pylist() == [a_profile().seconds[8]["branch"][1, 1]]


def test_predictions_have_a_row_for_each_sample_and_exit(predictions):
    rows = pq.read_table(predictions).to_pylist()
    written = some_predictions()
    assert len(rows) == 4 * 3
    assert rows[3 * 2 + 1] == {
        "sample": 102,
        "exit": 2,
        "label": 2,
        "predicted": written.predicted[2, 1],
        "confidence": written.confidence[2, 1],
    }


def test_the_same_content_makes_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_profile(tmp_path / f"{name}.profile", a_profile())
        write_predictions(tmp_path / f"{name}.predictions", some_predictions())
    for kind in ("profile", "predictions"):
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_a_file_may_be_copied_into_a_folder_of_any_name(profile, predictions, tmp_path):
    # Parquet readers take folders called key=value for columns, unless told otherwise.
    folder = tmp_path / "exit=2" / "seed=3"
    folder.mkdir(parents=True)
    for path in (profile, predictions):
        path.rename(folder / path.name)
    assert read_profile(folder / profile.name).exit_count == 2
    assert read_predictions(folder / predictions.name).exit_count == 3


# --- accuracy ------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_samples_that_each_exit_gets_right():
    said = Predictions(
        sample=np.arange(4, dtype=np.int32),
        label=np.array([3, 1, 4, 1], dtype=np.int32),
        predicted=np.array([[3, 3, 3], [0, 1, 1], [0, 4, 4], [0, 0, 1]], dtype=np.int32),
        confidence=np.ones((4, 3), dtype=np.float32),
        about=PREDICTIONS_ABOUT,
    )
    assert said.accuracy().tolist() == [0.25, 0.75, 1.0]


# --- files that are something else ---------------------------------------------------------------

READERS = pytest.mark.parametrize(
    ("read", "kind"), [(read_profile, "profile"), (read_predictions, "predictions")]
)


@READERS
def test_a_missing_file(read, kind, tmp_path):
    assert f"not a readable {kind} file" in refusal(read, tmp_path / "none.parquet")


@READERS
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01, 0], ids=str)
def test_a_truncated_file(read, kind, kept, profile, predictions):
    path = {"profile": profile, "predictions": predictions}[kind]
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert f"not a readable {kind} file" in refusal(read, path)


@READERS
def test_a_text_file(read, kind, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("exit,seconds\n1,0.5\n")
    assert f"not a readable {kind} file" in refusal(read, path)


@READERS
def test_a_folder(read, kind, tmp_path):
    refusal(read, tmp_path)


@READERS
def test_a_foreign_parquet_file(read, kind, tmp_path):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"exit": [1, 2], "seconds": [0.1, 0.2]}), path)
    assert f"not a {kind} file" in refusal(read, path)


def test_one_kind_is_not_taken_for_the_other(profile, predictions):
    assert "not a predictions file" in refusal(read_predictions, profile)
    assert "not a profile file" in refusal(read_profile, predictions)


@pytest.mark.parametrize(
    ("read", "kind", "version", "others"),
    [(read_profile, "profile", 2, (1, 3)), (read_predictions, "predictions", 1, (2,))],
)
def test_another_version_of_the_format(read, kind, version, others, profile, predictions):
    path = {"profile": profile, "predictions": predictions}[kind]
    for other in others:
        rewrite(
            path,
            lambda table, other=other: (
                table,
                table.schema.metadata | {b"format": f"offramp-{kind}-{other}".encode()},
            ),
        )
        assert f"expected 'offramp-{kind}-{version}'" in refusal(read, path)


@READERS
@pytest.mark.parametrize("text", [None, "{", "3", "null", "[]", "{}"], ids=str)
def test_a_file_that_does_not_say_what_it_is_about(read, kind, text, profile, predictions):
    path = {"profile": profile, "predictions": predictions}[kind]
    rewrite(path, with_about(text))
    refusal(read, path)


@pytest.mark.parametrize("missing", ["architecture", "exits", "host"])
def test_a_profile_names_its_architecture_exits_and_host(profile, missing):
    about = {key: value for key, value in PROFILE_ABOUT.items() if key != missing}
    rewrite(profile, with_about(json.dumps(about)))
    assert f"does not name its {missing}" in refusal(read_profile, profile)


@pytest.mark.parametrize("missing", ["architecture", "dataset"])
def test_predictions_name_their_architecture_and_dataset(predictions, missing):
    about = {key: value for key, value in PREDICTIONS_ABOUT.items() if key != missing}
    rewrite(predictions, with_about(json.dumps(about)))
    assert f"does not name its {missing}" in refusal(read_predictions, predictions)


# --- damaged columns -----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, -0.001, float("nan"), float("inf")], ids=str)
def test_times_are_positive_and_finite(profile, seconds):
    rewrite(profile, with_value("seconds", 5, seconds))
    assert "positive and finite" in refusal(read_profile, profile)


def test_a_profile_needs_times(profile):
    rewrite(profile, lambda table: table.slice(0, 0))
    assert "needs times" in refusal(read_profile, profile)


@pytest.mark.parametrize("column", ["measurement", "exit", "batch_size", "inference", "seconds"])
def test_a_profile_without_one_of_its_columns(profile, column):
    rewrite(profile, lambda table: table.drop_columns([column]))
    assert "damaged columns" in refusal(read_profile, profile)


@pytest.mark.parametrize("column", ["sample", "exit", "label", "predicted", "confidence"])
def test_predictions_without_one_of_their_columns(predictions, column):
    rewrite(predictions, lambda table: table.drop_columns([column]))
    assert "damaged columns" in refusal(read_predictions, predictions)


@pytest.mark.parametrize(
    "change",
    [
        without_rows(measurement="segment", batch_size=8, inference=1, exit=2),
        without_rows(measurement="segment", batch_size=8, exit=2),
        without_rows(measurement="branch", batch_size=8),
        without_rows(measurement="exit"),
    ],
    ids=["one time", "one exit", "one measurement of one batch size", "one measurement"],
)
def test_an_incomplete_profile(profile, change):
    rewrite(profile, change)
    assert "incomplete" in refusal(read_profile, profile)


def test_segments_and_branches_of_one_inference_stay_together(profile):
    # Without the segments of inference 0, row 0 of the segments would belong to inference 1,
    # and row 0 of the branches to inference 0.
    rewrite(profile, without_rows(measurement="segment", batch_size=8, inference=0))
    assert "incomplete" in refusal(read_profile, profile)


def test_a_profile_may_miss_whole_inferences(profile):
    rewrite(profile, without_rows(batch_size=8, inference=1))
    read, written = read_profile(profile), a_profile()
    for name in MEASUREMENTS:
        assert np.array_equal(read.seconds[8][name], written.seconds[8][name][[0, 2]])
        assert np.array_equal(read.seconds[1][name], written.seconds[1][name])


@pytest.mark.parametrize(
    ("column", "value"),
    [("exit", 0), ("exit", None), ("inference", -1), ("inference", None), ("seconds", None)],
    ids=str,
)
def test_exits_and_inferences_of_a_profile_are_whole_numbers_from_their_start(
    profile, column, value
):
    rewrite(profile, with_value(column, 0, value))
    refusal(read_profile, profile)


@pytest.mark.parametrize(
    ("column", "value"),
    [("exit", 1), ("exit", 0), ("exit", -1), ("inference", -1)],
    ids=str,
)
def test_no_time_of_a_profile_silently_replaces_another(profile, column, value):
    # One row too many: a repeated one, or one that would count from the end.
    rewrite(
        profile,
        lambda table: pa.concat_tables([table, with_value(column, 0, value)(table).slice(0, 1)]),
    )
    refusal(read_profile, profile)


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan"), None], ids=str)
def test_confidences_lie_between_0_and_1(predictions, confidence):
    rewrite(predictions, with_value("confidence", 4, confidence))
    assert "between 0 and 1" in refusal(read_predictions, predictions)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(1),
        lambda table: table.slice(0, len(table) - 1),
        lambda table: table.take([1, 0, *range(2, len(table))]),
        without_rows(exit=2),
        lambda table: table.slice(0, 0),
    ],
    ids=["first row missing", "last row missing", "out of order", "an exit missing", "no rows"],
)
def test_every_sample_needs_every_exit_in_order(predictions, change):
    rewrite(predictions, change)
    assert "one prediction from each exit" in refusal(read_predictions, predictions)


@pytest.mark.parametrize("column", ["sample", "label"])
def test_the_rows_of_one_sample_agree_on_its_number_and_label(predictions, column):
    rewrite(predictions, with_value(column, 4, 77))
    refusal(read_predictions, predictions)


@pytest.mark.parametrize("column", ["sample", "exit", "label", "predicted"])
def test_predictions_have_no_gaps(predictions, column):
    rewrite(predictions, with_value(column, 4, None))
    refusal(read_predictions, predictions)


# --- whole or not at all -------------------------------------------------------------------------


def test_writing_that_fails_leaves_the_file_before_and_nothing_else(profile, monkeypatch):
    before = profile.read_bytes()

    def full_disk(table, path):
        path.write_bytes(b"PAR1")
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_profile(profile, a_profile(inferences=9))
    assert profile.read_bytes() == before
    assert list(profile.parent.iterdir()) == [profile]

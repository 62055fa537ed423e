"""Published scores: those of a whole file are taken at the index; any other file is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import examples

from models.data.published_scores import scores_from_file
from models.errors import DataError

SCORES = [0.5, 1.0, 0.25, 0.0, 0.125]
INDEX = np.array([4, 1, 2])

KINDS = ["scores.npz", "compressed.npz", "scores.npy", "scores.csv"]


def a_file(folder, name=KINDS[0], values=SCORES):
    """A file with ``values``, in the format that ``name`` says."""
    path = folder / name
    if name == "compressed.npz":
        np.savez_compressed(path, scores=values, labels=[0, 1])
    elif path.suffix == ".npz":
        np.savez(path, scores=values, labels=[0, 1])
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        path.write_text("".join(f"{value}\n" for value in values))
    return path


def read(path, key="scores", index=INDEX):
    return scores_from_file(path, key, index, 5)


def refused(path, key="scores"):
    """The message with which a file is refused; it is one line and names the file."""
    with pytest.raises(DataError) as caught:
        read(path, key)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "pickle.load" not in message, "nobody is told to trust it"
    return message


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_taken_at_the_index_in_its_order(tmp_path, name):
    scores = read(a_file(tmp_path, name))
    assert scores.tolist() == [0.125, 1.0, 0.25]
    assert scores.dtype == np.float64


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i4", "u1"])
def test_numbers_of_any_type_are_scores(tmp_path, dtype):
    scores = read(a_file(tmp_path, "scores.npy", np.array([4, 0, 1, 2, 3], dtype=dtype)))
    assert scores.tolist() == [3, 0, 1]
    assert scores.dtype == np.float64


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@examples(50)
def test_every_format_gives_back_every_float(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("formats")
    for name in KINDS:
        path = a_file(folder, name, values)
        scores = scores_from_file(path, "scores", np.arange(len(values)), len(values))
        assert scores.tolist() == values


@pytest.mark.parametrize(
    "text",
    [
        "c_score\n0.5\n1\n0.25\n0\n0.125\n",
        "0.5\r\n1\r\n0.25\r\n0\r\n0.125",
        "\ufeff0.5\n1e0\n 0.25 \n-0\n.125\n\n",
    ],
)
def test_a_csv_file_may_have_a_heading_and_any_line_ends(tmp_path, text):
    path = tmp_path / "SCORES.CSV"
    path.write_bytes(text.encode())
    assert read(path).tolist() == [0.125, 1.0, 0.25]


# --- what is refused -----------------------------------------------------------------------------


def test_a_wrong_key_is_answered_with_the_nearest_and_all(tmp_path):
    message = refused(a_file(tmp_path), "score")
    assert "has no array 'score'; did you mean 'scores'? (it has: scores, labels)" in message


def test_an_npz_file_needs_a_key_and_the_others_none(tmp_path):
    assert "it has: scores, labels" in refused(a_file(tmp_path), None)
    for name in ("scores.npy", "scores.csv"):
        assert len(read(a_file(tmp_path, name), None)) == 3


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [0, 4, 6])
def test_another_number_of_scores_than_of_official_images_is_refused(tmp_path, name, count):
    message = refused(a_file(tmp_path, name, [0.5] * count))
    assert f"holds {count} values, but 5 values are expected" in message


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_position(tmp_path, name, missing):
    # Position 3 is not in the index: the whole file must be whole.
    message = refused(a_file(tmp_path, name, [0.5, 1, 0.25, missing, 0.125]))
    assert f"holds {missing} at position 3" in message


@pytest.mark.parametrize("name", ["scores.npz", "scores.npy"])
def test_pickled_objects_are_refused(tmp_path, name):
    path = a_file(tmp_path, name, np.array(SCORES, dtype=object))
    assert "Object arrays cannot be loaded" in refused(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5\n1\n0.25,0\n0\n0.125\n", "line 3 is '0.25,0'"),
        ("index,score\n0,0.5\n1,1\n", "line 2 is '0,0.5'"),
        ("0,5\n1,0\n", "line 2 is '1,0'"),
        ("0.5\nhard\n", "line 2 is 'hard'"),
    ],
)
def test_a_csv_line_that_is_not_one_number_is_named(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    assert message in refused(path)


def test_a_file_with_an_endless_header_is_refused_without_advice_to_trust_it(tmp_path):
    path = tmp_path / "scores.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + (99_999).to_bytes(4, "little") + b" " * 99_999)
    assert "Header info length" in refused(path)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"<html>Not found</html>", b"PK\x03\x04", b"\x93NUMPY", b"\xff" * 99]
)
def test_a_foreign_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(
    ("content", "name"), [("scores.npz", "scores.npy"), ("scores.npy", "scores.npz")]
)
def test_one_numpy_format_under_the_name_of_the_other_is_refused(tmp_path, content, name):
    data = a_file(tmp_path, content).read_bytes()
    path = tmp_path / name
    path.write_bytes(data)
    assert "not a readable" in refused(path)


def test_a_folder_a_missing_file_and_an_unknown_format_are_refused(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    assert "not a readable .npy file" in refused(tmp_path / "folder.npy")
    assert refused(tmp_path / "missing.csv").endswith("no such file")
    assert "must end in .npz or .npy or .csv" in refused(tmp_path / "scores.json")


@pytest.mark.parametrize("name", ["scores.npz", "compressed.npz", "scores.npy"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, name):
    path = a_file(tmp_path, name)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_csv_file_cut_off_at_a_line_is_refused(tmp_path):
    path = a_file(tmp_path, "scores.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "holds 4 values" in refused(path)


@pytest.mark.parametrize("name", ["scores.npz", "compressed.npz", "scores.npy"])
def test_a_damaged_byte_is_refused_or_harmless_and_never_another_error(tmp_path, name):
    path = a_file(tmp_path, name)
    whole = path.read_bytes()
    refusals = 0
    for position in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            try:
                scores = read(path)
            except DataError:
                refusals += 1
            else:
                # Only archives have checksums.
                assert path.suffix == ".npy" or scores.tolist() == [0.125, 1.0, 0.25]
    assert refusals > len(whole) / 2

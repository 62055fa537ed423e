"""Files are written whole or not at all."""

import stat

import pytest

from models.files import try_to_write, whole_file, write_text


def test_the_file_appears_only_when_the_block_is_done(tmp_path):
    path = tmp_path / "result.csv"
    with whole_file(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "result.csv"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def fail_halfway(path, failure):
    """Write half of ``path``, then fail."""
    with whole_file(path) as partial:
        partial.write_text("half")
        raise failure


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "result.csv"
    path.write_text("old")
    with pytest.raises(failure):
        fail_halfway(path, failure)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(ValueError, match="on purpose"):
        fail_halfway(tmp_path / "result.csv", ValueError("on purpose"))
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_removes_its_file_fails_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "result.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), whole_file(path) as partial:
        partial.unlink()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_partial_file_lies_beside_with_the_same_suffix_and_out_of_sight(tmp_path):
    path = tmp_path / "figure.pdf"
    with whole_file(path) as partial:
        assert partial.parent == path.parent, "a rename within one file system is atomic"
        assert partial.suffix == ".pdf", "writers choose the format by it"
        assert partial.name.startswith(".")


def test_two_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "result.csv"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    # The inner block ends first, so the outer one has the last word.
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_others_may_read(tmp_path):
    path = tmp_path / "a" / "b" / "result.csv"
    write_text(path, "done")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "table.tex", "0.78 ± 0.04\n")
    assert (tmp_path / "table.tex").read_bytes() == b"0.78 \xc2\xb1 0.04\n"


# --- whether a folder can be written to ----------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b"], ids=["there", "to be made"])
def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path, name):
    try_to_write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/a/b"])
def test_a_file_where_a_folder_should_be_is_found_out_beforehand(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotADirectoryError, match="file is a file"):
        try_to_write(tmp_path / name)

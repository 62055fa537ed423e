"""The store: an artefact is there whole or not at all, and is found by what it was made from."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.host import host_facts
from offramp.store import Store, content_key, default_root, file_hash

MADE_FROM = {"steps": 5, "seed": 1}


@pytest.fixture
def own(tmp_path: Path) -> Store:
    return Store(tmp_path / "own")


def make(store: Store, text: str = "weights", **made_from: object) -> Path:
    with store.make("trained", {**MADE_FROM, **made_from}) as folder:
        (folder / "weights.bin").write_text(text)
        (folder / "more.txt").write_text("more")
    return store.path("trained", {**MADE_FROM, **made_from})


def test_what_was_made_is_found_with_its_files(own: Store) -> None:
    assert own.find("trained", MADE_FROM) is None
    folder = make(own)
    assert own.find("trained", MADE_FROM) == folder == own.path("trained", MADE_FROM)
    assert sorted(file.name for file in folder.iterdir()) == [
        "artifact.json",
        "more.txt",
        "weights.bin",
    ]


def test_an_artefact_says_what_it_was_made_from_and_the_hash_of_each_file(own: Store) -> None:
    folder = make(own)
    description = json.loads((folder / "artifact.json").read_text())
    assert description == {
        "kind": "trained",
        "made_from": MADE_FROM,
        "made_on": host_facts(),
        "files": {name: file_hash(folder / name) for name in ("more.txt", "weights.bin")},
    }


def test_other_content_or_another_kind_is_another_artefact(own: Store) -> None:
    folder = make(own)
    assert own.find("trained", {**MADE_FROM, "steps": 6}) is None
    assert own.find("profile", MADE_FROM) is None
    assert make(own, steps=6) != folder


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_what_fails_on_the_way_leaves_nothing(own: Store, error: BaseException) -> None:
    def fail() -> None:
        with own.make("trained", MADE_FROM) as folder:
            (folder / "weights.bin").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert own.find("trained", MADE_FROM) is None
    assert list((own.root / "trained").iterdir()) == []


def test_nobody_finds_an_artefact_before_it_is_whole(own: Store) -> None:
    with own.make("trained", MADE_FROM) as folder:
        (folder / "weights.bin").write_text("half")
        assert own.find("trained", MADE_FROM) is None
    assert own.find("trained", MADE_FROM)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte changed": lambda folder: (folder / "weights.bin").write_text("Weights"),
    "truncated": lambda folder: (folder / "weights.bin").write_text("weig"),
    "a file gone": lambda folder: (folder / "more.txt").unlink(),
    "description gone": lambda folder: (folder / "artifact.json").unlink(),
    "description truncated": lambda folder: (folder / "artifact.json").write_text('{"files": {"w'),
    "description empty": lambda folder: (folder / "artifact.json").write_text("{}"),
    "description a list": lambda folder: (folder / "artifact.json").write_text("[]"),
    "description binary": lambda folder: (folder / "artifact.json").write_bytes(b"\xff\xfe"),
    "files a list": lambda folder: (folder / "artifact.json").write_text('{"files": ["a"]}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_artefact_is_not_found_and_is_replaced(
    own: Store, damage: Callable[[Path], object]
) -> None:
    folder = make(own)
    damage(folder)
    assert own.find("trained", MADE_FROM) is None
    make(own, "again")
    assert own.find("trained", MADE_FROM) == folder
    assert (folder / "weights.bin").read_text() == "again"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_file_in_an_artefacts_place_gives_way(own: Store) -> None:
    own.path("trained", MADE_FROM).parent.mkdir(parents=True)
    own.path("trained", MADE_FROM).write_text("a stray file")
    folder = make(own)
    assert own.find("trained", MADE_FROM) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_whole_artefact_is_not_replaced_by_another_that_is_as_good(own: Store) -> None:
    folder = make(own, "first")
    assert make(own, "second") == folder
    assert (folder / "weights.bin").read_text() == "first"
    assert own.find("trained", MADE_FROM) == folder


def test_of_two_makers_the_later_finds_the_copy_of_the_earlier(own: Store) -> None:
    with own.make("trained", MADE_FROM) as slow:
        (slow / "weights.bin").write_text("slow")
        make(own, "fast")
    folder = own.path("trained", MADE_FROM)
    assert own.find("trained", MADE_FROM) == folder
    assert (folder / "weights.bin").read_text() == "fast"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("damaged", [False, True], ids=["nothing there", "a damaged one there"])
def test_many_makers_at_once_are_all_content(own: Store, damaged: bool) -> None:
    if damaged:
        (make(own) / "weights.bin").unlink()
    makers = 8
    barrier = threading.Barrier(makers)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with own.make("trained", MADE_FROM) as folder:
                (folder / "weights.bin").write_text(str(number))
                barrier.wait(timeout=30)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(makers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    folder = own.find("trained", MADE_FROM)
    assert folder
    assert (folder / "weights.bin").read_text() in map(str, range(makers))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_discarding_removes_one_artefact_and_is_content_with_none(own: Store) -> None:
    make(own)
    other = make(own, steps=6)
    own.discard("trained", MADE_FROM)
    own.discard("trained", MADE_FROM)
    assert own.find("trained", MADE_FROM) is None
    assert own.find("trained", {**MADE_FROM, "steps": 6}) == other


def test_an_artefact_that_is_made_anew_stays_until_it_is(own: Store) -> None:
    before = make(own)

    def interrupted() -> None:
        with own.anew("trained", MADE_FROM):
            assert own.find("trained", MADE_FROM) is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert own.find("trained", MADE_FROM) == before
    with own.anew("trained", MADE_FROM):
        make(own)
    assert own.find("trained", MADE_FROM) == before
    assert [path.name for path in before.parent.iterdir()] == [before.name]
    with own.anew("trained", {**MADE_FROM, "steps": 7}):
        make(own, steps=7)
    assert own.find("trained", {**MADE_FROM, "steps": 7}) is not None


def test_a_store_can_be_moved(own: Store, tmp_path: Path) -> None:
    make(own)
    moved = Store(Path(shutil.move(own.root, tmp_path / "moved")))
    assert moved.find("trained", MADE_FROM) == moved.path("trained", MADE_FROM)


def test_what_a_killed_process_left_is_removed_after_days_and_no_earlier(own: Store) -> None:
    folder = make(own).parent
    abandoned, running = folder / ".partial-old", folder / ".partial-new"
    abandoned.mkdir()
    running.mkdir()
    (abandoned / "half").write_text("half")
    ten_days_ago = time.time() - 10 * 24 * 3600
    os.utime(abandoned, (ten_days_ago, ten_days_ago))
    make(own, steps=6)
    assert not abandoned.exists()
    assert running.exists()


@pytest.mark.parametrize("place", ["store", "store/below"])
def test_a_store_that_cannot_be_written_is_one_clear_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    store = Store(tmp_path / place)
    assert store.find("trained", MADE_FROM) is None
    with pytest.raises(ArtifactError, match="cannot write to the artefact store") as raised:
        make(store)
    assert str(tmp_path / place) in str(raised.value)
    assert (tmp_path / "store").read_text() == "a file"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=4))
@settings(derandomize=True, database=None, deadline=None, max_examples=60)
def test_a_key_depends_on_the_content_and_not_on_its_order(made_from: dict[str, object]) -> None:
    backwards = dict(reversed(made_from.items()))
    assert content_key(made_from) == content_key(backwards)
    assert content_key(made_from) == content_key(json.loads(json.dumps(made_from)))
    assert content_key(made_from) != content_key({**made_from, "one more key": 1})


def test_a_key_is_the_same_in_every_process() -> None:
    assert content_key({"b": [1, 2.5], "a": None}) == "e57f5d37865437a82e1108ba"


def test_the_default_store_is_the_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OFFRAMP_STORE", str(tmp_path / "named"))
    assert default_root() == tmp_path / "named"
    monkeypatch.delenv("OFFRAMP_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_root().name == "store"
    assert "offramp" in default_root().parts

"""Files and artefacts that workers without the driver's disk are sent."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError, ResultsError
from models.importing import import_callable
from models.networks.architecture import code_hash
from offramp.experiment import user_file
from offramp.store import DESCRIPTION, Store, content_key
from offramp.sweep import shipping
from offramp.sweep.mirror import Mirror, MissingBlobsError
from offramp.sweep.shipping import Packer, named_by, pack_artefact, unpack_artefact

POLICY = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import {beside}
def build(): return {beside}.TEXT
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario's folder, with files in it and elsewhere, each of another content."""
    folder = tmp_path / "driver" / "scenarios"
    for path in ("scenarios/traces/a.csv", "home/h.csv", "shared/s.csv", "above.csv"):
        file = tmp_path / "driver" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (folder / "own.py").write_text(POLICY.format(beside="beside_own"))
    (folder / "beside_own.py").write_text("TEXT = 'first'")
    monkeypatch.setenv("HOME", str(tmp_path / "driver/home"))
    monkeypatch.setenv("SHARED_BY_ALL", str(tmp_path / "driver/shared"))
    return folder


def names_of(folder: Path) -> dict[str, str]:
    """Names in a scenario, and what the files hold."""
    return {
        "traces/a.csv": "scenarios/traces/a.csv",
        "~/h.csv": "home/h.csv",
        "$SHARED_BY_ALL/s.csv": "shared/s.csv",
        "../above.csv": "above.csv",
        str(folder / "traces/a.csv"): "scenarios/traces/a.csv",
    }


def bring(packer: Packer, mirror: Mirror, blobs: list[str]) -> None:
    for number, pieces in enumerate(packer.pieces(blobs)):
        mirror.take_in(pieces, f"test{number // 1000}")


def elsewhere(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    """As on another machine: other folders, other variables, and nothing of the driver's."""
    shutil.rmtree(driver.parent)
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("SHARED_BY_ALL")


def test_every_name_finds_its_file_on_a_machine_where_it_leads_nowhere(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = names_of(driver)
    packer, mirror = Packer(driver, tmp_path / "store"), Mirror(tmp_path / "mirror")
    layout = packer.layout(packer.files({"links": [{"file": name} for name in names]}))
    bring(packer, mirror, list(layout.values()))
    elsewhere(monkeypatch, driver)
    folder = mirror.folder(layout)
    assert {name: user_file(name, folder).read_text() for name in names} == names


def test_code_comes_with_the_code_beside_it_and_keeps_its_name(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = ["own.py:build", f"{driver}/own.py:build", "../scenarios/own.py:build"]
    hashes = [code_hash(reference, driver) for reference in references]
    packer, mirror = Packer(driver, tmp_path / "store"), Mirror(tmp_path / "mirror")
    layout = packer.layout(packer.files(references))
    bring(packer, mirror, list(layout.values()))
    elsewhere(monkeypatch, driver)
    folder = mirror.folder(layout)
    monkeypatch.setattr("sys.path", ["/nothing"])
    assert [import_callable(reference, folder)() for reference in references] == ["first"] * 3
    assert [code_hash(reference, folder) for reference in references] == hashes != ["", "", ""]


def test_a_package_beside_the_code_comes_where_it_is_imported(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = POLICY.format(beside="own_pack.part")
    (driver / "with_pack.py").write_text(code)
    for package in ("own_pack", "other_pack"):
        (driver / package).mkdir()
        (driver / package / "__init__.py").write_text("")
        (driver / package / "part.py").write_text("TEXT = 'packed'")
    expected = code_hash("with_pack.py:build", driver)
    packer, mirror = Packer(driver, tmp_path / "store"), Mirror(tmp_path / "mirror")
    layout = packer.layout(packer.files(["with_pack.py:build"]))
    bring(packer, mirror, list(layout.values()))
    elsewhere(monkeypatch, driver)
    folder = mirror.folder(layout)
    monkeypatch.setattr("sys.path", ["/nothing"])
    assert import_callable("with_pack.py:build", folder)() == "packed"
    assert code_hash("with_pack.py:build", folder) == expected
    assert not [name for name in layout if "other_pack" in name], "nobody imports it"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fixed_exit",
        "no such file",
        "$NOT_SET/x",
        "x" * 5000,
        "a\0b",
        ".",
        "traces",
        "numpy:array",
    ],
)
def test_texts_that_name_no_file_bring_nothing(driver: Path, text: str) -> None:
    assert list(named_by(text, driver)) == []


def test_files_are_found_at_any_depth_in_data_and_values(driver: Path, tmp_path: Path) -> None:
    packer = Packer(driver, tmp_path)
    found = packer.files({"a": [{"b": "traces/a.csv"}], "traces/a.csv": 1}, [(3, ("~/h.csv",))])
    assert sorted(path.name for path in found.values()) == ["a.csv", "h.csv"]


def test_large_and_empty_files_arrive_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "PIECE_BYTES", 7)
    contents = [b"", b"seven b", b"more than seven bytes of it", b"x"]
    packer, mirror = Packer(tmp_path, tmp_path), Mirror(tmp_path / "mirror")
    blobs = [packer.add(content) for content in contents]
    sizes = [sum(len(it.content) for it in pieces) for pieces in packer.pieces(blobs)]
    assert max(sizes) <= 7
    bring(packer, mirror, blobs)
    assert [mirror.read(blob) for blob in blobs] == contents
    assert mirror.blobs() == set(blobs)


def test_a_blob_that_is_damaged_on_the_way_is_refused(tmp_path: Path) -> None:
    packer, mirror = Packer(tmp_path, tmp_path), Mirror(tmp_path / "mirror")
    blob = packer.add(b"content")
    (piece,) = next(packer.pieces([blob]))
    with pytest.raises(ArtifactError, match="not what was sent"):
        mirror.take_in([replace(piece, content=b"c0ntent")], "test")
    assert mirror.blobs() == frozenset()


def test_what_was_cleared_from_a_mirror_or_damaged_there_is_asked_for_again(
    driver: Path, tmp_path: Path
) -> None:
    packer, root = Packer(driver, tmp_path), tmp_path / "mirror"
    layout = packer.layout(packer.files("traces/a.csv", "~/h.csv"))
    first, second = layout.values()
    bring(packer, Mirror(root), [first, second])
    (root / "blobs" / first).unlink()
    (root / "blobs" / second).write_text("damaged")
    with pytest.raises(MissingBlobsError) as missing:
        Mirror(root).folder(layout)
    assert missing.value.blobs == {first, second}
    bring(packer, Mirror(root), [first, second])
    assert (Mirror(root).folder(layout) / "traces/a.csv").read_text() == "scenarios/traces/a.csv"


def test_a_file_that_changes_while_the_sweep_runs_is_told(driver: Path, tmp_path: Path) -> None:
    packer = Packer(driver, tmp_path)
    layout = packer.layout(packer.files("traces/a.csv"))
    (driver / "traces/a.csv").write_text("other")
    with pytest.raises(ResultsError, match=r"a\.csv was changed while the sweep was running"):
        list(packer.pieces(layout.values()))


# --- artefacts -----------------------------------------------------------------------------------


def make(root: Path, made_from: dict[str, Any], content: bytes) -> tuple[str, str]:
    with Store(root).make("trained", made_from) as folder:
        (folder / "content").write_bytes(content)
    return "trained", content_key(made_from)


def test_a_mirror_has_the_drivers_artefact_even_where_it_made_another(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    artefact = make(tmp_path / "store", {"seed": 1}, b"the driver's")
    make(mirror.store_root, {"seed": 1}, b"the worker's")
    packer = Packer(tmp_path, tmp_path / "store")
    layout = packer.artefact(artefact)
    bring(packer, mirror, list(layout.values()))
    assert not mirror.place_artefact(artefact, layout)
    found = Store(mirror.store_root).at(*artefact)
    assert found
    assert (found / "content").read_bytes() == b"the driver's"


def test_a_worker_learns_that_an_artefact_has_another_content_now(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    changed = []
    for content in (b"one", b"one", b"two"):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        artefact = make(tmp_path / "store", {"seed": 1}, content)
        packer = Packer(tmp_path, tmp_path / "store")
        layout = packer.artefact(artefact)
        bring(packer, mirror, list(layout.values()))
        changed.append(mirror.place_artefact(artefact, layout))
    assert changed == [False, False, True]


def test_an_artefact_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="damaged or gone"):
        Packer(tmp_path, tmp_path).artefact(("trained", "0" * 24))


def test_what_a_worker_made_comes_home_as_it_was_made(tmp_path: Path) -> None:
    artefact = make(tmp_path / "worker", {"seed": 2}, b"weights")
    unpack_artefact(tmp_path / "store", artefact, pack_artefact(tmp_path / "worker", artefact))
    (there,) = (tmp_path / "worker").rglob(DESCRIPTION)
    found = Store(tmp_path / "store").find("trained", {"seed": 2})
    assert found
    assert (found / DESCRIPTION).read_bytes() == there.read_bytes()
    assert pack_artefact(tmp_path / "store", ("trained", "none")) == {}


@pytest.mark.parametrize("damage", ["content", "key", "name", "description"])
def test_a_damaged_artefact_does_not_come_into_the_store(tmp_path: Path, damage: str) -> None:
    kind, key = make(tmp_path / "worker", {"seed": 2}, b"weights")
    files = pack_artefact(tmp_path / "worker", (kind, key))
    match damage:
        case "content":
            files["content"] = b"other"
        case "key":
            key = "0" * 24
        case "name":
            files["../content"] = files.pop("content")
        case "description":
            files[DESCRIPTION] = b"{"
    with pytest.raises(ArtifactError, match="damaged artefact"):
        unpack_artefact(tmp_path / "store", (kind, key), files)
    assert not list((tmp_path / "store").rglob("content"))


def test_an_artefact_that_was_made_meanwhile_stays(tmp_path: Path) -> None:
    artefact = make(tmp_path / "worker", {"seed": 2}, b"later")
    make(tmp_path / "store", {"seed": 2}, b"first")
    unpack_artefact(tmp_path / "store", artefact, pack_artefact(tmp_path / "worker", artefact))
    found = Store(tmp_path / "store").at(*artefact)
    assert found
    assert (found / "content").read_bytes() == b"first"

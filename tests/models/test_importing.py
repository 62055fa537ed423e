"""Importing what a user names by import path."""

import dataclasses
import sys
from pathlib import Path

import pytest

from models.importing import (
    code_beside,
    import_callable,
    is_import_path,
    module_file,
    source_file,
)


@pytest.fixture
def folder(tmp_path):
    """A folder with a user's file, which is not on the path that Python searches."""
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Mine:\n"
        "    size: int = 3\n"
        "def make(): return Mine(7)\n"
        "number = 4\n"
    )
    return tmp_path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that Python finds."""
    inside = tmp_path / "site" / "a_users_package"
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("")
    (inside / "parts.py").write_text("class Part: ...\n")
    monkeypatch.syspath_prepend(inside.parent)
    yield "a_users_package.parts"
    for name in [name for name in sys.modules if name.startswith("a_users_package")]:
        del sys.modules[name]


# --- what is an import path ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    ["mine.py:Mine", "sub/mine.py:Mine", "package.module:Name", "package.module.Name", "module:N"],
)
def test_these_are_import_paths(reference):
    assert is_import_path(reference)


@pytest.mark.parametrize("reference", ["", "resnet20", ":", "mine.py:", ":Mine", ".Mine", "mine."])
def test_these_are_none(reference):
    assert not is_import_path(reference)


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("mine.py:Mine", "/home/user/mine.py"),
        ("sub/mine.py:Mine", "/home/user/sub/mine.py"),
        ("../mine.py:Mine", "/home/mine.py"),
        ("/elsewhere/mine.py:Mine", "/elsewhere/mine.py"),
        ("package.module:Name", None),
        ("package.module.Name", None),
        ("resnet20", None),
    ],
)
def test_files_are_relative_to_the_folder(reference, file):
    assert module_file(reference, Path("/home/user")) == (Path(file) if file else None)


def test_a_modules_file_is_found_without_running_it_or_its_package(package, tmp_path):
    inside = tmp_path / "site" / "a_users_package"
    (inside / "__init__.py").write_text("raise RuntimeError")
    for reference in (f"{package}:Part", f"{package}.Part"):
        assert source_file(reference, Path("/home/user")) == inside / "parts.py"
    assert source_file("a_users_package:Part", Path()) == inside / "__init__.py"
    assert source_file("mine.py:Mine", Path("/home/user")) == Path("/home/user/mine.py")
    assert not [name for name in sys.modules if name.startswith("a_users_package")]


@pytest.mark.parametrize(
    "reference",
    [
        "resnet20",
        "no_such_package.parts:Part",
        "a_users_package.none:Part",
        "sys:path",
        ".a:B",
        ":",
    ],
)
@pytest.mark.usefixtures("package")
def test_where_there_is_no_file_none_is_found(reference):
    assert source_file(reference, Path("/home/user")) is None


# --- what is found -------------------------------------------------------------------------------


def test_a_class_in_a_file(folder):
    made = import_callable("mine.py:Mine", folder)(size=5)
    assert dataclasses.asdict(made) == {"size": 5}


def test_a_function_will_do(folder):
    assert import_callable("mine.py:make", folder)().size == 7


def test_a_file_elsewhere_by_its_whole_path(folder):
    assert import_callable(f"{folder}/mine.py:Mine", Path("/")).__name__ == "Mine"


@pytest.mark.parametrize("separator", [":", "."])
def test_a_class_of_a_package_wherever_the_folder_is(package, separator):
    found = import_callable(f"{package}{separator}Part", Path("/"))
    assert found is sys.modules[package].Part


def test_a_file_is_read_anew_when_it_has_changed_and_leaves_nothing_beside_it(folder):
    assert import_callable("mine.py:make", folder)().size == 7
    text = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(text.replace("Mine(7)", "Mine(8)"))
    assert import_callable("mine.py:make", folder)().size == 8
    assert [file.name for file in folder.iterdir()] == ["mine.py"]


def test_files_of_one_name_in_two_folders_are_two(folder):
    (folder / "other").mkdir()
    (folder / "other" / "mine.py").write_text("class Mine: size = 9\n")
    first = import_callable("mine.py:Mine", folder)
    second = import_callable("other/mine.py:Mine", folder)
    assert (first().size, second().size) == (3, 9)


# --- what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "fragments"),
    [
        ("gone.py:Mine", ["FileNotFoundError", "no such file", "gone.py"]),
        ("mine.py:Mime", ["mine.py has no class 'Mime'; did you mean 'Mine'?"]),
        ("mine.py:number", ["mine.py has no class 'number'"]),
        ("a_package_of_nobody.parts:Part", ["No module named 'a_package_of_nobody'"]),
        ("json:Encoder", ["json has no class 'Encoder'"]),
    ],
)
def test_what_cannot_be_imported_says_why(reference, fragments, folder):
    with pytest.raises(ImportError) as caught:
        import_callable(reference, folder)
    message = str(caught.value)
    assert message.startswith("cannot be imported: ")
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    "code",
    ["def", "1 / 0", "raise SystemExit(3)", "import a_package_of_nobody", "raise Exception"],
)
def test_whatever_a_file_does_when_it_is_imported_is_an_import_error(code, tmp_path):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(ImportError, match="cannot be imported: "):
        import_callable("bad.py:Bad", tmp_path)


def test_an_interruption_is_not_taken_for_a_mistake_in_the_file(tmp_path):
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        import_callable("slow.py:Slow", tmp_path)


# --- what a file imports from beside it ----------------------------------------------------------


def test_code_beside_a_file_is_what_it_imports_by_itself_and_through_others(tmp_path):
    texts = {
        "mine.py": "import os, parts.blocks\nfrom helper import Block\nfrom . import cousin\n",
        "helper.py": "import further\nimport mine\n",
        "further.py": "",
        "cousin.py": "this is no Python",
        "stranger.py": "",
        "parts/__init__.py": "",
        "parts/blocks.py": "",
        "os2.py": "",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = code_beside(tmp_path / "mine.py")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "cousin.py",
        "further.py",
        "helper.py",
        "parts/__init__.py",
        "parts/blocks.py",
    ]

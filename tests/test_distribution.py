"""A distribution's file tells its project and version itself; what cannot be read is none."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

from pypi_tasks.distribution import Form, Unfit, from_name, normalized, read
from tests.packages import build_wheel

PKG_INFO = b"""\
Metadata-Version: 2.1
Name: Some.Project
Version: 1.0
Requires-Python: >=3.9
Classifier: Programming Language :: Python
Classifier: Topic :: Utilities
Project-URL: Source, https://example.org
Home-page: UNKNOWN

A description
of two lines.
"""


def build_sdist(folder: Path, name: str = "some_project-1.0", info: bytes = PKG_INFO) -> Path:
    """A source distribution."""
    path = folder / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, content in (
            ("PKG-INFO", info),
            ("some.egg-info/PKG-INFO", b"Name: wrong\nVersion: 9\n"),
            ("setup.py", b"#" * 9000),
        ):
            if content:
                member = tarfile.TarInfo(f"{name}/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def test_a_wheel_tells_what_its_metadata_has(tmp_path: Path) -> None:
    found = read(build_wheel(tmp_path, "1.0"))
    fields = dict(found.fields)
    assert (found.project, fields["version"], fields["filetype"], fields["pyversion"]) == (
        "pypi-tasks-smoke",
        "1.0",
        "bdist_wheel",
        "py3",
    )


def test_a_source_distribution_does_with_all_that_an_upload_can_carry(tmp_path: Path) -> None:
    found = read(build_sdist(tmp_path))
    assert found.project == "some-project"
    assert dict(found.fields)["requires_python"] == ">=3.9"
    assert [value for name, value in found.fields if name == "classifiers"] == [
        "Programming Language :: Python",
        "Topic :: Utilities",
    ]
    assert ("project_urls", "Source, https://example.org") in found.fields
    assert dict(found.fields)["description"] == "A description\nof two lines.\n"
    assert "home_page" not in dict(found.fields)


def build_archive(folder: Path, file: str, **contents: str) -> Path:
    """A zip file with some files of a wheel's."""
    path = folder / file
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            archive.writestr(f"{'-'.join(file.split('-')[:2])}.dist-info/{name}", text)
    return path


@pytest.mark.parametrize(
    ("file", "contents", "said"),
    [
        ("a-1.0-py3-none-any.whl", {}, "it has no METADATA"),
        ("a-1.0-py3-none-any.whl", {"METADATA": "Name: a\nVersion: 1.0\n"}, "it has no WHEEL"),
        (
            "a-1.0-py3-none-any.whl",
            {"METADATA": "Name: b\nVersion: 1.0\n", "WHEEL": ""},
            "its content says b 1.0, its name a 1.0",
        ),
        ("a-1.0-py3-none-any.whl", {"METADATA": "Name: a\nVersion: 2\n", "WHEEL": ""}, "its content says a 2, its name a 1.0"),
        ("a-1.0-py3-none-any.whl", {"METADATA": "Name: a\nVersion: latest\n", "WHEEL": ""}, "Invalid version: 'latest'"),
        ("a-1.0-py3-none-any.whl", {"METADATA": "no header", "WHEEL": ""}, "Invalid version: ''"),
        ("a-latest-py3-none-any.whl", {}, "its name does not tell project and version: .*invalid version"),
        ("a-1.0.whl", {}, "its name does not tell project and version: .*wrong number of parts"),
    ],
)
def test_a_wheel_that_could_not_be_installed_is_none(tmp_path: Path, file: str, contents: dict[str, str], said: str) -> None:
    with pytest.raises(Unfit, match=said):
        read(build_archive(tmp_path, file, **contents))


@pytest.mark.parametrize(
    ("name", "info", "said"),
    [
        ("some_project-1.0", b"", "it has no PKG-INFO"),
        ("six-99", PKG_INFO, "its content says Some.Project 1.0, its name six 99"),
        ("some_project-latest", PKG_INFO, "Invalid version: 'latest'"),
        ("some_project", PKG_INFO, "its name does not tell project and version"),
    ],
)
def test_a_source_distribution_is_what_its_name_says(tmp_path: Path, name: str, info: bytes, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        read(build_sdist(tmp_path, name, info))


def test_a_source_distribution_can_be_built(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "six-99.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("six-99/PKG-INFO"))
    with pytest.raises(Unfit, match=r"it has no pyproject.toml or setup.py"):
        read(tmp_path / "six-99.tar.gz")


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("a_b-1.0-1-py3-none-any.whl", ("a-b", "1.0")),
        ("a-3d-1.0rc1.tar.gz", ("a-3d", "1.0rc1")),
        ("a-b-1.0.zip", ("a-b", "1.0")),
        ("a_b-1.0-py3.9.egg", ("a-b", "1.0")),
    ],
)
def test_names_of_all_kinds_are_understood(file: str, named: tuple[str, str]) -> None:
    assert from_name(file) == (named[0], Version(named[1]))


@pytest.mark.parametrize("file", ["half-1.0.tar.gz", "half-1.0-py3-none-any.whl"])
def test_half_a_file_is_none(tmp_path: Path, file: str) -> None:
    whole = build_wheel(tmp_path, "1.0") if file.endswith("whl") else build_sdist(tmp_path)
    half = tmp_path / file
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(Unfit, match="it cannot be read") as caught:
        read(half)
    assert "\n" not in str(caught.value)


def test_what_is_called_something_else_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(Unfit, match="not a distribution"):
        read(tmp_path / "notes.txt")


def test_a_form_is_as_long_as_it_says(tmp_path: Path) -> None:
    found = read(build_sdist(tmp_path))
    form = Form(found.fields, found.path)
    body = b"".join(form)
    assert len(body) == len(form) and found.path.read_bytes() in body and b'filename="some_project-1.0.tar.gz"' in body


def test_names_are_compared_as_addresses_have_them() -> None:
    assert normalized("Some__Project.x") == "some-project-x"

"""`inv verify` beside a running stack: damage is named, repaired files are served, and a busy server is no damage."""

import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.raw import Uploader, api, ask, make_index, make_mirror
from tests.upstream import upstream
from tests.workspace import Workspace

pytestmark = pytest.mark.docker


def sdist(name: str, version: str) -> tuple[str, bytes]:
    """A source distribution with its metadata."""
    buffer, text = io.BytesIO(), f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo(f"{name}-{version}/PKG-INFO")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return f"{name}-{version}.tar.gz", buffer.getvalue()


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    """A stack with a wheel, a source distribution, and a snapshot of both."""
    workspace.inv("up", "--env", "dev", timeout=600)
    upload = Uploader(workspace)
    upload("probe", "1.0")
    file, content = sdist("probe", "1.0")
    upload("probe", "1.0", content, file, filetype="sdist", pyversion="source")
    workspace.inv("backup")
    return workspace


@pytest.fixture
def kept(stack: Workspace, tmp_path: Path) -> Iterator[Path]:
    """The snapshots, which are as before after the test."""
    folder = stack.root / "backups"
    subprocess.run(["cp", "-a", str(folder), str(tmp_path / "kept")], check=True)
    yield folder
    shutil.rmtree(folder)
    subprocess.run(["cp", "-a", str(tmp_path / "kept"), str(folder)], check=True)


def files(stack: Workspace, index: str = "pypi/stable") -> dict[str, Path]:
    """The live files by their URLs."""
    top = stack.home / "server" / "+files"
    return {f"/{path.relative_to(top)}": path for path in sorted((top / index).rglob("*")) if path.is_file()}


def flip(path: Path, at: int = -1) -> None:
    """Flip a bit of a file where it is."""
    content = path.read_bytes()
    at = at if at >= 0 else len(content) // 2
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))


def served(stack: Workspace, url: str) -> bytes:
    answer = ask(stack, url)
    assert answer.status == 200, (url, answer.status)
    return answer.body


def is_clean(stack: Workspace) -> bool:
    return "all sound" in stack.inv("verify").stdout


def found(stack: Workspace, *words: str) -> str:
    """What is told of damage, which must be there: the exit code says so."""
    result = stack.inv("verify", *words, check=False)
    shown = result.stdout + result.stderr
    assert result.returncode == 1 and "Error: " in result.stderr and "Traceback" not in shown, shown
    return shown


def test_a_server_in_good_health_is_found_to_be(stack: Workspace) -> None:
    shown = stack.inv("verify").stdout
    (manifest,) = (stack.root / "backups" / "snapshots").glob("*/manifest.json")
    found = json.loads(manifest.read_text())
    contents = {digest for digest, _ in (*found["files"].values(), *found["pieces"])}
    assert "2 files" in shown and f"1 snapshot of {len(contents)} contents: all sound" in shown


def test_damaged_and_deleted_files_are_named_repaired_and_served_right(stack: Workspace) -> None:
    live = files(stack)
    sound = {url: path.read_bytes() for url, path in live.items()}
    for damage in (flip, Path.unlink):
        for path in live.values():
            damage(path)
        if damage is flip:
            assert all(served(stack, url) != content for url, content in sound.items())
        shown = found(stack)
        assert all(url.lstrip("/") in shown for url in live) and "inv verify --repair" in shown
        shown = stack.inv("verify", "--repair").stdout
        assert "2 damaged, 2 repaired" in shown and ("is kept in" in shown) == (damage is flip)
        assert {url: served(stack, url) for url in live} == sound
        assert is_clean(stack)
    aside = [path.read_bytes() for path in stack.home.glob("damaged-*/pypi/stable/**/*") if path.is_file()]
    assert len(aside) == 2 and not set(aside) & set(sound.values())
    assert {path.stat().st_uid for path in live.values()} == {stack.home.stat().st_uid}


def test_a_mirrored_file_that_is_missing_is_no_damage_and_a_damaged_one_is_fetched_again(stack: Workspace) -> None:
    with upstream(stack) as source:
        mirror = make_mirror(stack, "elsewhere", source.url)
        file = source.add("foreign", "1.0")
        link = ask(stack, f"/{mirror}/+simple/foreign/", {"Accept": "application/vnd.pypi.simple.v1+json"}).files[0]["url"]
        url = f"/{mirror}/+f/" + link.partition("/+f/")[2].partition("#")[0]
        content = source.contents[f"/files/{file}"]
        assert served(stack, url) == content
        path = files(stack, mirror)[url]
        path.unlink()
        assert "1 mirrored file that will be fetched again" in stack.inv("verify").stdout
        assert served(stack, url) == content and is_clean(stack)
        flip(path)
        assert served(stack, url) != content
        assert url.lstrip("/") in found(stack)
        shown = stack.inv("verify", "--repair").stdout
        assert "moved away, to be fetched again" in shown and not path.exists()
        assert served(stack, url) == content and source.asked[f"/files/{file}"] == 3
        assert is_clean(stack)


def test_a_flipped_bit_of_the_database_is_named_by_commit_and_key(stack: Workspace) -> None:
    database = stack.home / "server" / ".sqlite"
    name = next(iter(files(stack))).lstrip("/")
    connection = sqlite3.connect(database)
    query = "SELECT changelog.serial, data FROM changelog JOIN kv USING (serial) WHERE key = ?"
    serial, row = connection.execute(query, (name,)).fetchone()
    at = row.index(b"sha256=") + 20
    wrong = row[:at] + bytes([row[at] ^ 1]) + row[at + 1 :]
    for content in (wrong, row):
        with connection:
            connection.execute("UPDATE changelog SET data = ? WHERE serial = ?", (content, serial))
        if content == wrong:
            shown = found(stack, "--repair")
            assert f"{serial}: pypi/stable/" in shown and "is not what the snapshot has of it" in shown and "inv restore" in shown
        else:
            assert is_clean(stack)
    connection.close()
    offset = database.read_bytes().index(row[row.index(name.encode()) :][:100]) + 20
    flip(database, offset)
    assert f"{serial}: " in found(stack)
    flip(database, offset)
    assert is_clean(stack)


def test_damaged_snapshots_are_named_and_their_files_repaired_from_the_live_ones(stack: Workspace, kept: Path) -> None:
    (folder,) = (kept / "snapshots").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    stored = (next(iter(manifest["files"].values())), manifest["pieces"][0])
    content, piece = (kept / "files" / digest[:2] / digest[2:] for digest, _ in stored)
    sound = content.read_bytes()
    flip(content)
    assert str(content.relative_to(kept)) in found(stack)
    assert "NO" in stack.inv("backups").stdout
    assert "replaced by the live file" in stack.inv("verify", "--repair").stdout
    assert content.read_bytes() == sound and hashlib.sha256(sound).hexdigest() == content.parent.name + content.name
    assert is_clean(stack) and "NO" not in stack.inv("backups").stdout
    flip(piece)
    assert f"{folder.name}'s .sqlite" in found(stack)
    flip(piece)
    flip(folder / "manifest.json")
    assert "manifest.json is not what manifest.sha256 says" in found(stack, "--repair")


def test_uploads_and_deletions_meanwhile_are_no_damage(stack: Workspace) -> None:
    index = make_index(stack, "busy")
    upload, ended, done = Uploader(stack, index), threading.Event(), 0

    def work() -> None:
        nonlocal done
        while not ended.is_set():
            for version in ("1.0", "2.0", "3.0"):
                upload("busy", version)
                done += 1
            for version in ("1.0", "2.0", "3.0"):
                api(stack, "DELETE", f"/{index}/busy/{version}")
                done += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(4):
            before = done
            assert is_clean(stack)
            assert done > before
    finally:
        ended.set()
        worker.join()


def test_what_no_snapshot_has_comes_back_by_an_upload(stack: Workspace) -> None:
    upload, (file, content) = Uploader(stack), sdist("later", "1.0")
    form = {"filetype": "sdist", "pyversion": "source"}
    upload("later", "1.0", content, file, **form)
    url, path = next(one for one in files(stack).items() if one[1].name == file)
    for damage in (flip, Path.unlink):
        damage(path)
        assert "upload again what no snapshot has" in found(stack)
        upload("later", "1.0", content, file, **form)
        assert served(stack, url) == content and is_clean(stack)

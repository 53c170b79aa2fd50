"""A setting comes from the environment, else from .env, else from its default; a wrong one is told by name, value and line."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from pypi_tasks import report
from pypi_tasks.check import in_bytes
from pypi_tasks.errors import BadInput
from pypi_tasks.settings import ROOT, fields, load
from tests.helpers import public_folder, settings_of, told, unprivileged


def write(folder: Path, text: "str | bytes") -> Path:
    file = folder / ".env"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


class TestWhereAValueComesFrom:
    def test_without_a_file_everything_is_the_default(self, tmp_path: Path) -> None:
        settings = load(tmp_path / ".env", environ={})
        assert set(settings.origins.values()) == {"default"}
        assert (settings.registry, settings.tag, settings.project, settings.pypi_env) == ("", "latest", "pypi", "dev")
        assert settings.url == "http://127.0.0.1:3141"
        assert settings.index == "pypi/stable"
        assert settings.devpi_bases == ("root/pypi",)
        assert settings.devpi_volatile is False
        assert settings.devpi_mirror_whitelist == ()
        assert settings.ca_bundle is None
        assert (settings.tls_certificate, settings.tls_key) == (None, None)
        assert (settings.proxy_tag, settings.nginx_image) == ("", "nginx:1.28-trixie")
        assert (settings.upload_limit, settings.hold_seconds, settings.cache_size) == ("2g", 120, "512m")

    def test_folders_are_in_the_repository_by_default(self, tmp_path: Path) -> None:
        settings = load(tmp_path / ".env", environ={})
        assert (settings.devpi_home, settings.secrets_home) == (ROOT / "devpi", ROOT / ".secrets")

    def test_the_container_runs_as_whoever_runs_the_tasks_and_never_as_root(self, tmp_path: Path) -> None:
        settings = load(tmp_path / ".env", environ={})
        assert (settings.devpi_uid, settings.devpi_gid) == (os.getuid() or 1000, os.getgid() or 1000)

    def test_the_environment_wins_over_the_file_and_the_file_over_the_default(self, tmp_path: Path) -> None:
        file = write(tmp_path, "TAG=from-file\nDEVPI_PORT=4040\n")
        settings = load(file, environ={"TAG": "from-environment", "DEVPI_USER": "alice"})
        assert (settings.tag, settings.devpi_port, settings.devpi_user) == ("from-environment", 4040, "alice")

    def test_origins_say_where_each_one_came_from(self, tmp_path: Path) -> None:
        file = write(tmp_path, "# a comment\nTAG=from-file\n\nDEVPI_PORT=4040\n")
        settings = load(file, environ={"TAG": "from-environment"})
        assert settings.origins == {
            **dict.fromkeys(fields(), "default"),
            "TAG": "environment",
            "DEVPI_PORT": ".env line 4",
        }
        assert settings.given("TAG")
        assert settings.given("DEVPI_PORT")
        assert not settings.given("DEVPI_USER")

    @pytest.mark.parametrize("name", list(fields()))
    def test_an_empty_value_means_the_default(self, tmp_path: Path, name: str) -> None:
        default = load(tmp_path / "none", environ={})
        settings = load(write(tmp_path, f"{name}=\n"), environ={name: ""})
        assert shown(settings) == shown(default)
        assert settings.origins[name] == "default"

    def test_a_relative_path_starts_at_the_repository(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, "DEVPI_HOME=data/devpi\n"), environ={}).devpi_home == ROOT / "data" / "devpi"

    def test_a_tilde_is_the_home_folder(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, "DEVPI_HOME=~/devpi\n"), environ={}).devpi_home == Path.home() / "devpi"

    @pytest.mark.parametrize("text", ["root/pypi,team/dev", "root/pypi team/dev", "root/pypi, team/dev", " root/pypi ,team/dev,"])
    def test_lists_take_commas_and_blanks(self, tmp_path: Path, text: str) -> None:
        assert load(tmp_path / ".env", environ={"DEVPI_BASES": text}).devpi_bases == ("root/pypi", "team/dev")

    @pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("1", True), ("FALSE", False), ("off", False)])
    def test_yes_and_no_have_their_usual_spellings(self, tmp_path: Path, text: str, value: bool) -> None:
        assert load(tmp_path / ".env", environ={"DEVPI_VOLATILE": text}).devpi_volatile is value


def shown(settings: object) -> str:
    """All values but where they came from; secrets have no equality."""
    return re.sub(r", origins=.*", "", repr(settings))


BAD = [
    ("DEVPI_PORT", "70000", "a port number, 1 to 65535"),
    ("DEVPI_PORT", "0", "a port number, 1 to 65535"),
    ("DEVPI_PORT", "http", "a port number, 1 to 65535"),
    ("DEVPI_PORT", "-1", "a port number, 1 to 65535"),
    ("DEVPI_BIND", "localhost", "an IP address"),
    ("DEVPI_BIND", "127.0.0.1:3141", "an IP address"),
    ("DEVPI_VOLATILE", "maybe", "true or false"),
    ("DEVPI_BASES", "root", "indexes as user/index"),
    ("DEVPI_BASES", "root/pypi,/dev", "indexes as user/index"),
    ("DEVPI_MIRROR_WHITELIST", "a/b", "names of projects"),
    ("DEVPI_USER", "a/b", "letters, digits"),
    ("DEVPI_INDEX", "pypi/stable", "letters, digits"),
    ("REGISTRY", "http://127.0.0.1:5000", "without http://"),
    ("TAG", "a b", "a tag, or a digest"),
    ("TAG", "sha256:abc", "a tag, or a digest"),
    ("PROXY_TAG", "a b", "a tag, or a digest"),
    ("PROXY_TAG", "sha256:abc", "a tag, or a digest"),
    ("PROJECT", "My-Project", "lower-case letters"),
    ("PYPI_ENV", "../dev", "the name of an environment"),
    ("DEVPI_MEMORY", "plenty", "a size of 256m or more, such as 512m or 1g"),
    ("DEVPI_MEMORY", "6m", "a size of 256m or more, such as 512m or 1g"),
    ("DEVPI_MEMORY", "1024", "a size of 256m or more, such as 512m or 1g"),
    ("UPLOAD_LIMIT", "1023k", "a size of 1m or more, such as 512m or 1g"),
    ("UPLOAD_LIMIT", "0", "a size of 1m or more, such as 512m or 1g"),
    ("UPLOAD_LIMIT", "2gb", "a size of 1m or more, such as 512m or 1g"),
    ("UPLOAD_LIMIT", "1.5g", "a size of 1m or more, such as 512m or 1g"),
    ("UPLOAD_LIMIT", "m", "a size of 1m or more, such as 512m or 1g"),
    ("CACHE_SIZE", "15m", "a size of 16m or more, such as 512m or 1g"),
    ("CACHE_SIZE", "-1g", "a size of 16m or more, such as 512m or 1g"),
    ("HOLD_SECONDS", "0", "seconds, 1 to 3600"),
    ("HOLD_SECONDS", "3601", "seconds, 1 to 3600"),
    ("HOLD_SECONDS", "2m", "seconds, 1 to 3600"),
    ("DEVPI_UID", "0", "other than root"),
    ("DEVPI_GID", "0", "other than root"),
    ("DEVPI_UID", "alice", "a number of a user"),
    ("OUTSIDE_URL", "pypi.example", "http(s)://host[:port][/path]"),
    ("OUTSIDE_URL", "https://pypi.example/?a=b", "http(s)://host[:port][/path]"),
    ("PYTHON_IMAGE", "--privileged", "an image"),
    ("NGINX_IMAGE", "--privileged", "an image"),
    ("SOURCE_URL", "a b", "a URL"),
]


class TestAWrongValue:
    @pytest.mark.parametrize(("name", "value", "expected"), BAD)
    def test_in_the_file_is_told_with_its_line(self, tmp_path: Path, name: str, value: str, expected: str) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, f"# first\n\n{name}={value}\n"), environ={})
        assert told(caught).startswith(f"Error: .env line 3: {name}={value!r}: expected ")
        assert expected in told(caught)
        assert caught.value.code == 2

    @pytest.mark.parametrize(("name", "value", "expected"), BAD)
    def test_in_the_environment_is_told_as_such(self, tmp_path: Path, name: str, value: str, expected: str) -> None:
        with pytest.raises(BadInput) as caught:
            load(tmp_path / ".env", environ={name: value})
        assert told(caught).startswith(f"Error: environment: {name}={value!r}: expected ")
        assert expected in told(caught)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("REGISTRY", "127.0.0.1:5000"), ("REGISTRY", "registry.example/team/images"), ("REGISTRY", "[::1]:5000"),
            ("TAG", f"sha256:{'0a' * 32}"), ("TAG", "6.20.3-0123456789ab"), ("DEVPI_MEMORY", "512m"), ("DEVPI_BIND", "::"),
            ("OUTSIDE_URL", "https://pypi.example:8443/devpi"), ("PYTHON_IMAGE", f"base@sha256:{'0a' * 32}"),
            ("DEVPI_MIRROR_WHITELIST", "*"), ("DEVPI_UID", "1000"), ("DEVPI_PORT", "65535"), ("UPLOAD_LIMIT", "1024k"),
            ("UPLOAD_LIMIT", "1m"), ("CACHE_SIZE", "16m"), ("HOLD_SECONDS", "1"), ("HOLD_SECONDS", "3600"), ("PROXY_TAG", "v1"),
            ("PROXY_TAG", f"sha256:{'0a' * 32}"), ("NGINX_IMAGE", f"base@sha256:{'0a' * 32}"),
        ],
    )  # fmt: skip
    def test_has_a_right_one_beside_it(self, tmp_path: Path, name: str, value: str) -> None:
        assert load(tmp_path / ".env", environ={name: value}).given(name)


CERTIFICATE = "a comment\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN {kind}PRIVATE KEY-----\nMIIE\n-----END {kind}PRIVATE KEY-----\n"


class TestCertificates:
    def test_a_pem_file_is_taken(self, tmp_path: Path) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_text(CERTIFICATE)
        assert load(tmp_path / ".env", environ={"CA_BUNDLE": str(bundle)}).ca_bundle == bundle

    @pytest.mark.parametrize(
        ("name", "what"), [("CA_BUNDLE", "certificates"), ("TLS_CERTIFICATE", "certificates"), ("TLS_KEY", "a private key")]
    )
    class TestFile:
        def test_a_missing_one_is_told(self, tmp_path: Path, name: str, what: str) -> None:
            with pytest.raises(BadInput) as caught:
                load(write(tmp_path, f"{name}={tmp_path / 'nowhere.pem'}\n"), environ={})
            assert f".env line 1: {name}=" in told(caught)
            assert "nowhere.pem" in told(caught)
            assert f"a readable file of {what}, but No such file" in told(caught)

        def test_a_folder_is_none(self, tmp_path: Path, name: str, what: str) -> None:
            with pytest.raises(BadInput, match=f"a readable file of {what}"):
                load(tmp_path / ".env", environ={name: str(tmp_path)})

        def test_another_form_than_pem_is_told(self, tmp_path: Path, name: str, what: str) -> None:
            (tmp_path / "ca.der").write_bytes(b"\x30\x82\x01\x0a")
            with pytest.raises(BadInput, match=f"a file of {what} in PEM form"):
                load(tmp_path / ".env", environ={name: str(tmp_path / "ca.der")})


class TestTls:
    """A certificate and its key: both or neither, and then clients use https."""

    @pytest.fixture
    def pair(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "tls.crt").write_text(CERTIFICATE)
        (tmp_path / "tls.key").write_text(KEY.format(kind=""))
        return {"TLS_CERTIFICATE": str(tmp_path / "tls.crt"), "TLS_KEY": str(tmp_path / "tls.key")}

    @pytest.mark.parametrize("kind", ["", "RSA ", "EC "])
    def test_keys_of_all_kinds_are_taken(self, tmp_path: Path, pair: dict[str, str], kind: str) -> None:
        (tmp_path / "tls.key").write_text(KEY.format(kind=kind))
        settings = settings_of(tmp_path, **pair)
        assert (settings.tls_certificate, settings.tls_key) == (tmp_path / "tls.crt", tmp_path / "tls.key")

    def test_a_pair_makes_the_addresses_https(self, tmp_path: Path, pair: dict[str, str]) -> None:
        settings = settings_of(tmp_path, **pair)
        assert settings.url == settings.client_url == "https://127.0.0.1:3141"

    @pytest.mark.parametrize("name", ["TLS_CERTIFICATE", "TLS_KEY"])
    def test_one_alone_is_told_with_its_place(self, tmp_path: Path, pair: dict[str, str], name: str) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, f"TAG=x\n{name}={pair[name]}\n"), environ={})
        assert f".env line 2: {name} alone is set: expected TLS_CERTIFICATE and TLS_KEY, both or neither." in told(caught)
        with pytest.raises(BadInput, match=f"environment: {name} alone is set"):
            load(tmp_path / "none", environ={name: pair[name]})

    def test_the_two_in_each_others_place_are_told(self, tmp_path: Path, pair: dict[str, str]) -> None:
        with pytest.raises(BadInput, match=r"TLS_CERTIFICATE=.*a file of certificates in PEM form"):
            settings_of(tmp_path, TLS_CERTIFICATE=pair["TLS_KEY"], TLS_KEY=pair["TLS_CERTIFICATE"])
        with pytest.raises(BadInput, match=r"TLS_KEY=.*a file of a private key in PEM form"):
            settings_of(tmp_path, TLS_CERTIFICATE=pair["TLS_CERTIFICATE"], TLS_KEY=pair["TLS_CERTIFICATE"])

    def test_an_address_without_tls_is_told(self, tmp_path: Path, pair: dict[str, str]) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, "OUTSIDE_URL=http://pypi.example\n"), environ=pair)
        assert ".env line 1: OUTSIDE_URL=http://pypi.example: expected https://, since TLS_KEY is set." in told(caught)

    def test_an_address_with_tls_is_taken(self, tmp_path: Path, pair: dict[str, str]) -> None:
        settings = settings_of(tmp_path, OUTSIDE_URL="https://pypi.example/devpi", **pair)
        assert settings.client_url == "https://pypi.example/devpi"

    def test_an_https_address_needs_no_pair_since_something_else_may_have_it(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, OUTSIDE_URL="https://pypi.example")
        assert (settings.url, settings.client_url) == ("http://127.0.0.1:3141", "https://pypi.example")


class TestSizes:
    @pytest.mark.parametrize(("text", "count"), [("1k", 1024), ("512m", 536_870_912), ("2g", 2_147_483_648), ("007m", 7_340_032)])
    def test_are_counted_as_docker_and_nginx_do(self, text: str, count: int) -> None:
        assert in_bytes(text) == count


class TestTheFile:
    def test_a_variable_of_the_file_may_be_used_below_it(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, "DATA=/srv\nDEVPI_HOME=${DATA}/devpi\n"), environ={}).devpi_home == Path("/srv/devpi")

    def test_a_variable_of_the_environment_may_be_used(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, "DATA=/srv\nDEVPI_HOME=${DATA}/devpi\n"), environ={"DATA": "/mnt"})
        assert settings.devpi_home == Path("/mnt/devpi")

    def test_an_undefined_variable_is_told_with_its_line(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, "# first\nDEVPI_HOME=${DATA}/devpi\n"), environ={})
        assert ".env line 2: DEVPI_HOME uses ${DATA}, which is not defined." in told(caught)
        assert "${DATA:-" in told(caught)

    def test_a_variable_may_have_a_default(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, "DEVPI_HOME=${DATA:-/srv}/devpi\n"), environ={}).devpi_home == Path("/srv/devpi")

    def test_windows_line_ends_leave_nothing_behind(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, b"TAG=one\r\n\r\nDEVPI_USER=alice\r\nDEVPI_HOME=/srv/devpi\r\n"), environ={})
        assert (settings.tag, settings.devpi_user, settings.devpi_home) == ("one", "alice", Path("/srv/devpi"))
        assert settings.origins["DEVPI_USER"] == ".env line 3"
        assert "\\r" not in repr(settings)

    def test_a_byte_order_mark_is_no_part_of_the_first_name(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, b"\xef\xbb\xbfTAG=one\r\n"), environ={})
        assert (settings.tag, settings.origins["TAG"]) == ("one", ".env line 1")

    def test_another_encoding_is_told_with_its_line(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, "TAG=one\n# für\n".encode("latin-1")), environ={})
        assert ".env line 2: byte 0xfc is not UTF-8." in told(caught)
        assert "save the file as UTF-8" in told(caught)

    @pytest.mark.parametrize("line", ["TAG", "TAG one", "just words"])
    def test_a_line_without_an_equals_sign_is_told(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, f"# first\n\n{line}\n"), environ={})
        assert ".env line 3: expected NAME=value" in told(caught)

    def test_a_folder_in_its_place_is_told(self, tmp_path: Path) -> None:
        (tmp_path / ".env").mkdir()
        with pytest.raises(BadInput) as caught:
            load(tmp_path / ".env", environ={})
        assert f"{tmp_path / '.env'} cannot be read: Is a directory." in told(caught)

    def test_one_that_cannot_be_read_is_told(self) -> None:
        with public_folder() as folder:
            write(folder, "TAG=one\n").chmod(0)
            with unprivileged(), pytest.raises(BadInput) as caught:
                load(folder / ".env", environ={})
        assert f"{folder / '.env'} cannot be read: Permission denied." in told(caught)

    def test_quotes_comments_and_export_are_understood(self, tmp_path: Path) -> None:
        text = "export TAG='one' # why\nDEVPI_HOME=\"/srv/with blank\"\nDEVPI_PORT=4040 # why\n"
        settings = load(write(tmp_path, text), environ={})
        assert (settings.tag, settings.devpi_home, settings.devpi_port) == ("one", Path("/srv/with blank"), 4040)


class TestANameThatIsNoSetting:
    def test_of_devpi_is_refused_in_the_file_with_its_line(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, "TAG=one\nDEVPI_COLOUR=blue\n"), environ={})
        assert ".env line 2: DEVPI_COLOUR is not a setting." in told(caught)
        assert "inv config" in told(caught)

    def test_of_devpi_is_refused_in_the_environment(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            load(tmp_path / ".env", environ={"DEVPI_PROT": "4040"})
        assert "environment: DEVPI_PROT is not a setting." in told(caught)
        assert "did you mean DEVPI_PORT?" in told(caught)

    @pytest.mark.parametrize(
        ("slip", "meant"), [("REGISTY", "REGISTRY"), ("PROJCT", "PROJECT"), ("PYPI_PASWORD", "PYPI_PASSWORD")]
    )
    def test_that_looks_like_one_is_refused_in_the_file(self, tmp_path: Path, slip: str, meant: str) -> None:
        with pytest.raises(BadInput) as caught:
            load(write(tmp_path, f"{slip}=x\n"), environ={})
        assert f".env line 1: {slip} is not a setting." in told(caught)
        assert f"did you mean {meant}?" in told(caught)

    def test_is_nobodys_business_otherwise(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, "COMPOSE_PROFILES=x\n"), environ={"PATH": "/bin", "REGISTY": "x"})
        assert not any(settings.given(name) for name in fields())


class TestSecrets:
    def test_never_show_in_any_form_of_the_settings(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n", ROOT_PASSWORD="correct-horse")
        assert settings.pypi_password.reveal() == "hunter2"
        assert settings.root_password.reveal() == "correct-horse"
        forms = repr(settings), str(settings), f"{settings.pypi_password}", str(dataclasses.asdict(settings))
        for form in forms:
            assert "hunter2" not in form
            assert "correct-horse" not in form
            assert "redacted" in form

    def test_never_show_in_the_list_of_settings(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        report.config(settings_of(tmp_path, "TAG=one\nPYPI_PASSWORD=hunter2\n"))
        shown = capsys.readouterr().out
        assert "hunter2" not in shown
        assert re.search(r"^PYPI_PASSWORD +\[redacted] +\.env line 4 ", shown, re.MULTILINE)
        assert re.search(r"^TAG +one +\.env line 3 ", shown, re.MULTILINE)
        assert all(re.search(rf"^{name} ", shown, re.MULTILINE) for name in fields())


class TestUrl:
    @pytest.mark.parametrize(
        ("bind", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:3141"),
            ("0.0.0.0", "http://127.0.0.1:3141"),
            ("::", "http://[::1]:3141"),
            ("fd00::1", "http://[fd00::1]:3141"),
            ("10.0.0.7", "http://10.0.0.7:3141"),
        ],
    )
    def test_is_where_this_machine_reaches_the_server(self, tmp_path: Path, bind: str, url: str) -> None:
        assert settings_of(tmp_path, DEVPI_BIND=bind).url == url

    def test_of_the_clients_is_the_same_unless_it_is_set(self, tmp_path: Path) -> None:
        assert settings_of(tmp_path, DEVPI_BIND="::").client_url == "http://[::1]:3141"
        assert settings_of(tmp_path, OUTSIDE_URL="http://pypi.example:8080/").client_url == "http://pypi.example:8080"


class TestDocumentation:
    """.env.example, the README's table and the code say the same."""

    def test_the_example_has_every_setting_with_its_default_in_order_and_nothing_else(self) -> None:
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        found = re.findall(r"^(?:# ?)?([A-Z][A-Z_]*)=(.*)$", text, re.MULTILINE)
        assert found == [(name, field.metadata["default"]) for name, field in fields().items()]
        assert all(re.match(r"#|[A-Z_]+=|$", line) for line in text.splitlines())

    def test_the_example_taken_as_it_is_changes_nothing(self, tmp_path: Path) -> None:
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        everything = re.sub(r"^# ?(?=[A-Z][A-Z_]*=)", "", text, flags=re.MULTILINE)
        default = shown(load(tmp_path / "none", environ={}))
        assert shown(load(write(tmp_path, text), environ={})) == default
        assert shown(load(write(tmp_path, everything), environ={})) == default

    def test_the_readme_has_a_row_for_every_setting(self) -> None:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
        found = {row[0].strip("`"): tuple(row[1:]) for row in rows if re.fullmatch(r"`[A-Z_]+`", row[0])}
        wanted = {
            name: (f"`{default}`" if (default := field.metadata["default"]) else "", field.metadata["help"])
            for name, field in fields().items()
        }
        assert found == wanted

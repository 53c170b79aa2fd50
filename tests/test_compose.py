"""The Compose files: what a container is allowed, where the data and the secrets are, what a wrong template says."""

import json
import re
from pathlib import Path

import pytest

from pypi_tasks import compose, stack
from pypi_tasks.errors import BadInput
from pypi_tasks.settings import Settings
from tests.helpers import settings_of, told

REGISTRY = "127.0.0.1:5000"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, REGISTRY=REGISTRY, DEVPI_UID="1234", DEVPI_GID="2345")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def section(text: str, *names: str) -> str:
    """What is below a key, by the names that lead to it."""
    for depth, name in enumerate(names):
        found = re.search(rf"^{'  ' * depth}{re.escape(name)}:.*\n((?:{'  ' * (depth + 1)}.*\n|\n)*)", text, re.MULTILINE)
        assert found, names[: depth + 1]
        text = found[1]
    return text


def service(text: str, name: str) -> list[str]:
    """The lines of a service, and those that it has in common with the others."""
    own = lines(section(text, "services", name))
    assert own[0] == "<<: *service"
    return [*lines(section(text, "x-service")), *own]


def keys(own: list[str]) -> set[str]:
    return {line.split(":")[0] for line in own if re.match(r"[a-z_]+:", line)}


def with_tls(folder: Path, **environ: str) -> Settings:
    (folder / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
    (folder / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIE\n")
    pair = {"TLS_CERTIFICATE": str(folder / "tls.crt"), "TLS_KEY": str(folder / "tls.key")}
    return settings_of(folder, REGISTRY=REGISTRY, **pair, **environ)


class TestVariants:
    def test_are_the_templates_beside_the_base(self) -> None:
        assert compose.variants() == ["dev", "stable"]

    def test_a_new_template_is_a_new_one(self, tmp_path: Path) -> None:
        for name in ("base", "dev", "test", "_part"):
            (tmp_path / f"{name}.yaml.j2").write_text("")
        assert compose.variants(tmp_path) == ["dev", "test"]

    def test_an_unknown_one_lists_the_known(self) -> None:
        with pytest.raises(BadInput) as caught:
            compose.variant("prod")
        assert "'prod' has no template" in told(caught)
        assert "known: dev, stable" in told(caught)

    def test_dev_runs_what_was_built_here(self, settings: Settings) -> None:
        text = lines(compose.render(settings, "dev"))
        assert 'image: "pypi_server:pypi"' in text
        assert 'image: "pypi_proxy:pypi"' in text
        assert "pull_policy: never" in text

    def test_stable_runs_what_the_registry_has_under_the_tag(self, settings: Settings) -> None:
        text = lines(compose.render(settings, "stable"))
        assert f'image: "{REGISTRY}/pypi_server:latest"' in text
        assert f'image: "{REGISTRY}/pypi_proxy:latest"' in text
        assert "pull_policy: missing" in text

    def test_stable_runs_digests_too(self, tmp_path: Path) -> None:
        one, other = (f"sha256:{digits * 32}" for digits in ("0a", "0b"))
        text = lines(compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, TAG=one, PROXY_TAG=other), "stable"))
        assert f'image: "{REGISTRY}/pypi_server@{one}"' in text
        assert f'image: "{REGISTRY}/pypi_proxy@{other}"' in text

    def test_a_digest_is_one_images_so_that_the_other_needs_its_own(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, TAG=f"sha256:{'0a' * 32}"), "stable")
        assert "TAG is a digest, which names the server's image alone." in told(caught)
        assert "set PROXY_TAG to the proxy's" in told(caught)

    def test_the_proxy_may_have_a_tag_of_its_own(self, tmp_path: Path) -> None:
        text = lines(compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, TAG="v1", PROXY_TAG="v2"), "stable"))
        assert f'image: "{REGISTRY}/pypi_server:v1"' in text
        assert f'image: "{REGISTRY}/pypi_proxy:v2"' in text

    def test_dev_asks_for_no_tag(self, tmp_path: Path) -> None:
        assert 'image: "pypi_proxy:pypi"' in compose.render(settings_of(tmp_path, TAG=f"sha256:{'0a' * 32}"), "dev")

    def test_stable_needs_a_registry(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            compose.render(settings_of(tmp_path), "stable")
        assert "REGISTRY is empty" in told(caught)

    def test_differ_in_the_images_and_their_name_alone(self, settings: Settings) -> None:
        dev, stable = (lines(compose.render(settings, env)) for env in ("dev", "stable"))
        assert len(dev) == len(stable)
        different = [one for one, other in zip(dev, stable, strict=True) if one != other]
        assert [re.split(r"[: ]", line)[0] for line in different] == ["#", "pull_policy", "pypi-tasks.env", *["image"] * 4]


@pytest.mark.parametrize("env", ["dev", "stable"])
class TestEveryVariant:
    def test_has_these_services_and_no_other(self, settings: Settings, env: str) -> None:
        text = section(compose.render(settings, env), "services")
        assert (
            tuple(re.findall(r"^  (\w+):", text, re.MULTILINE))
            == (*stack.SERVICES, "backup")
            == ("devpi", "port", "proxy", "backup")
        )

    @pytest.mark.parametrize("name", (*stack.SERVICES, "backup"))
    @pytest.mark.parametrize(
        "line",
        [
            "read_only: true",
            "cap_drop: [ALL]",
            'security_opt: ["no-new-privileges:true"]',
            'user: "1234:2345"',
            "restart: always",
            "driver: json-file",
            'options: {max-size: 10m, max-file: "3"}',
        ],
    )
    def test_is_hardened(self, settings: Settings, env: str, name: str, line: str) -> None:
        found = service(compose.render(settings, env), name)
        assert found.count(line) == 1
        assert [one for one in found if one.startswith('tmpfs: ["/tmp:mode=1777,size=64m"')]
        assert len([one for one in found if one.split(":")[0] == line.split(":")[0]]) == 1  # nothing takes it back

    @pytest.mark.parametrize(("name", "limit"), [("devpi", '"768m"'), ("proxy", "256m"), ("port", "64m"), ("backup", '"768m"')])
    def test_limits_the_memory_of_each(self, tmp_path: Path, env: str, name: str, limit: str) -> None:
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, DEVPI_MEMORY="768m"), env)
        assert f"mem_limit: {limit}" in service(text, name)

    def test_gives_the_passwords_to_the_server_alone(self, settings: Settings, env: str) -> None:
        text = compose.render(settings, env)
        assert "secrets: [root_password, user_password, server_secret]" in service(text, "devpi")
        assert "secrets" not in keys(service(text, "proxy"))

    def test_gives_the_certificate_and_its_key_to_the_proxy_alone(self, tmp_path: Path, env: str) -> None:
        settings = with_tls(tmp_path)
        text = compose.render(settings, env)
        assert "secrets: [root_password, user_password, server_secret]" in service(text, "devpi")
        assert "secrets: [tls_certificate, tls_key]" in service(text, "proxy")
        for name in ("tls_certificate", "tls_key"):
            assert f"  {name}:\n    file: {json.dumps(str(settings.secrets_home / name))}\n" in section(text, "secrets")
        assert "MIIE" not in text

    @pytest.mark.parametrize("opened", ["privileged", "cap_add", "network_mode: host", "docker.sock"])
    def test_opens_nothing_again(self, settings: Settings, env: str, opened: str) -> None:
        assert opened not in compose.render(settings, env)

    def test_listens_where_it_was_told(self, tmp_path: Path, env: str) -> None:
        rendered = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, DEVPI_PORT="4040", DEVPI_BIND="::1"), env)
        text = service(rendered, "port")
        assert 'published: "4040"' in text
        assert 'host_ip: "::1"' in text
        assert "target: 3141" in text
        assert lines(rendered).count("ports:") == 1

    def test_gives_a_network_to_those_alone_who_need_one(self, settings: Settings, env: str) -> None:
        text = compose.render(settings, env)
        for name in ("proxy", "backup"):
            assert "network_mode: none" in service(text, name)
            assert "ports" not in keys(service(text, name))

    def test_has_no_way_to_the_server_but_the_proxy(self, settings: Settings, env: str) -> None:
        text = compose.render(settings, env)
        assert not {"ports", "expose", "network_mode"} & keys(service(text, "devpi"))
        assert "DEVPISERVER_UNIX_SOCKET: /run/pypi/devpi.sock" in service(text, "devpi")
        assert "- {type: volume, source: socket, target: /run/pypi}" in service(text, "devpi")
        assert "- {type: volume, source: socket, target: /run/pypi, read_only: true}" in service(text, "proxy")

    def test_mounts_the_data_and_never_makes_the_folder_as_root(self, settings: Settings, env: str) -> None:
        source = json.dumps(str(settings.devpi_home))
        text = compose.render(settings, env)
        line = f"- {{type: bind, source: {source}, target: /devpi, bind: {{create_host_path: false}}}}"
        assert line in service(text, "devpi")
        # The proxy only reads it.
        line = f"- {{type: bind, source: {source}, target: /devpi, read_only: true, bind: {{create_host_path: false}}}}"
        assert line in service(text, "proxy")

    def test_both_have_the_limits_that_were_set(self, tmp_path: Path, env: str) -> None:
        limits = {"UPLOAD_LIMIT": "3m", "CACHE_SIZE": "64m", "HOLD_SECONDS": "7"}
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, **limits), env)
        devpi, proxy = service(text, "devpi"), service(text, "proxy")
        assert 'DEVPISERVER_MAX_REQUEST_BODY_SIZE: "3145728"' in devpi  # devpi counts bytes, nginx knows units
        assert 'DEVPI_PAGES_LIMIT: "67108864"' in devpi
        assert 'UPLOAD_LIMIT: "3m"' in proxy
        assert 'HOLD_SECONDS: "7"' in proxy

    def test_takes_its_secrets_from_files(self, settings: Settings, env: str) -> None:
        text = compose.render(settings, env)
        for name in ("root_password", "user_password", "server_secret"):
            assert f"  {name}:\n    file: {json.dumps(str(settings.secrets_home / name))}\n" in text

    def test_holds_no_password(self, tmp_path: Path, env: str) -> None:
        passwords = {"PYPI_PASSWORD": "hunter2", "ROOT_PASSWORD": "correct-horse"}
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, **passwords), env)
        assert "hunter2" not in text
        assert "correct-horse" not in text

    def test_carries_the_labels_by_which_it_is_found(self, tmp_path: Path, env: str) -> None:
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, PROJECT="team"), env)
        label = 'pypi-tasks.project: "team"'
        for name in stack.SERVICES:
            assert label in service(text, name)
            assert f'pypi-tasks.env: "{env}"' in service(text, name)
        for name in ("socket", "spool"):
            assert label in lines(section(text, "volumes", name))
        assert label in lines(section(text, "networks", "default"))

    def test_labels_every_volume_that_it_mounts(self, settings: Settings, env: str) -> None:
        text = compose.render(settings, env)
        mounted = set(re.findall(r"type: volume, source: (\w+)", text))
        assert mounted == set(re.findall(r"^  (\w+):\n    labels:", section(text, "volumes"), re.MULTILINE)) != set()

    @pytest.mark.parametrize(
        ("given", "known"),
        [("https://pypi.example/devpi", "https://pypi.example/devpi"), ("", "http://127.0.0.1:3141")],
    )
    def test_both_know_the_address_that_clients_use(self, tmp_path: Path, env: str, given: str, known: str) -> None:
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, OUTSIDE_URL=given), env)
        assert f'DEVPISERVER_OUTSIDE_URL: "{known}"' in service(text, "devpi")
        assert f'OUTSIDE_URL: "{known}"' in service(text, "proxy")

    def test_clients_use_https_where_there_is_a_certificate(self, tmp_path: Path, env: str) -> None:
        text = compose.render(with_tls(tmp_path), env)
        assert 'DEVPISERVER_OUTSIDE_URL: "https://127.0.0.1:3141"' in service(text, "devpi")
        assert 'OUTSIDE_URL: "https://127.0.0.1:3141"' in service(text, "proxy")

    def test_mounts_certificates_where_they_are_set(self, tmp_path: Path, env: str) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
        text = service(compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, CA_BUNDLE=str(bundle)), env), "devpi")
        mount = "target: /etc/ca-bundle.pem, read_only: true, bind: {create_host_path: false}"
        assert f"- {{type: bind, source: {json.dumps(str(bundle))}, {mount}}}" in text
        assert "REQUESTS_CA_BUNDLE: /etc/ca-bundle.pem" in text

    def test_mounts_none_otherwise(self, settings: Settings, env: str) -> None:
        text = compose.render(settings, env)
        assert "ca-bundle" not in text
        assert "REQUESTS_CA_BUNDLE" not in text

    def test_says_what_it_was_made_from(self, settings: Settings, env: str) -> None:
        first = compose.render(settings, env).splitlines()[0]
        assert first.startswith(f"# Rendered from compose/{env}.yaml.j2")


class TestQuoting:
    def test_a_dollar_in_a_path_means_nothing_to_compose(self, tmp_path: Path) -> None:
        home = tmp_path / "pri$e" / "${HOME}"
        text = compose.render(settings_of(tmp_path, DEVPI_HOME=str(home)), "dev")
        assert f'source: "{tmp_path}/pri$$e/$${{HOME}}", target: /devpi' in text

    @pytest.mark.parametrize("name", ["with blank", 'with "quotes"', "with: colon # hash", "with, comma}", "it's"])
    def test_a_path_is_one_value_whatever_is_in_it(self, tmp_path: Path, name: str) -> None:
        text = compose.render(settings_of(tmp_path, DEVPI_HOME=str(tmp_path / name)), "dev")
        found = re.search(r"source: (.*), target: /devpi,", text)
        assert found
        assert json.loads(found[1]) == str(tmp_path / name)

    @pytest.mark.parametrize(("value", "text"), [(1, "1"), (True, "true"), (Path("/a b"), '"/a b"'), ("$x", '"$$x"')])
    def test_values_are_yaml(self, value: object, text: str) -> None:
        assert compose.quoted(value) == text


class TestFilters:
    def test_bytes_are_for_programs_that_know_no_units(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "test.yaml.j2").write_text('{{ UPLOAD_LIMIT | bytes }} {{ "512k" | bytes }} {{ "3m" | bytes }}\n')
        assert compose.render(settings, "test", tmp_path) == f"{2 * 1024**3} {512 * 1024} {3 * 1024**2}\n"


class TestAWrongTemplate:
    def test_names_the_variable_the_template_and_its_line(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "test.yaml.j2").write_text("services:\n  devpi:\n    image: {{ DEVPI_HOM }}\n")
        with pytest.raises(BadInput) as caught:
            compose.render(settings, "test", tmp_path)
        assert "compose/test.yaml.j2 line 3: 'DEVPI_HOM' is undefined." in told(caught)
        assert "inv config" in told(caught)
        assert caught.value.code == 2

    def test_names_the_base_when_the_mistake_is_there(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "base.yaml.j2").write_text("services:\n{{ NOPE }}\n")
        (tmp_path / "test.yaml.j2").write_text('{% extends "base.yaml.j2" %}\n')
        with pytest.raises(BadInput) as caught:
            compose.render(settings, "test", tmp_path)
        assert "compose/base.yaml.j2 line 2: 'NOPE' is undefined." in told(caught)

    def test_names_the_block_of_a_variant_that_has_the_mistake(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "base.yaml.j2").write_text("image: {% block image required %}{% endblock %}\n")
        (tmp_path / "test.yaml.j2").write_text(
            '{% extends "base.yaml.j2" %}\n\n{% block image %}{{ NOPE }}{% endblock %}\n',
        )
        with pytest.raises(BadInput) as caught:
            compose.render(settings, "test", tmp_path)
        assert "compose/test.yaml.j2 line 3: 'NOPE' is undefined." in told(caught)

    def test_names_the_line_that_is_no_template(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "test.yaml.j2").write_text("services:\n{% if %}\n")
        with pytest.raises(BadInput) as caught:
            compose.render(settings, "test", tmp_path)
        assert "compose/test.yaml.j2 line 2: " in told(caught)

    @pytest.mark.parametrize("name", ["PYPI_PASSWORD", "ROOT_PASSWORD"])
    def test_cannot_get_at_a_password(self, settings: Settings, tmp_path: Path, name: str) -> None:
        (tmp_path / "test.yaml.j2").write_text(f"{{{{ {name} }}}}\n")
        with pytest.raises(BadInput, match=f"'{name}' is undefined"):
            compose.render(settings, "test", tmp_path)


class TestLinks:
    def test_a_server_for_everybody_without_a_public_address_is_warned_of(self, tmp_path: Path) -> None:
        told = compose.wrong_links(settings_of(tmp_path, DEVPI_BIND="0.0.0.0"))
        assert "without OUTSIDE_URL" in told and "http://127.0.0.1:3141" in told

    @pytest.mark.parametrize("given", [{"DEVPI_BIND": "0.0.0.0", "OUTSIDE_URL": "https://pypi.example"}, {}])
    def test_one_that_has_an_address_is_not(self, tmp_path: Path, given: dict[str, str]) -> None:
        assert compose.wrong_links(settings_of(tmp_path, **given)) == ""

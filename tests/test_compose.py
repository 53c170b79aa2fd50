"""The Compose files: what a container is allowed, where the data and the secrets are, what a wrong template says."""

import json
import re
from pathlib import Path

import pytest

from pypi_tasks import compose
from pypi_tasks.errors import BadInput
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import settings_of, told

REGISTRY = "127.0.0.1:5000"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, REGISTRY=REGISTRY, DEVPI_UID="1234", DEVPI_GID="2345")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


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
        assert "pull_policy: never" in text

    def test_stable_runs_what_the_registry_has_under_the_tag(self, settings: Settings) -> None:
        text = lines(compose.render(settings, "stable"))
        assert f'image: "{REGISTRY}/pypi_server:latest"' in text
        assert "pull_policy: missing" in text

    def test_stable_runs_a_digest_too(self, tmp_path: Path) -> None:
        digest = f"sha256:{'0a' * 32}"
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, TAG=digest), "stable")
        assert f'image: "{REGISTRY}/pypi_server@{digest}"' in lines(text)

    def test_stable_needs_a_registry(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            compose.render(settings_of(tmp_path), "stable")
        assert "REGISTRY is empty" in told(caught)

    def test_differ_in_the_image_and_their_name_alone(self, settings: Settings) -> None:
        dev, stable = (lines(compose.render(settings, env)) for env in ("dev", "stable"))
        assert len(dev) == len(stable)
        different = [one for one, other in zip(dev, stable, strict=True) if one != other]
        assert [re.split(r"[: ]", line)[0] for line in different] == ["#", "image", "pull_policy", "pypi-tasks.env"]


@pytest.mark.parametrize("env", ["dev", "stable"])
class TestEveryVariant:
    @pytest.mark.parametrize(
        "line",
        [
            "read_only: true",
            "cap_drop: [ALL]",
            'security_opt: ["no-new-privileges:true"]',
            'mem_limit: "1g"',
            'user: "1234:2345"',
            "restart: unless-stopped",
            "driver: json-file",
            'options: {max-size: 10m, max-file: "3"}',
            "secrets: [root_password, user_password, server_secret]",
        ],
    )
    def test_is_hardened(self, settings: Settings, env: str, line: str) -> None:
        assert line in lines(compose.render(settings, env))

    @pytest.mark.parametrize("opened", ["privileged", "cap_add", "network_mode: host", "docker.sock"])
    def test_opens_nothing_again(self, settings: Settings, env: str, opened: str) -> None:
        assert opened not in compose.render(settings, env)

    def test_listens_where_it_was_told(self, tmp_path: Path, env: str) -> None:
        text = lines(compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, DEVPI_PORT="4040", DEVPI_BIND="::1"), env))
        assert 'published: "4040"' in text
        assert 'host_ip: "::1"' in text
        assert "target: 3141" in text

    def test_mounts_the_data_and_never_makes_the_folder_as_root(self, settings: Settings, env: str) -> None:
        source = json.dumps(str(settings.devpi_home))
        line = f"- {{type: bind, source: {source}, target: /devpi, bind: {{create_host_path: false}}}}"
        assert line in lines(compose.render(settings, env))

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
        text = lines(compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, PROJECT="team"), env))
        assert text.count('pypi-tasks.project: "team"') == 2  # the container and the network
        assert f'pypi-tasks.env: "{env}"' in text

    def test_knows_the_outside_url(self, tmp_path: Path, env: str) -> None:
        url = "https://pypi.example/devpi"
        text = compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, OUTSIDE_URL=url), env)
        assert f'DEVPISERVER_OUTSIDE_URL: "{url}"' in lines(text)

    def test_mounts_certificates_where_they_are_set(self, tmp_path: Path, env: str) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
        text = lines(compose.render(settings_of(tmp_path, REGISTRY=REGISTRY, CA_BUNDLE=str(bundle)), env))
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


class TestCommand:
    def test_names_the_project_and_the_rendered_file(self, settings: Settings) -> None:
        stack = compose.Stack(World(), settings, "stable")
        file = str(compose.RENDERED / "docker-compose-stable.yaml")
        wanted = ["docker", "compose", "--project-name", "pypi-stable", "--file", file, "up", "--detach"]
        assert stack.argv("up", "--detach") == wanted

    def test_environments_of_two_projects_are_two_stacks(self, tmp_path: Path) -> None:
        stack = compose.Stack(World(), settings_of(tmp_path, PROJECT="team"), "dev")
        assert stack.argv("ps")[2:4] == ["--project-name", "team-dev"]

    def test_secrets_belong_to_the_user_of_the_container(self, settings: Settings) -> None:
        assert compose.Stack(World(), settings, "dev").owner == (1234, 2345)

"""The self-signed pair: for the names that clients use, and told from one that somebody vouches for."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pypi_tasks import certificate
from pypi_tasks.errors import BadInput
from pypi_tasks.world import World
from tests.helpers import settings_of, told


def test_is_for_the_public_name_and_for_this_host(tmp_path: Path) -> None:
    names = certificate.hosts(settings_of(tmp_path, OUTSIDE_URL="https://pypi.example:8443/team", DEVPI_BIND="127.0.0.2"))
    assert names[0] == "pypi.example"
    assert {"localhost", "127.0.0.1", "::1", "127.0.0.2"} <= set(names)


def test_an_address_for_all_is_no_name(tmp_path: Path) -> None:
    assert "0.0.0.0" not in certificate.hosts(settings_of(tmp_path, DEVPI_BIND="0.0.0.0", OUTSIDE_URL="https://pypi.example"))


def test_names_and_addresses_are_alternatives_and_the_key_is_its_own() -> None:
    pem, key = certificate.self_signed(["pypi.example", "127.0.0.1"])
    made = x509.load_pem_x509_certificate(pem.encode())
    alternatives = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["pypi.example"]
    assert [str(one) for one in alternatives.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert load_pem_private_key(key.encode(), None).public_key() == made.public_key()
    assert made.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=364)


def test_a_pair_that_is_in_use_is_not_replaced(tmp_path: Path) -> None:
    certificate.make(World(), settings_of(tmp_path))
    folder = tmp_path / "secrets"
    before = (folder / "self_signed.pem").read_bytes()
    used = settings_of(tmp_path, TLS_CERTIFICATE=str(folder / "self_signed.pem"), TLS_KEY=str(folder / "self_signed.key"))
    assert certificate.is_self_signed(folder / "self_signed.pem")
    with pytest.raises(BadInput) as caught:
        certificate.make(World(), used)
    assert "is set" in told(caught) and (folder / "self_signed.pem").read_bytes() == before
    assert (folder / "self_signed.key").stat().st_mode & 0o777 == 0o600


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    certificate.make(World(dry=True), settings_of(tmp_path))
    assert not (tmp_path / "secrets").exists()

"""A self-signed pair for TLS, for trying out: browsers and clients have to be told to trust it."""

import datetime
import ipaddress
import socket
from pathlib import Path
from urllib.parse import urlsplit

from pypi_tasks.errors import BadInput
from pypi_tasks.settings import Settings
from pypi_tasks.world import World

DAYS = 365


def hosts(settings: Settings) -> list[str]:
    """The names and addresses by which clients may call the server."""
    named = urlsplit(settings.client_url).hostname or ""
    bound = [settings.devpi_bind] if settings.devpi_bind not in ("0.0.0.0", "::") else []
    return list(dict.fromkeys(name for name in (named, "localhost", "127.0.0.1", "::1", *bound, socket.gethostname()) if name))


def self_signed(names: list[str]) -> tuple[str, str]:
    """A certificate for these names and addresses and its private key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def alternative(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([alternative(name) for name in names]), critical=False)
        # Not a CA: uv takes none as a server's own certificate.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def is_self_signed(file: Path) -> bool:
    """Whether a certificate vouches for itself, so that it is what clients have to trust."""
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError as error:
        raise BadInput(f"TLS_CERTIFICATE={file} holds no certificate that can be read: {error}.") from None
    return first.issuer == first.subject


def make(world: World, settings: Settings) -> None:
    """Write a pair into SECRETS_HOME and say how to use it. A pair that is in use is not replaced."""
    if settings.tls_key:
        raise BadInput(f"TLS_KEY is set to {settings.tls_key} already.", fix="unset it and TLS_CERTIFICATE for another pair")
    folder, names = settings.secrets_home, hosts(settings)
    certificate, key = self_signed(names)
    world.make_folder(folder, mode=0o700)
    world.write(folder / "self_signed.pem", certificate)
    world.write(folder / "self_signed.key", key, mode=0o600, secret=True)
    world.say(f"""
A pair for {", ".join(names)}, good for {DAYS} days. To use it, in .env:
  TLS_CERTIFICATE={folder / "self_signed.pem"}
  TLS_KEY={folder / "self_signed.key"}
then inv up. Clients have to trust it:
  pip      --cert {folder / "self_signed.pem"}
  uv       SSL_CERT_FILE={folder / "self_signed.pem"}
  twine    --cert {folder / "self_signed.pem"}""")

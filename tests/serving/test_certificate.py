"""Certificates: what is wrong with one is said before anything is loaded; a renewed one is used without a restart."""

import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest

from fullbake.core.errors import RecipeError
from fullbake.serving import certificate
from fullbake.serving.certificate import Certificate

TLS = Path(__file__).parents[1] / "fixtures" / "tls"
BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0"


def shown_to_a_client(own: Certificate) -> str:
    """Return the certificate that a client gets which trusts any."""
    ours, theirs = socket.socketpair()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE

    def serve() -> None:
        with own.context.wrap_socket(theirs, server_side=True) as wire:
            wire.recv(1)

    server = threading.Thread(target=serve)
    server.start()
    with client.wrap_socket(ours) as wire:
        found = ssl.DER_cert_to_PEM_cert(wire.getpeercert(binary_form=True) or b"")
        wire.send(b"a")
    server.join()
    return found.strip()


def test_certificate_is_shown_and_renewed_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crt, key = tmp_path / "a.crt", tmp_path / "a.key"
    shutil.copy(TLS / "server.crt", crt)
    shutil.copy(TLS / "server.key", key)
    own = Certificate(crt, key)
    first, second = ((TLS / name).read_text().strip() for name in ("server.crt", "other.crt"))
    assert shown_to_a_client(own) == first
    crt.write_text((TLS / "other.crt").read_text() + "\n")
    own.renew()
    assert "stays as it is" in caplog.text
    assert "not that of the certificate" in caplog.text
    assert shown_to_a_client(own) == first
    key.write_text((TLS / "other.key").read_text() + "\n\n")
    own.renew()
    assert shown_to_a_client(own) == second
    crt.unlink()
    own.renew()
    assert shown_to_a_client(own) == second


def test_certificate_and_key_may_be_in_one_file(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text((TLS / "server.key").read_text() + (TLS / "server.crt").read_text())
    assert shown_to_a_client(Certificate(both, None)) == (TLS / "server.crt").read_text().strip()


def test_certificate_that_will_expire_soon_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(certificate, "SOON_DAYS", 365 * 200)
    Certificate(TLS / "server.crt", TLS / "server.key")
    assert "expires in" in caplog.text


@pytest.mark.parametrize(
    ("crt", "key", "said"),
    [
        ("none.crt", "server.key", "--tls-certificate"),
        ("server.crt", "none.key", "--tls-key"),
        (".", "server.key", "cannot be read"),
        ("server.crt", "other.key", "the key is not that of the certificate"),
        ("server.crt", "locked.key", "the key has a password"),
        ("server.crt", None, "Name the file of the key by --tls-key"),
        ("server.key", "server.crt", "PEM files"),
        ("README.md", "server.key", "PEM files"),
        ("expired.crt", "server.key", "has expired"),
        ("future.crt", "server.key", "is not yet valid"),
    ],
)
def test_what_is_wrong_is_said(crt: str, key: str | None, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Certificate(TLS / crt, None if key is None else TLS / key)
    assert said in " ".join(str(raised.value).split())


def test_wrong_certificate_ends_the_command_before_a_bundle_is_loaded(run) -> None:
    words = ("serve", BUNDLE, "--port", "0", "--tls-certificate", TLS / "expired.crt", "--tls-key", TLS / "server.key")
    code, out, error = run(*words)
    assert (code, out) == (2, "")
    assert "the certificate has expired" in error
    assert "a key needs its certificate" in run("serve", BUNDLE, "--tls-key", TLS / "server.key")[2]
    assert "--tls-certificate" in run("serve", BUNDLE, "--ssl-certfile", "a.pem")[2]

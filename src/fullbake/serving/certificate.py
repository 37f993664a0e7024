"""The certificate of a server: checked before anything is loaded, and read again when its file changes."""

import ssl
import time
from pathlib import Path
from typing import Final

from fullbake.core.console import say, warn
from fullbake.core.errors import RecipeError, one_line
from fullbake.core.hashing import FileStamp, file_stamp

_NOT_YET_VALID, _EXPIRED = 9, 10
"""Codes of OpenSSL (X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED)."""

SOON_DAYS: Final = 14
"""Days before its end from which on a certificate is warned of."""


class Certificate:
    """A certificate and its key.

    Args:
        certificate: PEM file of the certificate, followed by those between it and its root, if there are any.
        key: PEM file of its key; None if the first file has it too.

    Raises:
        RecipeError: A file is missing or wrong, they do not belong together, or the certificate is out of its time.
    """

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._certificate, self._key = certificate, key
        self._stamp = self._read_stamp()
        self.context = _load(certificate, key)
        """What TLS connections are made with. `renew` changes it in place, so new connections get the new files."""

        _check_time(self.context, certificate)

    def renew(self) -> None:
        """Read the files again if they changed. Files that are wrong now change nothing, and a warning says so."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            _check_time(_load(self._certificate, self._key), self._certificate)
        except RecipeError as error:
            warn(f"the certificate stays as it is: {one_line(error)}")
            return
        self.context.load_cert_chain(self._certificate, self._key)
        say(f"certificate read again: {self._certificate}")

    def _read_stamp(self) -> tuple[FileStamp | None, ...]:
        return tuple(file_stamp(path) for path in (self._certificate, self._key) if path is not None)


def _load(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return a context with the files, or raise RecipeError that names the flag of the one that is wrong."""
    for flag, path in (("--tls-certificate", certificate), ("--tls-key", key)):
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            what = f"the file cannot be read ({error.strerror or error})"
            raise RecipeError(what, where=f"{flag} {path}", expected="a PEM file") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked: list[bool] = []

    def refuse_password() -> str:
        asked.append(True)
        return ""

    try:
        context.load_cert_chain(certificate, key, refuse_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _explain(error, certificate, key, encrypted=bool(asked)) from error
    return context


def _explain(error: Exception, certificate: Path, key: Path | None, *, encrypted: bool) -> RecipeError:
    reason = getattr(error, "reason", None) or str(error)
    where = f"--tls-certificate {certificate}" + (f" --tls-key {key}" if key is not None else "")
    if encrypted:
        remedy = "Write it without one, readable by the server alone: openssl pkey -in KEY -out PLAIN; chmod 600 PLAIN."
        return RecipeError("the key has a password, and nobody can type it into a server", where=where, remedy=remedy)
    if reason == "KEY_VALUES_MISMATCH":
        return RecipeError("the key is not that of the certificate", where=where, expected="a pair made together")
    return RecipeError(
        "the certificate and its key cannot be used",
        where=where,
        expected="PEM files (-----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----)",
        got=reason[:200],
        remedy=None if key is not None else "Name the file of the key by --tls-key, unless it is in the same file.",
    )


def _check_time(server: ssl.SSLContext, certificate: Path) -> None:
    """Raise RecipeError if a certificate has expired or is not yet valid; warn if it will expire soon.

    The ssl module reads the dates of a certificate only where it checks one, so both ends of a connection are made in
    memory, and the client trusts this certificate alone.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(4):  # turns of a handshake
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
                    what = "has expired" if error.verify_code == _EXPIRED else "is not yet valid"
                    remedy = "Renew it, or correct the clock of this machine."
                    raise RecipeError(
                        f"the certificate {what}", where=f"--tls-certificate {certificate}", remedy=remedy
                    ) from error
                return  # whatever else this client dislikes is for other clients to judge
            except ssl.SSLError:
                return
    end_of_time = (ends[0].getpeercert() or {}).get("notAfter")
    if isinstance(end_of_time, str):
        days = (ssl.cert_time_to_seconds(end_of_time) - time.time()) / 86_400
        if days < SOON_DAYS:
            warn(f"the certificate {certificate} expires in {days:.0f} days ({end_of_time})")

"""CAs and certificates made by openssl, as an operator would."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from rebalancerd.observe.listening import TlsFiles


@dataclass(frozen=True)
class Authority:
    """A CA in a directory."""

    directory: Path
    name: str

    @property
    def ca(self) -> Path:
        """Its certificate."""
        return self.directory / f"{self.name}.pem"

    def issue(self, who: str, days: int = 2) -> TlsFiles:
        """A certificate for 127.0.0.1 and localhost, good on both sides, with this CA to check the other."""
        stem = self.directory / f"{self.name}-{who}"
        extensions = stem.with_suffix(".ext")
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={who}",
                 "-keyout", f"{stem}.key", "-out", f"{stem}.csr")  # fmt: skip
        _openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", str(self.ca), "-CAkey", f"{self.directory}/{self.name}.key",
                 "-CAcreateserial", "-days", str(days), "-extfile", str(extensions), "-out", f"{stem}.pem")  # fmt: skip
        return TlsFiles(cert_file=f"{stem}.pem", key_file=f"{stem}.key", ca_file=str(self.ca))


def authority(directory: Path, name: str) -> Authority:
    """A new CA."""
    made = Authority(directory, name)
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-keyout", f"{directory}/{name}.key", "-out", str(made.ca))  # fmt: skip
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)

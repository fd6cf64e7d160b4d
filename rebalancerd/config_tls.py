"""What listens or is asked beyond this machine does so with certificates, or the configuration is refused."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rebalancerd.config_errors import Key, Problem
from rebalancerd.observe.listening import TlsError, TlsFiles, check_open, is_loopback, tls_files

if TYPE_CHECKING:
    from rebalancerd.config import Config

PARTS = ("cert_file", "key_file", "ca_file")


def problems(cfg: "Config") -> Iterator[Problem]:
    """Addresses that are open without certificates, certificates that are incomplete, agents asked in the clear."""
    yield from _files(("serve", "metrics"), [getattr(cfg.serve, f"metrics_{part}") for part in PARTS])
    yield from _files(("observe", "agent"), [getattr(cfg.observe, f"agent_{part}") for part in PARTS])
    try:
        address = cfg.metrics_address()
        if address is not None:
            check_open(address[0], tls=_complete(cfg.serve.metrics_cert_file, cfg.serve))
    except TlsError as error:
        hint = "metrics_cert_file, metrics_key_file and metrics_ca_file, or 127.0.0.1"
        yield Problem(key=("serve", "metrics_listen"), reason=str(error), hint=hint)
    except ValueError:
        pass  # told already
    for index, host in enumerate(cfg.hosts):
        yield from _agent(("hosts", index, "agent_url"), host.agent_url, cfg.observe.agent_cert_file)


def _complete(cert: str | None, serve: object) -> bool:
    return cert is not None and all(getattr(serve, f"metrics_{part}") for part in PARTS)


def _files(names: tuple[str, str], given: list[str | None]) -> Iterator[Problem]:
    section, prefix = names
    try:
        files: TlsFiles | None = tls_files(*given)
    except TlsError as error:
        missing = next(part for part, value in zip(PARTS, given, strict=True) if not value)
        yield Problem(key=(section, f"{prefix}_{missing}"), reason=str(error))
        return
    for part, value in zip(PARTS, given, strict=True):
        if files is not None and value is not None and "/" in value and not value.startswith("/"):
            hint = "an absolute path, or the bare name of a systemd credential"
            yield Problem(key=(section, f"{prefix}_{part}"), reason=f"{value!r} is not an absolute path", hint=hint)


def _agent(key: Key, url: str | None, cert: str | None) -> Iterator[Problem]:
    if url is None:
        return
    try:
        scheme, name = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        return  # told already
    if scheme == "http" and name and not is_loopback(name):
        hint = "start the agent with --tls-cert, --tls-key and --tls-ca, and write https://"
        yield Problem(
            key=key, reason=f"figures of {name} would cross the network in the clear, for anybody to change", hint=hint
        )
    elif scheme == "https" and cert is None:
        hint = "observe.agent_cert_file, agent_key_file and agent_ca_file"
        yield Problem(key=key, reason="an agent at https:// asks for a certificate", hint=hint)

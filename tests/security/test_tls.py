"""Beyond this machine only with certificates: real TLS with a CA made by openssl, at the agent and at the metrics."""

import http.client
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebalancerd import config
from rebalancerd.cli.app import app
from rebalancerd.config import ConfigError
from rebalancerd.observe import listening
from rebalancerd.observe.agent import serve_agent
from rebalancerd.observe.agent_client import HttpAgents
from rebalancerd.observe.listening import TlsError, TlsFiles, check_open, is_loopback
from rebalancerd.serve.metrics import Metrics, serve_metrics
from tests.security.certificates import Authority, authority

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the package openssl")
PATIENCE = 30.0
HOST = "[[hosts]]\nname = 'h1'\nuri = 'qemu+ssh://h1/system'\n"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def server_files(ours: Authority) -> TlsFiles:
    return ours.issue("server")


@pytest.fixture(scope="module")
def client_files(ours: Authority) -> TlsFiles:
    return ours.issue("client")


@pytest.fixture(scope="module")
def others_files(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate of another CA, whose owner trusts ours."""
    made = authority(tmp_path_factory.mktemp("other"), "other").issue("stranger")
    return replace(made, ca_file=str(ours.ca))


@pytest.fixture(params=["agent", "metrics"])
def port(request: pytest.FixtureRequest, server_files: TlsFiles) -> Iterator[int]:
    """Of a server that wants certificates."""
    if request.param == "agent":
        running = serve_agent("127.0.0.1:0", tls=server_files)
        yield int(running.address.rpartition(":")[2])
        running.close()
    else:
        number, stop = serve_metrics(Metrics(), "127.0.0.1", 0, server_files)
        yield number
        stop()


def read(port: int, context: ssl.SSLContext | None) -> str:
    """The page, by plain HTTP without a context."""
    made = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        if context is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    )
    try:
        made.request("GET", "/metrics")
        return made.getresponse().read().decode()
    finally:
        made.close()


def test_only_certificates_of_the_ca_are_answered(
    port: int, ours: Authority, client_files: TlsFiles, others_files: TlsFiles
) -> None:
    """None, another CA's, no TLS at all: refused. The right one: answered, afterwards as before."""
    nothing = ssl.create_default_context(cafile=str(ours.ca))

    assert "# HELP" in read(port, client_files.for_client())
    for context in (nothing, others_files.for_client(), None):
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            read(port, context)
    assert "# HELP" in read(port, client_files.for_client())


def test_a_client_trusts_only_the_right_server_under_its_own_name(
    port: int, client_files: TlsFiles, others_files: TlsFiles
) -> None:
    strange = replace(client_files, ca_file=others_files.cert_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        read(port, strange.for_client())
    context = client_files.for_client()
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        context.wrap_socket(plain, server_hostname="someone.else")


def test_old_protocols_are_refused(port: int, client_files: TlsFiles) -> None:
    context = client_files.for_client()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        read(port, context)


def test_the_daemon_reads_an_agent_by_tls(
    server_files: TlsFiles, client_files: TlsFiles, others_files: TlsFiles
) -> None:
    """Figures with the right certificate, none without or with another's."""
    running = serve_agent("127.0.0.1:0", tls=server_files)
    urls = {"h1": f"https://{running.address}/metrics"}

    def figure(tls: TlsFiles | None) -> object:
        agents = HttpAgents(urls, timeout=PATIENCE, tls=tls)
        try:
            return agents.read("h1")
        finally:
            agents.close()

    try:
        seen = figure(client_files)
        assert seen is not None
        assert figure(others_files) is None
        assert figure(None) is None
    finally:
        running.close()


def test_silent_clients_stop_nobody(
    server_files: TlsFiles, client_files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are places connect and say nothing: they are dropped, and others are answered again."""
    monkeypatch.setattr(listening, "CLIENT_SECONDS", 1.0)
    number, stop = serve_metrics(Metrics(), "127.0.0.1", 0, server_files)
    silent = [socket.create_connection(("127.0.0.1", number), PATIENCE) for _ in range(listening.MOST_CLIENTS)]
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                assert "# HELP" in read(number, client_files.for_client())
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.1)
    finally:
        for client in silent:
            client.close()
        stop()


@pytest.mark.parametrize(
    "start",
    [
        lambda: serve_agent("0.0.0.0:0"),
        lambda: serve_agent("[::]:0"),
        lambda: serve_agent("192.0.2.1:9178"),
        lambda: serve_metrics(Metrics(), "0.0.0.0", 0),
        lambda: serve_metrics(Metrics(), "host.example", 0),
    ],
)
def test_nothing_opens_without_certificates(start: Callable[[], object]) -> None:
    with pytest.raises(TlsError, match="needs TLS with client certificates"):
        start()


def test_the_agents_command_refuses_too(tmp_path: Path) -> None:
    bare = CliRunner().invoke(app, ["agent", "--listen", "0.0.0.0:0"])
    partly = CliRunner().invoke(app, ["agent", "--listen", "0.0.0.0:0", "--tls-cert", str(tmp_path / "c.pem")])
    missing = CliRunner().invoke(app, ["agent", "--listen", "0.0.0.0:0", "--tls-cert", "/none/c", "--tls-key", "/none/k",
                                       "--tls-ca", "/none/ca"])  # fmt: skip

    assert (bare.exit_code, partly.exit_code, missing.exit_code) == (2, 2, 2)
    assert "needs TLS" in bare.output
    assert "give all three" in partly.output
    assert "CA file /none/ca: No such file" in missing.output


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[serve]\nmetrics_listen = '0.0.0.0:9177'\n", "serve.metrics_listen: 0.0.0.0 can be reached by others"),
        ("[serve]\nmetrics_listen = '[::]:9177'\n", "serve.metrics_listen: :: can be reached by others"),
        ("[serve]\nmetrics_listen = 'me:9177'\nmetrics_cert_file = '/c'\n", "serve.metrics_key_file: certificate, key and CA"),
        ("[serve]\nmetrics_cert_file='a/c'\nmetrics_key_file='k'\nmetrics_ca_file='ca'\n", "'a/c' is not an absolute path"),
        ("agent_url = 'http://h1:9178/metrics'\n", "hosts[0].agent_url: figures of h1 would cross the network in the clear"),
        ("agent_url = 'https://h1:9178/metrics'\n", "hosts[0].agent_url: an agent at https:// asks for a certificate"),
        ("[observe]\nagent_ca_file = '/ca'\n", "observe.agent_cert_file: certificate, key and CA belong together"),
    ],
)  # fmt: skip
def test_the_configuration_refuses_what_is_open(more: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.parse(HOST + more)

    assert told in str(error.value)


def test_the_configuration_takes_what_is_closed() -> None:
    files = "{0}_cert_file = '/c'\n{0}_key_file = 'key'\n{0}_ca_file = '/ca'\n"
    cfg = config.parse(
        f"{HOST}agent_url = 'https://h1:9178/metrics'\n[observe]\n{files.format('agent')}"
        f"[serve]\nmetrics_listen = '0.0.0.0:9177'\n{files.format('metrics')}"
    )
    local = config.parse(f"{HOST}agent_url = 'http://127.0.0.1:9178'\n")

    assert cfg.metrics_tls() == TlsFiles(cert_file="/c", key_file="key", ca_file="/ca")
    assert cfg.observe_settings().agent_tls == cfg.metrics_tls()
    assert local.metrics_tls() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_loopback(host: str) -> None:
    check_open(host, tls=False)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example", "localhost.evil", "2130706433", "0x7f.1"]
)
def test_no_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_keys_come_from_systemd_credentials_too(
    server_files: TlsFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, source in (("c", server_files.cert_file), ("k", server_files.key_file), ("ca", server_files.ca_file)):
        shutil.copy(source, tmp_path / name)
    named = TlsFiles(cert_file="c", key_file="k", ca_file="ca")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(TlsError, match="LoadCredential="):
        named.for_server()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert named.for_server().verify_mode is ssl.CERT_REQUIRED

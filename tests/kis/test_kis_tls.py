"""Over TLS as over plain TCP: kept connections, one request an order, and no order to a stranger."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kis_bench import TAKEN, QuickClock, RawServer, http

from worker.brokers.kis.sending import Departure, OneWay


class TLSServer(RawServer):
    """The same server, behind TLS."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(lambda *_: http(TAKEN))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self.url = self.url.replace("http:", "https:")

    def _serve(self, connection: socket.socket) -> None:
        try:
            wrapped = self._context.wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError):
            return
        self._open.append(wrapped)
        super()._serve(wrapped)


@pytest.fixture(name="certificate")
def _certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture(name="server")
def _server(certificate: Path) -> Iterator[TLSServer]:
    server = TLSServer(certificate)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(5)


def order(server: TLSServer) -> httpx2.Request:
    timeout = dict.fromkeys(("connect", "pool", "write", "read"), 2.0)
    return httpx2.Request("POST", server.url, content=b"{}", extensions={"timeout": timeout})


def test_a_connection_over_tls_is_kept_for_the_next_order(server: TLSServer, certificate: Path) -> None:
    clock = QuickClock()
    wire = OneWay(clock, 4, ssl.create_default_context(cafile=str(certificate)))

    for _ in range(3):
        departure = Departure(clock.boottime() + 5, 2.0)
        with wire.send(order(server), departure) as response:
            assert response.status_code == 200
        assert departure.left

    wire.close()
    assert (len(server.requests), server.connections) == (3, 1)


def test_a_server_whose_certificate_nobody_knows_gets_no_order(server: TLSServer) -> None:
    clock = QuickClock()
    wire = OneWay(clock, 4, httpx2.create_ssl_context(trust_env=False))
    departure = Departure(clock.boottime() + 5, 2.0)

    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        with wire.send(order(server), departure):
            pass

    wire.close()
    assert not departure.left
    assert server.requests == []

"""What a receiver can do to the sender: nothing but answer, within a time."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import InvalidRequest
from tests.support.receivers import (
    Behave,
    drips,
    endless_head,
    floods,
    hangs,
    raw,
    receiving,
    replies,
)
from workers.addresses import Address, Policy, parse_networks
from workers.egress import Egress, NotSent, Resolve

LOOPBACK = Policy(parse_networks(["127.0.0.0/8"]))
SHORT = 0.6  #: seconds, for a receiver that is to be given up
#: Far more than that, for a machine that is slow.
AT_MOST = 5.0
MOST_READ = 10_000_000  #: bytes that the kernel's buffers may have taken besides


def _egress(
    policy: Policy = LOOPBACK,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
    timeout: float = 30,
) -> Egress:
    return Egress(policy, timeout=timeout, tls=tls, resolve=resolve)


def _names(*answers: str) -> Callable[[str, int], list[Address]]:
    """A resolver that answers with these, one set of addresses a call."""
    left = list(answers)
    return lambda host, port: [ipaddress.ip_address(a) for a in left.pop(0).split()]


def test_a_post_arrives_whole_and_is_answered() -> None:
    with receiving(replies(204)) as receiver:
        answer = _egress().post(receiver.url, {"X-One": "1"}, b'{"a": 1}')

    (got,) = receiver.got
    assert (answer.status, answer.retry_after) == (204, None)
    assert (got.path, got.body) == ("/hook?token=planted", b'{"a": 1}')
    assert got.headers["x-one"] == "1"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("behave", [hangs, drips])
def test_a_receiver_that_does_not_answer_in_time_is_given_up(behave: Behave) -> None:
    _gives_up(behave, "No answer came within 0.6 s", timeout=SHORT)


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (endless_head, "The head of the answer is too long"),
        (lambda receiver, connection: None, "closed the connection without an answer"),
        (lambda receiver, connection: connection.sendall(b"SSH-2.0\r\n\r\n"), "HTTP/1.1"),
        (lambda r, c: c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 9), "come to its answer"),
    ],
)
def test_a_receiver_that_does_not_answer_as_it_should_is_given_up_before(
    behave: Behave, reason: str
) -> None:
    _gives_up(behave, reason, timeout=10 * AT_MOST)


def _gives_up(behave: Behave, reason: str, *, timeout: float) -> None:
    started = time.monotonic()
    with receiving(behave) as receiver, pytest.raises(NotSent, match=reason) as raised:
        _egress(timeout=timeout).post(receiver.url, {}, b"{}")

    assert time.monotonic() - started < AT_MOST
    assert "planted" not in raised.value.message


def test_ten_gigabytes_of_answer_are_not_read() -> None:
    with receiving(floods) as receiver:
        assert _egress().post(receiver.url, {}, b"{}").status == 200

    assert receiver.sent < MOST_READ


def test_a_redirect_is_an_answer_and_no_way() -> None:
    with receiving() as aim, receiving(replies(307, Location=aim.url)) as receiver:
        assert _egress().post(receiver.url, {}, b"{}").status == 307

    assert aim.got == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("-5", None),
        ("soon", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 2199 23:59:59", 4_000_000_000),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(text: str, seconds: float | None) -> None:
    with receiving(replies(503, Retry_After=text)) as receiver:
        found = _egress().post(receiver.url, {}, b"{}").retry_after

    assert found == seconds or (found is not None and found > (seconds or 0))


@pytest.mark.parametrize(
    "addresses", ["10.0.0.1", "93.184.216.34 169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::1"]
)
def test_a_name_is_refused_for_any_address_that_is_not_public(addresses: str) -> None:
    egress = _egress(Policy(), _names(addresses))

    with pytest.raises(NotSent, match="not public"):
        egress.post("http://example.com/", {}, b"{}")


def test_a_name_that_resolves_differently_the_second_time_gains_nothing() -> None:
    with receiving() as good, receiving(host="127.0.0.2") as inside:
        only_good = Policy(parse_networks(["127.0.0.1/32"]))
        egress = _egress(only_good, _names("127.0.0.1", "127.0.0.2"))
        url = f"http://rebinding.example:{good.port}/"

        assert egress.post(url, {}, b"{}").status == 200  # it was asked once, and that was used
        with pytest.raises(NotSent, match="not public"):
            egress.post(url.replace(str(good.port), str(inside.port)), {}, b"{}")

    assert good.got[0].headers["host"] == f"rebinding.example:{good.port}"
    assert inside.got == []


def test_the_url_is_looked_at_again_at_each_post() -> None:
    for url in ("http://127.0.0.1:22/", "http://u@127.0.0.1:8080/", "gopher://127.0.0.1/"):
        with pytest.raises(InvalidRequest):
            _egress().post(url, {}, b"{}")
    with pytest.raises(InvalidRequest, match="not public"):
        _egress(Policy()).post("http://0x7f.1:8080/", {}, b"{}")


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)

        assert _egress().post(receiver.url, {}, b"{}").status == 200

    assert (len(proxy.got), len(receiver.got)) == (0, 1)


def test_a_resolver_that_hangs_or_fails_is_given_up() -> None:
    ending = threading.Event()

    def hang(host: str, port: int) -> list[Address]:
        ending.wait(30)
        return []

    def fail(host: str, port: int) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    started = time.monotonic()
    with pytest.raises(NotSent, match="No answer came"):
        _egress(resolve=hang, timeout=SHORT).post("http://example.com/", {}, b"{}")
    with pytest.raises(NotSent, match="not known"):
        _egress(resolve=fail).post("http://example.com/", {}, b"{}")
    ending.set()

    assert time.monotonic() - started < AT_MOST


def test_a_dead_address_leaves_time_for_the_next() -> None:
    with receiving() as receiver:
        egress = _egress(resolve=_names("127.0.0.9 127.0.0.1"))  # nobody listens at the first

        assert egress.post(f"http://two.example:{receiver.port}/", {}, b"{}").status == 200


def test_a_handshake_that_hangs_or_drips_is_given_up() -> None:
    def hang(connection: socket.socket, ending: threading.Event) -> None:
        ending.wait(30)

    def drip(connection: socket.socket, ending: threading.Event) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB is to come
        while not ending.wait(0.1):
            connection.sendall(b"\x02")

    for serve in (hang, drip):
        started = time.monotonic()
        with raw(serve) as port, pytest.raises(NotSent, match=r"No answer came|TLS"):
            _egress(timeout=SHORT).post(f"https://127.0.0.1:{port}/", {}, b"{}")
        assert time.monotonic() - started < AT_MOST


def test_the_certificate_has_to_be_for_the_name_and_from_somebody_trusted(tmp_path: Path) -> None:
    server, trusting = _certificate(tmp_path, "hooks.example")
    with receiving(tls=server) as receiver:
        egress = _egress(resolve=_names("127.0.0.1", "127.0.0.1"), tls=trusting)
        url = f"https://hooks.example:{receiver.port}/"

        assert egress.post(url, {}, b"{}").status == 200
        with pytest.raises(NotSent, match="not valid for its name"):
            egress.post(url.replace("hooks", "other"), {}, b"{}")
        with pytest.raises(NotSent, match="not valid for its name"):
            _egress(resolve=_names("127.0.0.1")).post(url, {}, b"{}")

    assert len(receiver.got) == 1


def _certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for this name, and a client's that trusts it."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    named = f"-subj /CN={name} -addext subjectAltName=DNS:{name}"
    wanted = f"{made} {named} -keyout {key} -out {cert}"
    subprocess.run(wanted.split(), check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))

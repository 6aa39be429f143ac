"""Where webhooks are never sent, however the URL spells it."""

from __future__ import annotations

import ipaddress

import pytest

from penstock.errors import InvalidRequest
from workers.addresses import Policy, parse_networks

PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "2a00:1450:4001:80b::200e")
PRIVATE = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.0.8",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)
#: What a URL may not be, with or without a lookup.
REFUSED = (
    "http://127.0.0.1/",
    "http://127.1/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://2130706433/",
    "http://0/",
    "http://[::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost:8080/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:port/",
    "http://user@example.com/",
    "http://user:password@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "gopher://example.com/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "javascript:alert(1)",
    "//example.com/",
    "example.com",
    "http:///path",
    "http://",
    "http://a..b/",
    "http://-a.com/",
    "http://[::1/",
    "http://exa mple.com/",
    "http://example.com/a\r\nX-Header: b",
    "http://example.com/a\tb",
    "http://ex\u0430mple.com/",
    "http://example.com/\ud800",
    "http://example.com/" + "a" * 2_048,
    "",
)


def test_only_addresses_that_the_whole_world_has_are_let_through() -> None:
    policy = Policy()

    assert [a for a in PUBLIC if not policy.allows(ipaddress.ip_address(a))] == []
    assert [a for a in PRIVATE if policy.allows(ipaddress.ip_address(a))] == []


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_with_a_trick_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Policy().parse(url, "callback_url")

    assert raised.value.param == "callback_url"
    assert raised.value.message.startswith("`callback_url`: ")


def test_a_plain_url_is_taken_apart() -> None:
    target = Policy().parse("https://Hooks.Example.com./a/b?c=d#e")

    assert (target.scheme, target.host, target.port) == ("https", "hooks.example.com", 443)
    assert (target.path, target.authority) == ("/a/b?c=d", "hooks.example.com")
    assert Policy().parse("http://8.8.8.8:8080").authority == "8.8.8.8:8080"
    assert Policy().parse("http://[2606:2800::1]:8080/").authority == "[2606:2800::1]:8080"


def test_networks_of_ones_own_are_let_through_when_they_are_named() -> None:
    policy = Policy(parse_networks(["127.0.0.0/8", "fd00::/8"]))

    for url in ("http://127.0.0.1:8080/", "http://localhost:8080/", "http://[fd00::1]/"):
        policy.parse(url)
    for url in ("http://10.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://[::1]/"):
        with pytest.raises(InvalidRequest):
            policy.parse(url)

"""Which hosts are on this machine, and which are nearby."""

from __future__ import annotations

import pytest

from pytest_seeddb.cli.database import is_nearby, is_on_this_machine
from pytest_seeddb.servers.address import Address

HERE = [
    "/tmp",
    "@abstract",
    "localhost",
    "LOCALHOST",
    "db.localhost",
    "127.0.0.1",
    "127.8.9.1",
    "::1",
    "0.0.0.0",
    "127.1",
]
NEARBY = ["db", "postgres-1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"]
FAR = [
    *("db.example.com", "db.", "shop.cluster.local", "localhost.example.com", "127.0.0.1.example.com"),
    *("203.0.113.7", "198.51.100.1", "192.0.2.1", "100.64.0.1", "2001:db8::1", "2002:a00:1::1"),
    *("8.8.8.8", "172.32.0.1", "2a00:1450::1", "::ffff:8.8.8.8", "134744072", "0x8080808", "010.8.8.8"),
]


@pytest.mark.parametrize("host", [*HERE, *NEARBY, *FAR])
def test_a_host_is_here_nearby_or_far(host):
    assert (is_on_this_machine(host), is_nearby(host)) == (host in HERE, host not in FAR)


@pytest.mark.parametrize(
    ("url", "variables", "hosts"),
    [
        ("postgresql:///x", {}, ()),
        ("postgresql:///x", {"PGHOST": "db.example.com"}, ("db.example.com",)),
        ("postgresql:///x", {"PGHOSTADDR": "8.8.8.8"}, ("8.8.8.8",)),
        ("postgresql://db/x", {"PGHOST": "localhost", "PGHOSTADDR": "8.8.8.8"}, ("db",)),
        ("postgresql://localhost/x?hostaddr=8.8.8.8", {}, ("localhost", "8.8.8.8")),
        ("postgresql://localhost,db.example.com/x", {}, ("localhost", "db.example.com")),
        ("postgresql:///x?service=far", {}, ("db.example.com",)),
        ("postgresql:///x", {"PGSERVICE": "far"}, ("db.example.com",)),
    ],
)
def test_an_address_has_all_the_hosts_that_it_may_lead_to(monkeypatch, tmp_path, url, variables, hosts):
    (tmp_path / "services").write_text("[far]\nhost=db.example.com\n")
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "PGSERVICEFILE": str(tmp_path / "services")}.items():
        monkeypatch.setenv(name, value)
    assert Address.parse(url, source="here").hosts == hosts

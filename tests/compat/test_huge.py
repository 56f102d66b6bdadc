"""Preloaded programs on ring memory in huge pages, and on POSIX memory again when the helper comes back without any."""

from __future__ import annotations

from collections.abc import Callable

from compat.fix_lab import EAGER_SHARE, Builder, Lab, Namespace

pytest_plugins = ["compat.fix_paths", "unit.fix_huge"]

CONNECTIONS, BYTES = 4, 400_000


def share(lab: Lab, build: Builder) -> float:
    """Part of the bytes of a pair of programs, of which each byte is compared, that went by ring."""
    carried = 2 * CONNECTIONS * BYTES
    ran = lab.run([build("streams"), "4", str(CONNECTIONS), str(BYTES)], "eager", carries=carried).ok()
    return ran.sent.local / carried


def test_rings_in_huge_pages(huge_pages: Callable[[], int], namespace: Namespace, build: Builder) -> None:
    free = huge_pages()
    with Lab(namespace, "huge") as lab:
        assert not lab.daemon.path("bulk").exists()
        assert huge_pages() == free - 16
        by_ring = share(lab, build)
        print(f"{by_ring:.1%} of the bytes by rings in huge pages")
        assert by_ring > EAGER_SHARE
        server, client = lab.connected("eager")
        for actor in (server, client):
            maps = actor.do("open('/proc/self/maps').read()")
            assert any("SYSV" in line or "hugetlb" in line for line in maps.splitlines()), "it has not attached the huge pages"
        assert "System V, huge pages" in lab.inspect("--memory").stdout
        assert lab.inspect("--check").returncode == 0
        server.end()
        client.end()
        lab.assert_clean()
        assert lab.daemon.end()[0] == 0
    assert huge_pages() == free

from __future__ import annotations


def test_a_run_leaves_what_it_found_and_passes_again(site, tried):
    site.passes()
    first = site.standing()
    site.passes("-n", "2")
    assert site.standing() == first
    assert [name[:9] for name in first["databases"] if name.startswith("seeddb")]
    tried("a run in peace", 2)

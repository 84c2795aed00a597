"""Back to the seeded state in the middle of a test."""

from shop.service import place_order, stock_of

ALICE = "customer1@mail.example"


def test_each_round_starts_from_the_seeds(seeded_db):
    for quantity in (1, 7, 20):
        assert place_order(ALICE, "S01", {"SKU-001": quantity}) == 1030
        assert stock_of("S01", "SKU-001") == 20 - quantity

        seeded_db.reset()

    assert stock_of("S01", "SKU-001") == 20


def test_even_a_dropped_table_comes_back(seeded_db):
    with seeded_db.connect() as connection:
        connection.execute("DROP TABLE order_lines CASCADE")

    seeded_db.reset()

    assert place_order(ALICE, "S01", {"SKU-001": 1}) == 1030

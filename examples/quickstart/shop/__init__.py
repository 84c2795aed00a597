"""A small shop: what it sells, from which stores, and to whom."""

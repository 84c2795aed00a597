"""``python -m shop.report``: what was sold, by category."""

import sys

from shop.service import sales_report


def main() -> None:
    """Write one line for each category."""
    for sales in sales_report():
        sys.stdout.write(f"{sales.category:<20} {sales.sold:>5} {sales.revenue:>12}\n")


if __name__ == "__main__":
    main()

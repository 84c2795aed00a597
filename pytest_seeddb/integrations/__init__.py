"""Other pytest plugins that have databases of their own."""

"""Seeds: their declaration, their order, and running them, as steps."""

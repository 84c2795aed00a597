"""Each source of a schema, as steps."""

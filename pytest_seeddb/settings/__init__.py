"""Values with their source: the table, the environment, the options; and which of them says production."""

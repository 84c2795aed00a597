"""Many rows at once from factories."""

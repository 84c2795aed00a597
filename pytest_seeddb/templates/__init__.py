"""Finished databases: found or built, named, listed, exported, pruned."""

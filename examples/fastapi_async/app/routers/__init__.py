"""The clinic's paths, one module for each noun."""

"""The run directory: writing and reading its files."""

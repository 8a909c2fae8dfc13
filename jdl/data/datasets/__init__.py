"""Data sets by name, from files and from memory, and generators."""

"""`python -m jdl.cli` does the same as `jdl`."""

from jdl.cli.main import command

if __name__ == "__main__":
    command()

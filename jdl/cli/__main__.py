"""`python -m jdl.cli` is `jdl`."""

from jdl.cli.main import command

if __name__ == "__main__":
    command()

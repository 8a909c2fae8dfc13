"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("jdl-jax")
except PackageNotFoundError:  # the source tree without an installation
    __version__ = "unknown"

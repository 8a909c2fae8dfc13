"""The version of the installed package, and of others."""

from importlib.metadata import PackageNotFoundError, version


def package_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


__version__ = package_version("jdl-jax") or "unknown"
"""The version of jdl; "unknown" for the source tree without an installation."""

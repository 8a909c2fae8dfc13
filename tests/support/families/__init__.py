"""The rows of the contract's table for each family of models: one module a family."""

from importlib import import_module
from pkgutil import iter_modules

ROWS = [
    row
    for module in iter_modules(__path__)
    for row in import_module(f"{__name__}.{module.name}").ROWS
]

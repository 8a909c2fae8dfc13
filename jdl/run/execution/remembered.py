"""Which form of dispatch was the faster one for a program on this machine, for its next run.

It stands beside the compiled programs, in the folder of jax's compilation cache; where there is
none (the library sets no flag), nothing is remembered.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from jdl.core.errors import InputError, from_json
from jdl.run.storage.files import write_json


def recall(program: str) -> dict[str, Any] | None:
    """The choice of an earlier run of this program here, if one is known.

    One that is good for short runs only says up to how many `steps`.
    """
    choice = _known().get(_key(program))
    if not isinstance(choice, dict):
        return None
    form, size, steps = choice.get("form"), choice.get("size"), choice.get("steps", 1)
    counts = all(isinstance(number, int) and number >= 1 for number in (size, steps))
    return choice if form in ("step", "loop") and counts else None


def remember(programs: Iterable[str], choice: dict[str, Any]) -> None:
    """Keep a choice for later runs; a folder that cannot be written to keeps nothing."""
    file = _file()
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, _known() | dict.fromkeys(map(_key, programs), choice))
        except (OSError, InputError):
            return


def _file() -> Path | None:
    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    return None if folder is None else Path(folder) / "jdl-dispatch.json"


def _known() -> dict[str, Any]:
    """Every choice so far; a file that is not understood is as good as none."""
    file = _file()
    try:
        known = from_json(file.read_text()) if file is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(program: str) -> str:
    """Program, devices and versions; functions are printed with their addresses, which differ."""
    device = jax.devices()[0]
    machine = f"{device.device_kind} {jax.device_count()} {os.cpu_count()} {jax.__version__}"
    text = re.sub(r" at 0x[0-9a-f]+", "", program)
    return hashlib.sha256(f"{machine}\n{text}".encode()).hexdigest()[:32]

"""Refuses a native extension that was compiled for another interface than this Python code calls.

Whoever pulls and does not build again has an old `_native*.so` beside new Python code; without this check that shows as
a missing attribute or a wrong signature somewhere deep, or, where only a layout changed, not at all. Both sides are
described by one file, the stub `_native.pyi`: the build compiles its SHA-256 in, the import computes it again. Nobody
has to count a version up, and changes below the bindings ask for no new build. A test holds the stub and the module's
signatures together.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

from tusi.core.errors import BackendUnavailable

STUB = Path(__file__).parent / "_native.pyi"


def check_interface(native: ModuleType, stub: Path = STUB) -> None:
    """Raises BackendUnavailable unless the module was compiled beside this very stub.

    Where a packager left stubs out there is nothing to compare, nor anything that could have been pulled.
    """
    try:
        expected = hashlib.sha256(stub.read_bytes()).hexdigest()
    except FileNotFoundError:
        return
    # Modules from before this check know no `interface`.
    compiled = getattr(native, "interface", "none")
    if compiled != expected:
        raise BackendUnavailable(
            f"the native extension {native.__file__} was compiled for another version of the Python code beside it "
            f"(its interface is {compiled[:12]}, expected {expected[:12]}). Build it again: `scripts/build` in a "
            f"checkout, else `pip install --force-reinstall` of the version you want."
        )

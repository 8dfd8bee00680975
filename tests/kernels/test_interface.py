"""The compiled module, its stub, and what happens when they do not belong together."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.kernels.test_runtime import run_python
from tusi.core.errors import BackendUnavailable
from tusi.kernels import _native
from tusi.kernels.interface import STUB, check_interface

Signature = tuple[tuple[str, ...], tuple[object, ...]]
"""Names of the arguments, and the defaults of the last of them."""


def stub_signatures() -> dict[str, list[Signature]]:
    found: dict[str, list[Signature]] = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append(_of_stub(node))
        elif isinstance(node, ast.ClassDef):
            found[node.name] = [_of_stub(method) for method in node.body if isinstance(method, ast.FunctionDef)]
    return found


def _of_stub(function: ast.FunctionDef) -> Signature:
    names = tuple(argument.arg for argument in function.args.args)
    return names, tuple(ast.literal_eval(default) for default in function.args.defaults)


def module_signatures() -> dict[str, list[Signature]]:
    found = {}
    for name in dir(_native):
        thing = getattr(_native, name)
        if callable(thing):
            function = thing.__init__ if isinstance(thing, type) else thing
            found[name] = [_of_module(text, defaults) for text, _, defaults in function.__nb_signature__]
    return found


def _of_module(text: str, defaults: tuple[object, ...] | None) -> Signature:
    # nanobind writes what Python does not read: ndarray[writable=False], and \0 for the first default.
    readable = re.sub(r"\\\d+", "...", re.sub(r"ndarray\[[^\]]*\]", "ndarray", text))
    function = ast.parse(readable + ": ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    return tuple(argument.arg for argument in function.args.args), defaults or ()


def test_the_stub_has_the_signatures_of_the_module() -> None:
    assert stub_signatures() == module_signatures()


def test_the_module_was_compiled_beside_this_stub() -> None:
    check_interface(_native)


@pytest.mark.parametrize("compiled", [None, "0" * 64], ids=["older than the check", "another stub"])
def test_a_module_of_another_stub_is_refused(compiled: str | None) -> None:
    module = ModuleType("_native")
    module.__file__ = "somewhere/_native.so"
    if compiled is not None:
        module.interface = compiled
    with pytest.raises(BackendUnavailable, match=r"somewhere/_native.so was compiled for another.*`scripts/build`"):
        check_interface(module)


def test_a_package_without_stubs_has_nothing_to_compare(tmp_path: Path) -> None:
    check_interface(ModuleType("_native"), tmp_path / "_native.pyi")


def test_importing_the_kernels_refuses_it_before_anything_else_is_called() -> None:
    old = "import sys, types; old = types.ModuleType('old'); old.__file__ = 'old.so'"
    result = run_python(f"{old}; sys.modules['tusi.kernels._native'] = old; import tusi.kernels")
    assert result.stderr.splitlines()[-1].startswith("tusi.core.errors.BackendUnavailable"), result.stderr
    assert "Build it again" in result.stderr

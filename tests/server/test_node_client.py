"""OpenAI's Node client against the server: tests/node/suite.mjs, run by Node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.http_server import Running, running
from tests.fixtures.scripted import scripted_backend
from tests.server.test_chat_completions import data_url
from tests.server.test_server_tools import TOOLS

FOLDER = Path(__file__).resolve().parent.parent / "node"
NODE, NPM = shutil.which("node"), shutil.which("npm")

pytestmark = pytest.mark.skipif(NODE is None or NPM is None, reason="no Node.js with npm; install them")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite beside the client that package-lock.json names; installed once, where the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "suite.mjs"):
        shutil.copy(FOLDER / name, folder)
    installed = subprocess.run(
        [str(NPM), "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install OpenAI's client here: {installed.stderr.strip()[-300:]}")
    return folder


def test_openais_node_client(suite: Path, tiny: Running) -> None:
    with running(scripted_backend(), tools=TOOLS) as scripted:
        urls = {"SCRIPTED_URL": scripted.url, "TINY_URL": tiny.url, "PICTURE": data_url((112, 112))}
        done = subprocess.run(
            [str(NODE), "--test", "--test-reporter=tap", "suite.mjs"],
            cwd=suite,
            env={**os.environ, **urls, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(done.stdout.rpartition("\n# pass ")[2].split()[0]) >= 25

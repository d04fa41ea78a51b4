"""The command-line tool under test: what `LEANRESNET` names, else the release build of this repository."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]


class Failed(Exception):
    """The tool ended with another code than 0; `args` are the code and what it wrote to stderr."""


@pytest.fixture(scope="session")
def leanresnet():
    """Runs the tool and returns its answers, one dict per line of JSON."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    program = Path(os.environ.get("LEANRESNET", target / "release" / "leanresnet"))
    assert program.is_file(), f"no {program}: run `cargo build --release -p leanresnet-cli`, or set LEANRESNET"

    def run(*arguments) -> list[dict]:
        command = [program, *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
        if done.returncode:
            raise Failed(done.returncode, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)

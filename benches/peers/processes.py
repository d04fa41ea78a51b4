"""Programs that print JSON, each in a process of its own. Linux only."""

import json
import os
import subprocess

TIMEOUT = 900


class Failure(Exception):
    """What went wrong, and what to do next."""


def run_json(command: list, threads: int | None = None, **options) -> dict:
    """The last line that a program prints, as JSON. With `threads`, it may use only as many cores."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    words = [str(word) for word in command]
    pin = {"preexec_fn": lambda: os.sched_setaffinity(0, cores)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, **pin, **options)
    if done.returncode:
        raise Failure(f"{words[0]} failed: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.splitlines()[-1])

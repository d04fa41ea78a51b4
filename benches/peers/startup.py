"""Memory and start-up of `base`: leanresnet beside ONNX Runtime.

    python benches/peers/startup.py [--leanresnet PATH]

Memory is the peak resident set (VmHWM) of a process that loads the model and runs batch 64 once. Start-up is the time to the
first result at batch 1: for leanresnet that of the whole process with its files, for ONNX Runtime from creating the session to
the first result, without starting Python and importing packages.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import networks
from run import HERE, OUR_PROGRAM, Failure, existing_program, run_json

PRESET = "base"
LARGE_BATCH = 64
POLL_SECONDS = 0.0005


def run_watched(command: list) -> dict:
    """Seconds that a program takes, and the peak of its resident set in MiB as the system last showed it."""
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    peak = None
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        peak = int(peaks[0]) / 1024 if peaks else peak
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise Failure(f"{command[0]} failed")
    return {"seconds": seconds, "peak": peak}


def compare(program: Path, threads: int, repetitions: int, folder: Path):
    networks.write(folder, PRESET, [1, LARGE_BATCH])
    model = folder / f"{PRESET}.safetensors"
    run_json([program, "import", networks.weights_path(folder, PRESET), "--preset", PRESET, "-o", model, "--json"])

    def ours(batch):
        files = ["--input", networks.input_path(folder, PRESET, batch), "--output", folder / "output.npy"]
        return run_watched([program, "predict", model, *files, "--batch", batch, "--threads", threads, "--json"])

    def theirs(batch):
        files = [networks.onnx_path(folder, PRESET, batch), networks.input_path(folder, PRESET, batch)]
        return run_json([sys.executable, HERE / "onnxruntime_once.py", *files, threads])

    mine, other = ours(LARGE_BATCH), theirs(LARGE_BATCH)
    starts = [(ours(1)["seconds"], theirs(1)["seconds"]) for _ in range(repetitions)]
    first = [1e3 * statistics.median(column) for column in zip(*starts)]
    print(f"| {PRESET}, {threads} thread{'s' * (threads > 1)} | leanresnet | ONNX Runtime |")
    print("|---|---|---|")
    print(f"| peak resident set, batch {LARGE_BATCH}, MiB | {mine['peak']:.1f} | {other['peak']:.1f} |")
    print(f"| of which before loading the model, MiB | - | {other['imported']:.1f} |")
    print(f"| first result, batch 1, ms (median of {repetitions}) | {first[0]:.1f} | {first[1]:.1f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leanresnet", type=Path, default=OUR_PROGRAM, help="our program")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            compare(existing_program(options.leanresnet), options.threads, options.repetitions, Path(folder))
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compares two builds of the tool: the bits of training and inference, and the time of both, interleaved.

    python benches/peers/builds.py BEFORE AFTER

BEFORE and AFTER are programs (`target/release/leanresnet` of two revisions, say). The exit code is 1 if bits of f32 differ. Times are
only reported. Needs nothing beside Python.
"""

import argparse
import itertools
import json
import math
import random
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import quiet
from processes import Failure, run_json

TRAINING = (("small", 64), ("base", 64), ("imagenet", 8), ("base", 128))
# Networks whose bits are compared: the forms of blocks, norms and connections that the presets leave out, in short runs.
STAGES = "network.stages=[{width=32,blocks=1},{width=64,blocks=1}]"
NETWORKS = {
    "small": ["--preset", "small"],
    "box9": ["--set", STAGES, "--set", "network.block={stencil='box9',norms=2,relu_after_sum=true}"],
    "symmetric": ["--set", STAGES, "--set", "network.block.form=symmetric", "--set", "network.connection.form=strided-conv"],
    "dense": ["--set", STAGES, "--set", "network.block.operator=dense", "--set", "network.connection.form=conv-pool"],
}



def run(program: Path, *words) -> None:
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{program} {words[0]} failed: {done.stderr.strip()[-400:]}")


def tensors(file: Path) -> bytes:
    """The data of a safetensors file, without the header, which names the version."""
    content = file.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    return content[8 + header :]


def write_images(file: Path, images: int, shape: list) -> None:
    """Random f32 in a .npy file."""
    values = random.Random(1)
    count = images * math.prod(shape)
    header = str({"descr": "<f4", "fortran_order": False, "shape": (images, *shape)})
    header += " " * (-(len(header) + 11) % 64) + "\n"
    data = struct.pack(f"<{count}f", *(values.gauss(0, 1) for _ in range(count)))
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def tiers(program: Path, dtype: str) -> list:
    """The instruction sets that both parts of a comparison run on."""
    isas = run_json([program, "doctor", "--json"])["isas"]
    return [isa for isa in isas if isa.endswith("bf16") or isa == "amx"] if dtype == "bf16" else [isa for isa in isas if isa != "portable"]


def compare_bits(programs: tuple, dtype: str, folder: Path) -> bool:
    """Trains a short run with each build, and predicts with both from the model that the first one made."""
    images = folder / "images.npy"
    write_images(images, 5, [3, 32, 32])
    equal = True
    for name, network in NETWORKS.items():
        runs = [folder / f"{name}-{dtype}-{number}" for number in range(2)]
        for program, out in zip(programs, runs):
            run(program, "train", *network, "--epochs", 1, "--batch", 50, "--seed", 3, "--dtype", dtype, "--out", out, "--progress", "none")
        results = [((out / "metrics.jsonl").read_bytes(), tensors(out / "last.safetensors")) for out in runs]
        found = [("training", results[0] == results[1])]
        for isa in tiers(programs[0], dtype):
            outputs = [folder / f"{number}.npy" for number in range(2)]
            for program, output in zip(programs, outputs):
                model = ["predict", runs[0], "--input", images, "--output", output, "--dtype", dtype]
                run(program, *model, "--isa", isa)
            found.append((isa, outputs[0].read_bytes() == outputs[1].read_bytes()))
        equal &= all(same for _, same in found)
        print(f"bits of {name} in {dtype}:", ", ".join(f"{what} {'equal' if same else 'DIFFER'}" for what, same in found), flush=True)
    return equal


def cells(options) -> list:
    """What is timed: (words of `bench`, words that name it)."""
    inference = itertools.product(options.dtype, options.presets, options.cores, options.batches)
    found = [(("net", preset, batch, threads, dtype)) for dtype, preset, threads, batch in inference]
    steps = itertools.product(options.dtype, TRAINING, options.cores)
    found += [("train", preset, batch, threads, dtype) for dtype, (preset, batch), threads in steps if preset in options.presets]
    return [cell for cell in found if cell[0] in options.what]


def measure(program: Path, cell: tuple, options) -> dict:
    what, preset, batch, threads, dtype = cell
    words = ["bench", what, "--preset", preset, "--batch", batch, "--threads", threads, "--dtype", dtype, "--json"]
    words += [] if options.isa is None else ["--isa", options.isa]
    return quiet.measured(lambda: run_json([program, *words, "--rounds", 1, "--seconds", options.seconds], threads), options.tries)


def compare_times(programs: tuple, options) -> None:
    """Medians of the rounds, in Markdown; the ratio is the median of those inside a round, above 1 where the second build is faster."""
    results = {cell: ([], []) for cell in cells(options)}
    for number, (cell, times) in itertools.product(range(options.rounds), results.items()):
        print(f"round {number + 1}/{options.rounds}: {cell}", file=sys.stderr)
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            times[index].append(measure(programs[index], cell, options))
    if not results:
        return
    print("\n| | network, batch | threads | dtype | before, ms per image | after | times as fast |\n|---|---|---|---|---|---|---|")
    ratios = {}
    for cell, times in results.items():
        (what, preset, batch, threads, dtype), [before, after] = cell, [[r["ms_per_image"] for r in part] for part in times]
        ratios[cell] = statistics.median(old / new for old, new in zip(before, after))
        mark = "" if all(result["quiet"] for part in times for result in part) else "~"
        numbers = f"{statistics.median(before):.4g} | {statistics.median(after):.4g} | {ratios[cell]:.3f}"
        print(f"| {mark}{what} | `{preset}`, {batch} | {threads} | {dtype} | {numbers} |")
    for what, dtype in itertools.product(options.what, options.dtype):
        part = {cell: ratio for cell, ratio in ratios.items() if (cell[0], cell[-1]) == (what, dtype)}
        if part:
            worst = min(part, key=part.get)
            print(f"\n{what} in {dtype}: {statistics.geometric_mean(part.values()):.3f} in the geometric mean, worst {part[worst]:.3f} ({worst})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("before", type=Path)
    add("after", type=Path)
    add("--what", choices=("bits", "net", "train"), nargs="+", default=["bits", "net", "train"])
    add("--presets", nargs="+", default=["small", "base", "imagenet"])
    add("--batches", type=int, nargs="+", default=[1, 8, 64])
    add("--cores", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    add("--dtype", choices=("f32", "bf16"), nargs="+", default=["f32"])
    add("--isa", help="one instruction set for all times")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.3, help="of each measurement")
    add("--tries", type=int, default=3, help="measurements that others disturbed are repeated so often")
    options = parser.parse_args()
    programs = (options.before.resolve(), options.after.resolve())
    try:
        equal = True
        if "bits" in options.what:
            with tempfile.TemporaryDirectory() as folder:
                for dtype in options.dtype:
                    equal &= compare_bits(programs, dtype, Path(folder)) or dtype != "f32"
        compare_times(programs, options)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()

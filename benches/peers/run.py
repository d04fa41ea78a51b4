"""Compares leanresnet with other inference engines, in f32 or bf16, on the same networks. README.md says how and why.

    python benches/peers/run.py --out DIR
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

try:
    import numpy as np

    import networks
    import quiet
    import report
    from engines import BF16_ENGINES, ENGINES
    from processes import Failure, run_json
except ModuleNotFoundError as error:
    sys.exit(f"error: no module {error.name}: `pip install -r benches/peers/requirements.txt` first")

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
OUR_PROGRAM = REPOSITORY / "target" / "release" / "leanresnet"
RUST_TARGET = REPOSITORY / "target" / "peers"
RUST_ENGINES = ("tract", "rten")
PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "torch")
# Largest difference relative to the largest output.
TOLERANCES = {"f32": 1e-4, "bf16": 0.1}


def existing_program(path: Path) -> Path:
    if not path.is_file():
        raise Failure(f"no program at {path}: `cargo build --release` first, or name it with --leanresnet")
    return path.resolve()


class Bench:
    """Runs one engine on one cell (preset, batch, threads), in a fresh process that may use only as many cores as threads."""

    def __init__(self, options, models: Path):
        self.options, self.models = options, models
        self.output = models / "output.npy"

    def model(self, preset: str) -> Path:
        return self.models / f"{preset}.safetensors"

    def run(self, command: list, threads: int, **environment) -> dict:
        return run_json(command, threads, env=os.environ | environment)

    def import_weights(self, preset: str):
        weights = networks.weights_path(self.models, preset)
        run_json([self.options.leanresnet, "import", weights, "--preset", preset, "-o", self.model(preset), "--json"])

    def leanresnet(self, preset: str, batch: int, threads: int) -> dict:
        """`bench net` times random weights of the same network, so that `predict` has to give the outputs."""
        program, model = self.options.leanresnet, self.model(preset)
        common = ["--batch", batch, "--threads", threads, "--dtype", self.options.dtype, "--json"]
        files = ["--input", networks.input_path(self.models, preset, batch), "--output", self.output]
        self.run([program, "predict", model, *files, *common], threads)
        bench = [program, "bench", "net", model, *common, "--rounds", 1, "--seconds", self.options.seconds]
        keys = ("ms_per_image", "peak_gflops", "load_peak_gflops", "isa")

        def measure():
            answer = self.run(bench, threads)
            return {key: answer.get(key) for key in keys}

        return quiet.measured(measure, self.options.tries)

    def rust(self, engine: str, preset: str, batch: int, threads: int) -> dict:
        files = [networks.onnx_path(self.models, preset, batch), networks.input_path(self.models, preset, batch), self.output]
        command = [RUST_TARGET / "release" / "peers", engine, *files, threads, self.options.seconds]
        return quiet.measured(lambda: self.run(command, threads, RTEN_NUM_THREADS=str(threads)), self.options.tries)

    def python(self, engine: str, preset: str, batch: int, threads: int) -> dict:
        cell = ["--preset", preset, "--batch", batch, "--threads", threads, "--models", self.models, "--output", self.output]
        how = ["--seconds", self.options.seconds, "--tries", self.options.tries, "--dtype", self.options.dtype]
        return self.run([sys.executable, HERE / "engines.py", engine, *cell, *how], threads)

    def measure(self, engine: str, preset: str, batch: int, threads: int) -> tuple:
        """The measurement, and the outputs of that very set-up."""
        self.output.unlink(missing_ok=True)
        if engine == "leanresnet":
            result = self.leanresnet(preset, batch, threads)
        elif engine in RUST_ENGINES:
            result = self.rust(engine, preset, batch, threads)
        else:
            result = self.python(engine, preset, batch, threads)
        return result, np.load(self.output)


def relative_difference(outputs, expected) -> float:
    """The largest difference, relative to the largest expected value; the batch repeats the expected images."""
    expected = np.resize(expected, outputs.shape)
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def build_rust_engines():
    print("building tract and rten", file=sys.stderr)
    where = ["--manifest-path", HERE / "rust" / "Cargo.toml", "--target-dir", RUST_TARGET]
    command = ["cargo", "build", "--release", "--locked", *where]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"tract and rten did not build ({error}): install Rust, or leave them out of --engines") from error


def available(engines: list) -> list:
    """The engines that are installed. leanresnet comes first: the others are compared with it."""
    found = ["leanresnet"]
    for engine in engines:
        package = ENGINES[engine][1] if engine in ENGINES else None
        if package and not importlib.util.find_spec(package):
            print(f"{engine} is left out: `pip install {package}` brings it", file=sys.stderr)
        elif engine not in found:
            found.append(engine)
    if set(found) & set(RUST_ENGINES):
        build_rust_engines()
    return found


def processor() -> str:
    """The model's name with family and number, because virtual machines shorten the name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = [f"{word} {fields[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in fields]
    return f"{fields.get('model name', platform.machine())} ({', '.join(numbers)})" if numbers else platform.machine()


def machine(options, engines: list) -> dict:
    """What a reader needs to judge the numbers and to repeat them."""
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        if importlib.util.find_spec(package):
            versions[package] = importlib.metadata.version(package)
    if set(engines) & set(RUST_ENGINES):
        dependencies = tomllib.loads((HERE / "rust" / "Cargo.toml").read_text())["dependencies"]
        versions |= {"tract": dependencies["tract-onnx"].strip("="), "rten": dependencies["rten"].strip("=")}
    doctor = run_json([options.leanresnet, "doctor", "--json"])
    return {
        "kind": "machine",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benches/peers/run.py", *sys.argv[1:]]),
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
        "doctor": doctor,
    }


def compare(options) -> bool:
    """Measures everything; false if an engine failed or disagreed."""
    models = options.out / "models"
    models.mkdir(parents=True, exist_ok=True)
    engines = available(options.engines)
    bench = Bench(options, models)
    good = True
    with open(options.out / "results.jsonl", "x") as results:

        def record(entry):
            results.write(json.dumps(entry) + "\n")
            results.flush()

        record(machine(options, engines))
        references, ours = {}, {}
        for preset in options.presets:
            references[preset], cost = networks.write(models, preset, options.batches)
            bench.import_weights(preset)
            record({"kind": "network", "preset": preset} | cost)
        cells = list(itertools.product(options.presets, options.threads, options.batches))
        for round_number, (preset, threads, batch) in itertools.product(range(options.rounds), cells):
            # leanresnet goes first in the first round, because its outputs are what the others are compared with.
            turn = round_number % len(engines)
            for engine in engines[turn:] + engines[:turn]:
                cell = {"engine": engine, "preset": preset, "threads": threads, "batch": batch, "round": round_number}
                try:
                    result, outputs = bench.measure(engine, preset, batch, threads)
                except (Failure, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    record({"kind": "failure"} | cell | {"error": str(error)})
                    print(f"{engine}, {preset}, batch {batch}, {threads} threads: {error}", file=sys.stderr)
                    good = False
                    continue
                if engine == "leanresnet":
                    ours[preset, threads, batch] = outputs
                result["difference_reference"] = relative_difference(outputs, references[preset])
                if (preset, threads, batch) in ours:
                    result["difference_leanresnet"] = relative_difference(outputs, ours[preset, threads, batch])
                good &= agrees(cell, result, TOLERANCES[options.dtype])
                record({"kind": "time"} | cell | result)
            print(f"round {round_number + 1}/{options.rounds}: {preset}, {threads} threads, batch {batch}", file=sys.stderr)
    return good


def agrees(cell: dict, result: dict, tolerance: float) -> bool:
    for other in ("reference", "leanresnet"):
        difference = result.get(f"difference_{other}", 0.0)
        if not difference <= tolerance:
            where = f"{cell['engine']}, {cell['preset']}, batch {cell['batch']}, {cell['threads']} threads"
            print(f"{where}: differs from {other} by {difference:.1e} (at most {tolerance:.0e})", file=sys.stderr)
            return False
    return True


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for results.jsonl, table.md and roofline.svg, .png")
    add("--leanresnet", type=Path, default=OUR_PROGRAM, help="our program")
    add("--presets", nargs="+", choices=networks.PRESETS, default=list(networks.PRESETS))
    add("--batches", nargs="+", type=int, default=[1, 8, 64])
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.3, help="of each measurement")
    add("--tries", type=int, default=4, help="at most, of a measurement that other processes disturb")
    names = ["leanresnet", *ENGINES, *RUST_ENGINES]
    engines_help = f"leanresnet and some of: {', '.join(names[1:])} (default: all but the last two)"
    add("--engines", nargs="+", choices=names, default=list(ENGINES), metavar="NAME", help=engines_help)
    add("--dtype", choices=TOLERANCES, default="f32", help=f"bf16 with --engines {' '.join(BF16_ENGINES)} alone")
    add("--report-only", action="store_true", help="remake table and plot from results.jsonl")
    return parser.parse_args()


def check(options):
    """Errors that are better told before the first measurement."""
    exists = (options.out / "results.jsonl").exists()
    if options.report_only:
        if not exists:
            raise Failure(f"no results.jsonl in {options.out}: measure first, without --report-only")
        return
    if exists:
        raise Failure(f"{options.out} holds results: choose another --out, or --report-only to remake its table")
    options.leanresnet = existing_program(options.leanresnet)
    if options.dtype == "bf16" and not set(options.engines) <= set(BF16_ENGINES):
        raise Failure(f"--dtype bf16 is for --engines {' '.join(BF16_ENGINES)}")
    cores = len(os.sched_getaffinity(0))
    if max(options.threads) > cores:
        raise Failure(f"{max(options.threads)} threads on {cores} cores: choose smaller --threads")


def main() -> int:
    options = arguments()
    good = True
    try:
        check(options)
        if not options.report_only:
            good = compare(options)
        print(report.write(options.out))
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

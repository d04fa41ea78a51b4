"""Times whole training steps of leanresnet and of PyTorch on the same networks, interleaved: in f32, or with `--dtype bf16` in mixed
precision, PyTorch by its autocast. README.md says how and why.

    python benches/peers/training.py --out DIR
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path

import quiet
from processes import Failure, run_json

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
OUR_PROGRAM = REPOSITORY / "target" / "release" / "leanresnet"
LAYOUTS = {"torch": "contiguous_format", "torch-channels-last": "channels_last"}
CELLS = (("small", 64), ("base", 64), ("imagenet", 8), ("base", 128))


def torch_step(preset: str, batch: int, threads: int, layout: str, dtype: str):
    """One step of PyTorch's eager mode: forward, cross-entropy, backward, SGD with Nesterov momentum."""
    import torch

    sys.path.insert(0, str(REPOSITORY / "interop" / "pytorch"))
    from leanresnet_torch import LeanResNet

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    memory_format = getattr(torch, layout)
    network = LeanResNet(preset).train().to(memory_format=memory_format)
    images = torch.randn(batch, *network.network.input).contiguous(memory_format=memory_format)
    labels = torch.randint(0, network.network.classes, (batch,))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def measure_torch(options):
    step = torch_step(options.preset, options.batch, options.threads, LAYOUTS[options.engine], options.dtype)

    def repeat(times):
        for _ in range(times):
            step()

    def measure():
        return {"ms_per_image": 1e3 * quiet.seconds_per_repeat(repeat, options.seconds) / options.batch}

    step()
    print(json.dumps(quiet.measured(measure, options.tries)))


def measure(engine: str, cell: tuple, options) -> dict:
    (preset, batch), threads = cell
    if engine != "leanresnet":
        common = ["--preset", preset, "--batch", batch, "--threads", threads, "--seconds", options.seconds, "--dtype", options.dtype]
        return run_json([sys.executable, __file__, "--engine", engine, *common, "--tries", options.tries], threads)
    command = [options.leanresnet, "bench", "train", "--preset", preset, "--batch", batch, "--threads", threads, "--json"]
    command += ["--dtype", options.dtype]
    return quiet.measured(lambda: run_json([*command, "--rounds", 1, "--seconds", options.seconds], threads), options.tries)


def table(results: dict, cells: list) -> str:
    """Medians over the rounds, in Markdown."""
    lines = ["| network, batch | threads | leanresnet ms per image | share of peak | PyTorch | channels last | times as fast |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for cell in cells:
        (preset, batch), threads = cell
        median = {engine: statistics.median(r["ms_per_image"] for r in results[cell, engine]) for engine in ENGINES}
        share = 100 * statistics.median(r["fraction"] for r in results[cell, "leanresnet"])
        mark = "" if all(r["quiet"] for engine in ENGINES for r in results[cell, engine]) else "~"
        ratio = min(median[engine] for engine in LAYOUTS) / median["leanresnet"]
        numbers = [f"{median['leanresnet']:.3g}", f"{share:.0f} %", *(f"{median[engine]:.3g}" for engine in LAYOUTS)]
        lines.append(f"| {mark}`{preset}`, {batch} | {threads} | {' | '.join(numbers)} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


ENGINES = ("leanresnet", *LAYOUTS)


def compare(options):
    options.out.mkdir(parents=True, exist_ok=True)
    cells = list(itertools.product(CELLS, options.cores))
    results = {key: [] for key in itertools.product(cells, ENGINES)}
    with open(options.out / "training.jsonl", "w") as log:
        for round_number, cell in itertools.product(range(options.rounds), cells):
            print(f"round {round_number + 1}/{options.rounds}: {cell}", file=sys.stderr)
            turn = round_number % len(ENGINES)
            for engine in ENGINES[turn:] + ENGINES[:turn]:
                result = measure(engine, cell, options)
                results[cell, engine].append(result)
                log.write(json.dumps({"engine": engine, "cell": cell, "round": round_number, **result}) + "\n")
                log.flush()
    text = table(results, cells)
    (options.out / "training.md").write_text(text)
    print(text, end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=REPOSITORY / "target" / "peers-training")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=1.0, help="of each measurement")
    add("--tries", type=int, default=5, help="measurements that others disturbed are repeated so often")
    add("--cores", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    add("--dtype", choices=("f32", "bf16"), default="f32")
    add("--leanresnet", type=Path, default=OUR_PROGRAM)
    # A process that measures PyTorch once.
    add("--engine", choices=LAYOUTS, help=argparse.SUPPRESS)
    add("--preset", help=argparse.SUPPRESS)
    add("--batch", type=int, help=argparse.SUPPRESS)
    add("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        measure_torch(options)
        return
    try:
        compare(options)
    except Failure as failure:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()

"""Trains the same residual network with every block operator at equal numbers of parameters, and tables and plots their accuracy.

    python benches/study/operators.py --data-dir DIR --out DIR

README.md says what is equal and what is not. A study that was stopped goes on where it was. Linux only; pictures need matplotlib.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "peers"))
from processes import Failure, run_json  # noqa: E402

OPERATORS = {
    "lean cross4": {"operator": "lean", "stencil": "cross4"},
    "lean cross5": {"operator": "lean", "stencil": "cross5"},
    "lean box9": {"operator": "lean", "stencil": "box9"},
    "dense 3x3": {"operator": "dense"},
    "separable box9": {"operator": "separable", "stencil": "box9"},
    "shift": {"operator": "shift"},
}
# Widths are multiples of this.
WIDTH_STEP = 2
WIDEST = 256


@dataclass
class Run:
    """One network and one seed of the study."""

    operator: str
    target: int
    width: int
    seed: int
    parameters: int
    macs: int

    @property
    def name(self) -> str:
        return f"{self.operator.replace(' ', '-')}-{self.target}-{self.seed}"


def configuration(operator: str, width: int, seed: int, options) -> str:
    """A run as TOML: three stages of the same number of blocks, each with twice the width of the one before."""
    block = {"norms": 2, "relu_after_sum": True, **OPERATORS[operator]}
    words = ", ".join(f"{key} = {json.dumps(value)}" for key, value in block.items())
    stages = ", ".join(f"{{ width = {width << stage}, blocks = {options.blocks} }}" for stage in range(3))
    return f"""version = 1
[network]
input = [3, 32, 32]
classes = 10
stages = [{stages}]
block = {{ {words} }}
[data]
name = "cifar10"
dir = {json.dumps(str(options.data_dir.resolve()))}
augment = {{ crop = 4, flip = true }}
[train]
epochs = {options.epochs}
batch = 128
seed = {seed}
label_smoothing = 0.1
ema = 0.99
schedule = {{ name = "one-cycle", lr = 0.4, peak_epoch = {options.epochs / 4} }}
"""


def summary(operator: str, width: int, options) -> dict:
    """Parameters and multiply-adds of a network."""
    file = options.out / "network.toml"
    file.write_text(configuration(operator, width, 1, options))
    return run_json([options.leanresnet, "summary", "--config", file, "--json"])


def width_for(operator: str, target: int, options) -> int:
    """The width whose number of parameters is nearest to the target."""
    low, high = WIDTH_STEP, WIDEST
    while high - low > WIDTH_STEP:
        middle = (low + high) // 2 // WIDTH_STEP * WIDTH_STEP
        if summary(operator, middle, options)["parameters"] <= target:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda width: abs(summary(operator, width, options)["parameters"] - target))


def plan(options) -> list[Run]:
    runs = []
    for target in options.parameters:
        for operator in options.operators:
            width = width_for(operator, target, options)
            cost = summary(operator, width, options)
            runs += [Run(operator, target, width, seed, cost["parameters"], cost["macs"]) for seed in options.seeds]
    return runs


def train(run: Run, options) -> dict:
    """The answer of `leanresnet train`, or that of an earlier study in the same folder."""
    answer, folder = options.out / f"{run.name}.json", options.out / run.name
    if answer.exists():
        return json.loads(answer.read_text())
    if (folder / "last.ckpt").exists():
        command = ["train", "--resume", folder]
    else:
        file = options.out / f"{run.name}.toml"
        file.write_text(configuration(run.operator, run.width, run.seed, options))
        command = ["train", "--config", file, "--out", folder]
    command = [options.leanresnet, *command, "--json", "--progress", "plain", "--threads", options.threads]
    print(f"{run.name}: width {run.width}, {run.parameters} parameters", file=sys.stderr)
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(f"{run.name} ended with code {done.returncode}; the same command goes on with it")
    answer.write_text(done.stdout.splitlines()[-1])
    return json.loads(answer.read_text())


def speeds(runs: list[Run], options) -> dict:
    """Milliseconds per image of inference on one thread and of training on all, by operator and target; interleaved, medians."""
    kinds = {"inference": ["net", "--batch", 64, "--threads", 1], "training": ["train", "--batch", 128, "--threads", options.threads]}
    networks = {(run.operator, run.target): run for run in runs}
    times = {(kind, key): [] for kind in kinds for key in networks}
    for _ in range(options.rounds):
        for key, run in networks.items():
            file = options.out / f"{run.name}.toml"
            for kind, words in kinds.items():
                command = [options.leanresnet, "bench", *words, "--config", file, "--rounds", 1, "--seconds", options.seconds]
                times[kind, key].append(run_json([*command, "--json"])["ms_per_image"])
    return {place: statistics.median(values) for place, values in times.items()}


def results(runs: list[Run], answers: dict, times: dict) -> list[dict]:
    """One entry per operator and target."""
    entries = []
    for key in dict.fromkeys((run.operator, run.target) for run in runs):
        same = [run for run in runs if (run.operator, run.target) == key]
        accuracies = [answers[run.name]["test_top1"] for run in same]
        entries.append({
            "operator": key[0],
            "target": key[1],
            "width": same[0].width,
            "parameters": same[0].parameters,
            "macs": same[0].macs,
            "accuracies": accuracies,
            "accuracy": statistics.mean(accuracies),
            "inference_ms": times["inference", key],
            "training_ms": times["training", key],
        })
    return entries


def table(entries: list[dict]) -> str:
    """Markdown."""
    lines = ["| operator | widths | parameters | multiply-adds | test accuracy | inference | training |", "|---|---|---|---|---|---|---|"]
    for entry in entries:
        spread = max(entry["accuracies"]) - min(entry["accuracies"])
        accuracy = f"{100 * entry['accuracy']:.2f} %" + (f" (spread {100 * spread:.2f})" if len(entry["accuracies"]) > 1 else "")
        widths = "/".join(str(entry["width"] << stage) for stage in range(3))
        numbers = [widths, f"{entry['parameters'] / 1e3:.1f} k", f"{entry['macs'] / 1e6:.1f} M", accuracy]
        times = [f"{entry[kind]:.3g} ms" for kind in ("inference_ms", "training_ms")]
        lines.append(f"| {' | '.join([entry['operator'], *numbers, *times])} |")
    return "\n".join(lines) + "\n"


def plot(entries: list[dict], path: Path):
    """Accuracy against each of the costs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "leanresnet"
    costs = {
        "parameters": "parameters",
        "macs": "multiply-adds per image",
        "inference_ms": "ms per image, inference",
        "training_ms": "ms per image, training",
    }
    figure, axes = plt.subplots(1, len(costs), sharey=True, figsize=(15, 4.2), constrained_layout=True)
    for axis, (cost, label) in zip(axes, costs.items()):
        for operator, marker in zip(OPERATORS, "os^Dvx"):
            points = sorted((entry[cost], 100 * entry["accuracy"]) for entry in entries if entry["operator"] == operator)
            if points:
                axis.plot(*zip(*points), marker=marker, label=operator)
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("CIFAR-10 test accuracy, %")
    axes[-1].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def study(options):
    options.out.mkdir(parents=True, exist_ok=True)
    runs = plan(options)
    answers = {run.name: train(run, options) for run in runs}
    entries = results(runs, answers, speeds(runs, options))
    (options.out / "operators.json").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    text = table(entries)
    (options.out / "operators.md").write_text(text)
    print(text, end="")
    plot(entries, options.out / "operators.svg")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="CIFAR-10's binary version, unpacked")
    add("--out", type=Path, default=REPOSITORY / "target" / "study-operators")
    add("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    add("--parameters", type=int, nargs="+", default=[25_000, 65_000, 160_000], help="numbers that networks come near to")
    add("--blocks", type=int, default=3, help="of every stage")
    add("--epochs", type=int, default=10)
    add("--seeds", type=int, nargs="+", default=[1])
    add("--threads", type=int, default=0)
    add("--rounds", type=int, default=5, help="of the measurement of time")
    add("--seconds", type=float, default=0.5, help="of one measurement of time")
    add("--leanresnet", type=Path, default=REPOSITORY / "target" / "release" / "leanresnet")
    options = parser.parse_args()
    try:
        study(options)
    except (Failure, OSError) as failure:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()

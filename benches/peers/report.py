"""Makes table.md and roofline.svg, .png from results.jsonl."""

import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
# The same results give the same file.
matplotlib.rcParams["svg.hashsalt"] = "leanresnet"
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator

OURS = "leanresnet"
# Of multiply-adds alone, and of those that load what they multiply, as kernels must.
PURE_PEAK, LOAD_PEAK = "peak_gflops", "load_peak_gflops"
# Engines that may take several batches at once: their time per image is not a latency.
SEVERAL_REQUESTS = {"openvino-throughput"}
# Colours that colour-blind readers can tell apart (Okabe and Ito), and a shape each.
STYLES = {
    "leanresnet": ("#D55E00", "o"),
    "ort": ("#0072B2", "s"),
    "openvino": ("#009E73", "^"),
    "openvino-throughput": ("#56B4E9", "v"),
    "torch": ("#CC79A7", "D"),
    "torch-channels-last": ("#8C6BB1", "P"),
    "tract": ("#999999", "X"),
    "rten": ("#555555", "*"),
}
PLOTTED_BATCHES = (1, 8)
# Engines of equal speed would hide each other: their points stand beside the intensity that they share, this factor apart.
SIDE_STEP = 1.03


class Results:
    """The lines of results.jsonl, and the median of each engine in each cell (preset, threads, batch)."""

    def __init__(self, path: Path):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.machine = next(line for line in lines if line["kind"] == "machine")
        self.networks = {line["preset"]: line for line in lines if line["kind"] == "network"}
        self.times = [line for line in lines if line["kind"] == "time"]
        self.failures = [line for line in lines if line["kind"] == "failure"]
        of_cell = defaultdict(list)
        for line in self.times:
            of_cell[line["engine"], line["preset"], line["threads"], line["batch"]].append(line)
        self.of_cell = {key: [line for line in entries if line["quiet"]] or entries for key, entries in of_cell.items()}
        self.medians = {key: statistics.median(line["ms_per_image"] for line in group) for key, group in self.of_cell.items()}
        self.engines = list(dict.fromkeys(line["engine"] for line in self.times))

    def columns(self, preset: str) -> list:
        return sorted({(threads, batch) for _, name, threads, batch in self.medians if name == preset})

    def best_peer(self, preset: str, column: tuple, without=frozenset()):
        """Time and name of the fastest other engine; None where none was measured."""
        peers = (engine for engine in self.engines if engine != OURS and engine not in without)
        found = [(self.medians[key], key[0]) for engine in peers if (key := (engine, preset, *column)) in self.medians]
        return min(found, default=None)

    def ratio(self, preset: str, column: tuple, without=frozenset()):
        """How many times longer the best peer takes than we do."""
        best, mine = self.best_peer(preset, column, without), self.medians.get((OURS, preset, *column))
        return best[0] / mine if best and mine else None

    def peak(self, threads: int, key: str = PURE_PEAK):
        """GFLOP/s of multiply-adds, as `bench net` measures them beside each time; None without a kernel for that."""
        ours = (group for cell, group in self.of_cell.items() if cell[0] == OURS and cell[2] == threads)
        peaks = [line[key] for group in ours for line in group if line.get(key)]
        return statistics.median(peaks) if peaks else None

    def performance(self, engine: str, preset: str, column: tuple):
        """GFLOP/s, of useful flops."""
        time = self.medians.get((engine, preset, *column))
        return self.networks[preset]["flops"] / time / 1e6 if time else None

    def share_of_peak(self, preset: str, column: tuple, key: str):
        performance, peak = self.performance(OURS, preset, column), self.peak(column[0], key)
        return performance / peak if performance and peak else None

    def spread(self, engine: str) -> float:
        """The largest ratio of the slowest to the fastest round in any cell."""
        groups = ([line["ms_per_image"] for line in group] for key, group in self.of_cell.items() if key[0] == engine)
        return max(max(group) / min(group) for group in groups)

    def noisy(self, key: tuple) -> bool:
        return not any(line["quiet"] for line in self.of_cell[key])


def row(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def optional(value, template: str) -> str:
    return "-" if value is None else template.format(value)


def preset_table(results: Results, preset: str) -> list:
    columns = results.columns(preset)
    bests = {column: results.best_peer(preset, column) for column in columns}

    def time(engine, column):
        key = (engine, preset, *column)
        if key not in results.medians:
            return "-"
        text = f"{results.medians[key]:.3f}" + ("~" if results.noisy(key) else "")
        return f"**{text}**" if bests[column] and bests[column][1] == engine else text

    counts = results.networks[preset]
    header = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads, batch in columns]
    lines = [f"### {preset}: {counts['flops'] / 1e6:.1f} MFLOP per image", "", row(["ms per image", *header])]
    lines.append("|---" * (len(columns) + 1) + "|")
    lines += [row([engine, *(time(engine, column) for column in columns)]) for engine in results.engines]
    lines.append(row(["best peer", *(bests[column][1] if bests[column] else "-" for column in columns)]))
    lines.append(row(["best peer / leanresnet", *(optional(results.ratio(preset, column), "{:.2f}") for column in columns)]))
    for title, key in (("the FMA peak", PURE_PEAK), ("the peak with loads", LOAD_PEAK)):
        shares = (results.share_of_peak(preset, column, key) for column in columns)
        lines.append(row([f"leanresnet, share of {title}", *(optional(share, "{:.0%}") for share in shares)]))
    return [*lines, ""]


def summary(results: Results) -> list:
    """The geometric mean and the smallest of the ratios, against all peers and against those that take one batch at a time."""
    lines = []
    for title, without in (("all peers", set()), ("peers that take one batch at a time", SEVERAL_REQUESTS)):
        cells = [(preset, column) for preset in results.networks for column in results.columns(preset)]
        ratios = [(ratio, *cell) for cell in cells if (ratio := results.ratio(*cell, without))]
        if ratios:
            mean = statistics.geometric_mean(ratio for ratio, *_ in ratios)
            least, preset, (threads, batch) = min(ratios)
            where = f"{preset}, {threads} thread{'s' * (threads > 1)}, batch {batch}"
            ahead = sum(ratio > 1 for ratio, *_ in ratios)
            lines.append(
                f"- Against the best of {title}: geometric mean {mean:.2f}, smallest {least:.2f} ({where}); "
                f"leanresnet is faster in {ahead} of {len(ratios)} cells."
            )
    return lines


def agreement(results: Results) -> list:
    lines = ["| largest relative difference | float64 reference | leanresnet | spread between rounds |", "|---|---|---|---|"]
    for engine in results.engines:
        mine = [line for line in results.times if line["engine"] == engine]
        largest = (max((line.get(f"difference_{other}", 0.0) for line in mine)) for other in ("reference", "leanresnet"))
        lines.append(row([engine, *(f"{value:.1e}" for value in largest), f"{results.spread(engine):.2f}"]))
    return lines + [""]


def table(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    doctor = machine["doctor"]
    noisy = sum(not line["quiet"] for line in results.times)
    alone = sum(results.noisy(key) for key in results.of_cell)
    rounds = 1 + max((line["round"] for line in results.times), default=0)
    peaks = " and ".join(
        f"{optional(results.peak(threads), '{:.0f}')} GFLOP/s, {optional(results.peak(threads, LOAD_PEAK), '{:.0f}')} with loads "
        f"({threads} thread{'s' * (threads > 1)})"
        for threads in sorted({key[2] for key in results.of_cell})
    )
    lines = [
        "# leanresnet beside other engines, f32 inference",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; {machine['date']}. leanresnet {doctor['version']} "
        f"({doctor['isa']}, {doctor['compiler']}), {versions}. FMA peak {peaks}.",
        "",
        f"    {machine['command']}",
        "",
        "Milliseconds per image, medians of the quiet rounds; bold: the best peer. Ratios above 1: leanresnet is faster.",
        f"Rounds: {rounds}. {noisy} of {len(results.times)} measurements stayed noisy; "
        f"~ marks the {alone} medians that have no quiet one.",
        "",
    ]
    for preset in results.networks:
        lines += preset_table(results, preset)
    lines += [*summary(results), "", *agreement(results)]
    lines += [f"- failed: {line['engine']}, {line['preset']}, batch {line['batch']}: {line['error']}" for line in results.failures]
    return "\n".join(lines)


def intensity(network: dict, batch: int) -> float:
    """Flops per byte, if every layer streams once."""
    return network["flops"] * batch / (network["activation_bytes"] * batch + network["weight_bytes"])


def draw_panel(axes, results: Results, batch: int, threads: int):
    """One batch size: the roofs, and every engine above the intensity of each network."""
    peak, bandwidth = results.peak(threads), results.machine["doctor"]["bandwidth_gbs"]
    left, right = 3.0, 48.0
    ridge = peak / bandwidth
    axes.plot([left, ridge, right], [left * bandwidth, peak, peak], color="#333333", linewidth=1.6)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    label = {"ha": "right", "va": "bottom", "fontsize": 9, "bbox": background}
    roof = f"FMA peak, {peak:.0f} GFLOP/s"
    with_loads = results.peak(threads, LOAD_PEAK)
    if with_loads:
        roof += f"; dashed: with loads, {with_loads:.0f}"
        axes.plot([with_loads / bandwidth, right], [with_loads] * 2, color="#333333", linewidth=1.2, linestyle="--")
    axes.text(right * 0.95, peak * 1.08, roof, **label)
    axes.text(left * 1.06, left * bandwidth * 0.86, f"memory, {bandwidth:.0f} GB/s", ha="left", va="top", fontsize=9)
    lowest = peak
    for preset, network in results.networks.items():
        x = intensity(network, batch)
        axes.axvline(x, color="#DDDDDD", linewidth=1, zorder=0)
        label = {"ha": "right", "va": "bottom", "rotation": 90, "fontsize": 9}
        axes.annotate(preset, (x, 0.02), xycoords=("data", "axes fraction"), **label)
        for index, engine in enumerate(results.engines):
            beside = SIDE_STEP ** (index - (len(results.engines) - 1) / 2)
            performance = results.performance(engine, preset, (threads, batch))
            if performance:
                colour, marker = STYLES[engine]
                lowest = min(lowest, performance)
                style = {"s": 62, "color": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.8}
                axes.scatter([x * beside], [performance], zorder=4 if engine == OURS else 3, **style)
    axes.set(xscale="log", yscale="log", xlim=(left, right), xlabel="useful flops per byte")
    axes.set_title(f"batch {batch}", fontsize=11)
    return lowest


def roofline(results: Results, folder: Path):
    threads = 1
    batches = [batch for batch in PLOTTED_BATCHES if any(key[2:] == (threads, batch) for key in results.medians)]
    if not batches or not results.peak(threads):
        return
    figure, panels = plt.subplots(1, len(batches), figsize=(max(8.4, 5.4 * len(batches)), 5.6), sharey=True, squeeze=False)
    lowest = min(draw_panel(axes, results, batch, threads) for axes, batch in zip(panels[0], batches))
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axes in panels[0]:
        # Room for the names of the networks below all points.
        axes.set_ylim(lowest / 3, 1.5 * results.peak(threads))
        axes.set_xticks([4, 8, 16, 32])
        axes.set_yticks([tick for tick in (1, 2, 4, 8, 16, 32, 64, 128) if tick >= axes.get_ylim()[0]])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(plain)
            axis.set_minor_locator(NullLocator())
        axes.grid(axis="y", color="#EEEEEE", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("useful GFLOP/s")
    labels = [
        plt.Line2D([], [], color=STYLES[name][0], marker=STYLES[name][1], linestyle="", markersize=8, label=name)
        for name in results.engines
    ]
    figure.suptitle(f"f32 inference on one core: {results.machine['cpu']}", fontsize=12)
    figure.legend(handles=labels, loc="lower center", ncols=min(4, len(labels)), frameon=False, bbox_to_anchor=(0.5, 0.095))
    caption = (
        "The engines' points stand side by side around the line of their network, which marks its flops per byte.\n"
        "Bytes: activations and weights, if every layer reads its inputs and weights once and writes its output once.\n"
        "Caches serve most of them, so the memory roof bounds engines that stream every layer, not those that keep data in caches."
    )
    figure.text(0.5, 0.012, caption, ha="center", va="bottom", fontsize=8, color="#444444")
    figure.tight_layout(rect=(0, 0.095 + 0.05 * math.ceil(len(labels) / 4), 1, 1))
    figure.savefig(folder / "roofline.svg", metadata={"Date": None})
    figure.savefig(folder / "roofline.png", dpi=150)
    plt.close(figure)


def write(folder: Path) -> str:
    """Writes the files and returns the table."""
    results = Results(folder / "results.jsonl")
    text = table(results)
    (folder / "table.md").write_text(text + "\n")
    roofline(results, folder)
    return text

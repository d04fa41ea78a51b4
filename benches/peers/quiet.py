"""Timing, and what other processes and the host took meanwhile. Linux only: the numbers come from /proc/stat.

One foreign busy thread slows an engine 1.2 to 300 times, so a measurement counts only if the machine was quiet. Whether it was
is decided by the foreign load alone, never by the measured time.
"""

import os
import time
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
# Cores that others may use. The system counts in ticks, so that two of them may be an error of rounding.
LIMIT = 0.06
ROUNDING = 2 * TICK
PAUSE = 0.5


def snapshot() -> tuple:
    """Seconds: now, CPU time of all processes, CPU time of this one and its finished children, time stolen by the host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    own = os.times()
    own_seconds = own.user + own.system + own.children_user + own.children_system
    return time.perf_counter(), (user + nice + system + irq + softirq) * TICK, own_seconds, steal * TICK


def disturbance(before: tuple, after: tuple) -> dict:
    """Cores used by others, cores stolen by the host, and whether that is little enough."""
    seconds, everyone, own, stolen = (end - start for start, end in zip(before, after))
    foreign = max(0.0, everyone - own)
    quiet = max(foreign, stolen) <= LIMIT * seconds + ROUNDING
    return {"foreign": round(foreign / seconds, 3), "stolen": round(stolen / seconds, 3), "quiet": quiet}


def measured(measure, tries: int) -> dict:
    """What `measure` returns, a dict, and the disturbance; again if that was too much, at most `tries` times, and then the
    least disturbed one."""
    results = []
    for attempt in range(tries):
        if attempt:
            time.sleep(PAUSE)
        before = snapshot()
        result = measure()
        result |= disturbance(before, snapshot()) | {"tries": attempt + 1}
        if result["quiet"]:
            return result
        results.append(result)
    return min(results, key=lambda result: result["foreign"] + result["stolen"]) | {"tries": tries}


def seconds_per_repeat(repeat, seconds: float) -> float:
    """The mean over as many repetitions as fill `seconds`: the estimator of `leanresnet bench`, after a longer warm-up."""
    repeat(1)
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < 0.3 * seconds:
        repeat(1)
        done += 1
    each = (time.perf_counter() - start) / done
    repetitions = max(1, int(seconds / each))
    start = time.perf_counter()
    repeat(repetitions)
    return (time.perf_counter() - start) / repetitions

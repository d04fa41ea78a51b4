"""Threads, processes, signals and memory of prediction."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import leanresnet
import numpy as np
import pytest
from conftest import TINY, bits


def images(count, seed=1):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8), dtype=np.float32)


def in_a_process(program, *, env=None):
    """Runs a program with `model`, a tiny one; gives its output, stdout and stderr."""
    start = f"import leanresnet, numpy as np\nmodel = leanresnet.Model.random(toml={TINY!r})\n"
    words = [sys.executable, "-c", start + textwrap.dedent(program)]
    ran = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
    return ran.stdout, ran.stderr


@pytest.mark.parametrize("threads", [1, 2, None])
def test_many_threads_can_predict_at_once(tiny, threads):
    batches = [images(7 + index, seed=index) for index in range(24)]
    expected = [bits(tiny.predict(batch, threads=1)) for batch in batches]
    start = threading.Barrier(8)

    def work(index):
        if index < 8:
            start.wait()
        return bits(tiny.predict(batches[index], threads=threads, batch=1 + index % 9))

    with ThreadPoolExecutor(8) as pool:
        for expected_bits, found in zip(expected, pool.map(work, range(24)), strict=True):
            assert np.array_equal(found, expected_bits)


def longest_pause(work):
    """Runs `work` while another thread notes the time again and again: its longest pause, and how long the work took."""
    done = threading.Event()
    times = []

    def note():
        while not done.is_set():
            times.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=note)
    thread.start()
    begin = time.perf_counter()
    work()
    took = time.perf_counter() - begin
    done.set()
    thread.join()
    return max(np.diff([begin, *times])), took


def test_other_threads_go_on_meanwhile(shipped):
    batch = np.zeros((1, 3, 32, 32), np.float32)
    shipped.predict(batch, threads=1)
    begin = time.perf_counter()
    shipped.predict(np.repeat(batch, 64, axis=0), threads=1)
    rate = 64 / (time.perf_counter() - begin)
    many = np.repeat(batch, int(1.5 * rate) + 64, axis=0)
    pause, took = longest_pause(lambda: shipped.predict(many, threads=1))
    assert took > 0.5
    assert pause < took / 4, f"another thread stood still for {pause:.3f} s of {took:.3f} s"


def test_ctrl_c_ends_a_long_prediction(shipped):
    many = np.broadcast_to(np.zeros((1, 3, 32, 32), np.uint8), (40_000, 3, 32, 32)).copy()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    begin = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        shipped.predict(many, threads=1)
    assert time.perf_counter() - begin < 10
    assert shipped.predict(many[:2]).shape == (2, 10)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_child_can_predict(tiny):
    batch = images(9)
    expected = bits(tiny.predict(batch, threads=2))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(bits(tiny.predict(batch, threads=2))), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0, "the child has not ended"
    assert np.array_equal(queue.get(), expected)
    assert np.array_equal(bits(tiny.predict(batch, threads=2)), expected)


def test_a_session_is_built_once_and_again_for_a_larger_batch():
    program = """
        import sys
        for count in 4, 4, 1, 3, 64, 64, 2:
            model.predict(np.zeros((count, 3, 8, 8), np.float32), threads=2)
            print("|", file=sys.stderr, end="", flush=True)
    """
    _, log = in_a_process(program, env={"LEANRESNET_LOG": "dispatch"})
    assert [len(part) > 0 for part in log.split("|")] == [True, False, False, False, True, False, False, False], log


def test_contiguous_arrays_are_not_copied_and_results_are_written_in_place(tiny):
    """By the memory that NumPy takes, which it tells tracemalloc."""
    many = np.zeros((4000, 3, 8, 8), np.float32)
    tiny.predict(many)

    def peak(batch, layout):
        tracemalloc.start()
        logits = tiny.predict(batch, layout=layout)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, logits.nbytes

    found, result = peak(many, "nchw")
    assert result <= found < result + 10_000
    found, result = peak(many.transpose(0, 2, 3, 1), "nhwc")
    assert result <= found < result + 10_000
    found, _ = peak(many[:, :, ::-1], "nchw")
    assert found > many.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_copy_is_made_outside_of_numpy_either():
    """A mapping of zeros takes no memory as long as it is only read; a copy of it would."""
    program = """
        def resident():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        model.predict(np.zeros((64, 3, 8, 8), np.float32), threads=1)
        before = resident()
        many = np.zeros((100_000, 3, 8, 8), np.float32)
        model.predict(many, threads=1)
        print(resident() - before, many.nbytes // 1024)
    """
    grown, size = map(int, in_a_process(program)[0].split())
    assert grown < size / 4, f"{grown} KiB more for {size} KiB of images"

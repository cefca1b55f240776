"""Loads safetensors checkpoints into memory, one after the other, for whoever asks through a socket.

Everything is imported, and it is known whether the package copies, before the first load is asked for.
Each line that comes is `{"folder": …}`. Answered are two: one as soon as every byte is in memory, which
says what that took, and one when it is forgotten again.
"""

import gc
import importlib.metadata
import json
import os
import pathlib
import socket
import sys
import tempfile
import time
import traceback

import numpy
import safetensors.numpy

try:
    # Tells numpy of bfloat16. The kinds of float8 are looked for in numpy by the names that torch has for them.
    import ml_dtypes

    for name in dir(ml_dtypes):
        if name.startswith("float8_") and not hasattr(numpy, name):
            setattr(numpy, name, getattr(ml_dtypes, name))
    torch = None
except ImportError:
    try:
        import safetensors.torch
        import torch
    except ImportError:
        torch = None

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PAGE = 4096


def shards(folder):
    """The files of a checkpoint, each once, in the order of their names."""
    index = pathlib.Path(folder, INDEX)
    if not index.exists():
        return [pathlib.Path(folder, SINGLE)]
    names = json.loads(index.read_text())["weight_map"].values()
    return [pathlib.Path(folder, name) for name in sorted(set(names))]


def load_file(path, backend):
    """The package's own way, by torch where numpy lacks the types that models have."""
    options = {"backend": backend} if backend else {}
    if torch is None:
        return safetensors.numpy.load_file(path, **options)
    return safetensors.torch.load_file(path, device="cpu", **options)


def place(tensor):
    """Where its bytes lie."""
    return tensor.ctypes.data if torch is None else tensor.data_ptr()


def touch(tensor):
    """Reads a byte of every page."""
    if torch is None:
        raw = tensor.reshape(-1).view(numpy.uint8)
    else:
        raw = tensor.reshape(-1).view(torch.uint8)
    return int(raw[::PAGE].sum())


def copy(tensor):
    return tensor.copy() if torch is None else tensor.clone()


def maps(backend):
    """Whether what is loaded lies in the file itself, mapped."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, SINGLE)
        safetensors.numpy.save_file({"x": numpy.ones(1 << 20, numpy.uint8)}, path)
        tensor = load_file(path, backend)["x"]
        at = place(tensor)
        with open("/proc/self/maps") as lines:
            for line in lines:
                begin, _, rest = line.partition("-")
                end = rest.split(" ", 1)[0]
                if int(begin, 16) <= at < int(end, 16):
                    return line.rstrip().endswith(SINGLE)
        return False


def load(folder, backend, is_mapped):
    """Every tensor of a checkpoint by its name, its bytes in memory of its own."""
    tensors = {}
    for path in shards(folder):
        for name, tensor in load_file(path, backend).items():
            tensors[name] = copy(tensor) if is_mapped else tensor
    for tensor in tensors.values():
        touch(tensor)
    return tensors


def number_of(path, word):
    with open(path) as lines:
        for line in lines:
            if line.startswith(word):
                return int(line.split()[1])
    return None


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def answer(folder, backend, is_mapped):
    knows_peak = forget_peak()
    cpu, began = time.process_time(), time.perf_counter()
    tensors = load(folder, backend, is_mapped)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = number_of("/proc/self/status", "VmHWM:") if knows_peak else None
    return {
        "seconds": seconds,
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "cpu_seconds": cpu,
        "peak_memory": peak * 1024 if peak else None,
    }, tensors


def serve(lines, backend):
    def say(what):
        lines.write(json.dumps(what) + "\n")
        lines.flush()

    is_mapped = maps(backend)
    by = "numpy" if torch is None else "torch"
    say({"version": importlib.metadata.version("safetensors"), "by": by})
    for line in lines:
        try:
            told, tensors = answer(json.loads(line)["folder"], backend, is_mapped)
        except Exception as error:
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})
            continue
        say(told)
        del tensors
        gc.collect()
        say({"forgotten": True})


def main():
    name, backend = sys.argv[1], sys.argv[2]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect("\0" + name)
        with peer.makefile("rw") as lines:
            serve(lines, backend)


if __name__ == "__main__":
    main()

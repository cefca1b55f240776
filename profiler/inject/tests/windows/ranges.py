"""A server in Python that marks ranges with NVTX on its standard input's word, as its fellow in C launches kernels.

Its argument is the driver's stand-in. Each line is answered with one.
"""

import ctypes
import os
import sys

import nvtx


def mark() -> None:
    """A range within another, and one that is started and ended by its number."""
    with nvtx.annotate("outer"):
        with nvtx.annotate("inner", domain="engine"):
            pass
    nvtx.end_range(nvtx.start_range("started"))


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        word, *numbers = line.split()
        if word == "init":
            ctypes.CDLL(sys.argv[1]).cuInit(0)
        if word == "ranges":
            for _ in range(int(numbers[0])):
                mark()
        if word == "leave":
            os._exit(0)
        if word == "fork":
            child = os.fork()
            if child:
                _, status = os.waitpid(child, 0)
                print("child", status, flush=True)
                continue
        print(word, os.getpid(), flush=True)


if __name__ == "__main__":
    main()

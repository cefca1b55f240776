"""Installs the real ServerlessLLM store's server into a cache, so that it starts on a machine without a GPU.

There is one wheel of 0.8.0, for Python 3.10. Its server is C++ that links libraries of torch and calls none of them, and
Python that imports torch, transformers and others only for commands beside `start`: so libraries and modules of
their names are written here, and what the server really uses is installed, some 10 MB. What it asks of CUDA's runtime
is answered by `../cuda/cuda.c`, whose GPU is a file.

`--check` asks whether all that is there; it prints the folder. Nothing of it is ever part of this project.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = "3.10"
PACKAGES = ["serverless-llm-store==0.8.0", "click==8.1.7", "grpcio==1.72.1", "protobuf==5.29.5"]
# What the server links and does not call.
LIBRARIES = ["libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so"]
# Seconds for one command.
LIMIT = 200

ABSENT = '''"""Stands in for packages that the store's server imports and never uses."""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

PACKAGES = ("accelerate", "bitsandbytes", "peft", "torch", "transformers", "vllm")
# Of the package itself: how clients save and load, which is another library of it.
MODULES = ("sllm_store.transformers",)


class Kind(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Kind(name, (), {})


class Absent(MetaPathFinder, Loader):
    def find_spec(self, name, path, target=None):
        if name in MODULES or name.split(".")[0] in PACKAGES:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__getattr__ = lambda name: getattr(Kind("Module", (), {}), name)


sys.meta_path.insert(0, Absent())
'''


def folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "benchwright" / "sllm-store-0.8.0"


def python() -> str | None:
    """The Python that the wheel is for, if there is one."""
    places = [shutil.which(f"python{PYTHON}")]
    places += [str(path) for path in Path.home().glob(f".pyenv/versions/{PYTHON}.*/bin/python")]
    for program in filter(None, places):
        ask = [program, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.')"]
        try:
            said = subprocess.run(ask, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        if said.stdout.strip() == PYTHON:
            return program
    return None


def unusable() -> str | None:
    """Why the store cannot run here, if it cannot."""
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return "it is built for Linux on x86-64 with glibc"
    if not python():
        return f"its wheel is for Python {PYTHON}"
    if not shutil.which("cc"):
        return "there is no C compiler"
    return None


def install(to: Path) -> None:
    """Puts everything aside first, so that what lies in `to` is whole."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        aside = Path(aside)
        run(python(), "-m", "venv", aside / "venv")
        pip = [aside / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run(*pip, "install", "--no-deps", "--only-binary", ":all:", *PACKAGES)
        (aside / "lib").mkdir()
        for name in LIBRARIES:
            run("cc", "-shared", "-x", "c", os.devnull, f"-Wl,-soname,{name}", "-o", aside / "lib" / name)
        (aside / "python").mkdir()
        (aside / "python/sitecustomize.py").write_text(ABSENT)
        (aside / "whole").mkdir()
        for part in ("lib", "python", "venv"):
            (aside / part).rename(aside / "whole" / part)
        (aside / "whole").rename(to)


def run(*words) -> None:
    subprocess.run([str(word) for word in words], check=True, timeout=LIMIT, stdin=subprocess.DEVNULL)


def main() -> None:
    why = unusable()
    if why:
        sys.exit(f"the ServerlessLLM store cannot run here: {why}")
    to = folder()
    if "--check" in sys.argv:
        if not to.exists():
            sys.exit("it is not there yet")
        print(to)
    elif not to.exists():
        install(to)


if __name__ == "__main__":
    main()

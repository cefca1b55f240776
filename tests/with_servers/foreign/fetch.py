"""Brings SGLang's benchmark client from PyPI into a cache, for the tests beside this file.

It is the one that SGLang has in Rust, a module of its wheel that needs nothing else. `--check` asks
whether it is there. Nothing of SGLang's is ever part of this project.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.5.23"
# The wheel of each Python that there is one for.
WHEELS = {
    (3, 11): "00b3cd5b265ac76c64185fbb6b95424f324ddd9f428d0306b77bc9db9d859937",
    (3, 12): "8d257a319395b322bb1be327d05e5528859358153c8563b04c0a4a3c8af164b6",
    (3, 13): "10f0b2b29c8fea616e4b27cbbbb147f32a879bf3db71c9767425a3d9d77a36cb",
}
MODULE = "sglang/srt/rust_extensions/_bench."
# The C library that the wheel was built for.
GLIBC = (2, 34)
# Seconds for pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def file() -> Path:
    """Where the module is, named after its version and this Python's."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Path(cache) / "benchwright" / f"sglang-bench-{VERSION}-python-{python}" / "_bench.so"


def unusable() -> str | None:
    """Why the module cannot run here, if it cannot."""
    libc, version = platform.libc_ver()
    if platform.machine() != "x86_64" or libc != "glibc":
        return "it is built for Linux on x86-64 with glibc"
    if tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        return f"it needs glibc 2.34, this is {version}"
    if sys.version_info[:2] not in WHEELS:
        return "it is built for Python 3.11 to 3.13"
    return None


def fetch(to: Path) -> None:
    """Puts everything aside first, so that what lies at `to` is whole."""
    to.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent.parent) as aside:
        aside = Path(aside)
        wanted = f"sglang=={VERSION} --hash=sha256:{WHEELS[sys.version_info[:2]]}\n"
        (aside / "wheels.txt").write_text(wanted)
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(aside)]
        command = [*PIP, "download", *options, "-r", str(aside / "wheels.txt")]
        subprocess.run(command, check=True, timeout=LIMIT)
        [wheel] = aside.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [module] = [name for name in archive.namelist() if name.startswith(MODULE)]
            (aside / "bench").mkdir()
            (aside / "bench" / to.name).write_bytes(archive.read(module))
        shutil.rmtree(to.parent, ignore_errors=True)
        (aside / "bench").rename(to.parent)


def main() -> None:
    why = unusable()
    if why:
        sys.exit(f"SGLang's client cannot run here: {why}")
    there = file()
    if there.is_file():
        return
    if "--check" in sys.argv:
        sys.exit(f"no {there}")
    try:
        fetch(there)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

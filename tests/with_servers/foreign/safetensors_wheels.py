"""Brings wheels of Python's safetensors, each version that is measured, and of what it needs, into a cache.

Tests build environments of them by this project's own step. `--check` asks whether they are there, and
prints their folder. Nothing of theirs is ever part of this project.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("0.8.0", "0.9.0rc1")
# What tests put beside each; `blake3` for digests, `ml_dtypes` for types that numpy lacks.
BESIDE = ("numpy==2.3.5", "ml_dtypes==0.5.4", "blake3==1.0.8", "typing_extensions==4.15.0")
# Seconds for pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = "-".join([*VERSIONS, *(wanted.partition("==")[2] for wanted in BESIDE)])
    return Path(cache) / "benchwright" / f"safetensors-wheels-{names}-python-{python}"


def unusable() -> str | None:
    """Why they cannot run here, if they cannot."""
    if platform.libc_ver()[0] != "glibc":
        return "their wheels are for glibc"
    if sys.version_info < (3, 11):
        return "numpy needs Python 3.11"
    return None


def fetch(to: Path) -> None:
    """Puts everything aside first, so that what lies at `to` is whole."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        wheels = Path(aside) / "wheels"
        options = ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
        for version in VERSIONS:
            wanted = [f"safetensors=={version}", *BESIDE]
            subprocess.run([*PIP, "download", *options, *wanted], check=True, timeout=LIMIT)
        shutil.rmtree(to, ignore_errors=True)
        wheels.rename(to)


def main() -> None:
    why = unusable()
    if why:
        sys.exit(f"Python's safetensors cannot run here: {why}")
    there = folder()
    if there.is_dir():
        print(there)
        return
    if "--check" in sys.argv:
        sys.exit(f"no {there}")
    try:
        fetch(there)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

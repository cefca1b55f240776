"""Brings NVTX's package for Python from PyPI into a cache, for `with_python_nvtx.rs`.

`--check` asks whether it is there. Prints where it is. Nothing of it is ever part of this project.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "0.2.17"
# Seconds for pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def package() -> Path:
    """Where it is, named after its version and that of Python."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Path(cache) / "benchwright" / f"nvtx-{VERSION}-python-{python}"


def fetch(to: Path) -> None:
    """Puts everything aside first, so that what lies at `to` is whole."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        target = Path(aside) / "package"
        options = ["--no-deps", "--only-binary", ":all:", "--target", str(target)]
        subprocess.run([*PIP, "install", *options, f"nvtx=={VERSION}"], check=True, timeout=LIMIT)
        shutil.rmtree(to, ignore_errors=True)
        target.rename(to)


def main() -> None:
    try:
        if not package().is_dir():
            if "--check" in sys.argv:
                sys.exit(f"no {package()}")
            fetch(package())
        print(package())
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

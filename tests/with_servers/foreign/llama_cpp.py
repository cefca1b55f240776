"""Says whether llama.cpp can be compiled here, which the first test that needs it does by `env.llama_cpp`.

That takes some twelve minutes of processor time, and what comes out is kept in the user's cache. Its source,
CMake, Ninja and a small model come from PyPI. Nothing of it is ever part of this project.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# Bytes of disk that the source, what is compiled of it and the model take.
DISK = 3 << 30


def unusable() -> str | None:
    """Why it cannot be compiled here, if it cannot."""
    if platform.system() != "Linux":
        return "its tests are for Linux"
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler (apt-get install g++)"
    ask = [sys.executable, "-c", "import ensurepip, venv"]
    if subprocess.run(ask, capture_output=True, timeout=30).returncode:
        return "Python makes no environments (apt-get install python3-venv)"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(home).free < DISK:
        return f"it needs {DISK >> 30} GiB of disk"
    return None


def main() -> None:
    why = unusable()
    if why:
        sys.exit(f"llama.cpp cannot be compiled here: {why}")
    if "--check" not in sys.argv:
        print("its tests compile llama.cpp when they first run, which takes minutes")


if __name__ == "__main__":
    main()

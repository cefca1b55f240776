"""Brings what the tests of `with_tokenizers.rs` count a second time with, into a cache.

That is the Python package of the library `tokenizers`, of another version than this project's, and the
data of ShareGPT. `--check` asks whether they are there, and says where. The tokenizers themselves are
brought by the tests, with `dataset.fetch`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "0.22.1"
# Seconds for pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]
SHAREGPT = Path(__file__).parent.parent / "sharegpt" / "fetch.py"


def cache() -> Path:
    """Where everything is."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "benchwright"


def package() -> Path:
    """Where the package is, named after its version and that of Python."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return cache() / f"tokenizers-{VERSION}-python-{python}"


def sharegpt(*arguments: str) -> str:
    """Asks the other script, which has the data."""
    command = [sys.executable, "-B", str(SHAREGPT), *arguments]
    said = subprocess.run(command, check=True, timeout=LIMIT, capture_output=True, text=True)
    return said.stdout.strip()


def fetch(to: Path) -> None:
    """Puts everything aside first, so that what lies at `to` is whole."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        target = Path(aside) / "package"
        options = ["--no-deps", "--only-binary", ":all:", "--target", str(target)]
        subprocess.run([*PIP, "install", *options, f"tokenizers=={VERSION}"], check=True, timeout=LIMIT)
        shutil.rmtree(to, ignore_errors=True)
        target.rename(to)


def main() -> None:
    try:
        if "--check" not in sys.argv:
            if not package().is_dir():
                fetch(package())
            sharegpt()
            return
        if not package().is_dir():
            sys.exit(f"no {package()}")
        print(cache())
        print(package())
        print(sharegpt("--check"))
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

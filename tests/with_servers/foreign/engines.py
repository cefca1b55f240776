"""Brings uv into a cache, with which tests install SGLang and vLLM by this project's own steps.

The engines themselves are installed by the first test that needs one, into the cache of environments: some
5 GB, minutes where nothing is cached. `--check` asks whether they can run here and uv is there; it prints uv's
folder. Nothing of theirs is ever part of this project.
"""

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

UV = "0.13.9"
WHEEL = "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
DIGEST = "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"
# Seconds for pip.
LIMIT = 200
# Bytes of memory that a server takes beside a build of this project, and of disk that both take.
MEMORY = 7 << 30
DISK = 12 << 30


def folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "benchwright" / f"uv-{UV}"


def has_python() -> bool:
    """Whether there is the Python that the locks are for."""
    for program in ("python3.11", "python3"):
        ask = [program, "-c", "import sys; print(*sys.version_info[:2])"]
        try:
            said = subprocess.run(ask, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        if said.stdout.split() == ["3", "11"]:
            return True
    return False


def unusable(needs_numa: bool) -> str | None:
    """Why the engines cannot run here, if they cannot."""
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return "they are built for Linux on x86-64 with glibc"
    if not has_python():
        return "their packages are locked for Python 3.11"
    if not shutil.which("cc"):
        return "there is no C compiler"
    if needs_numa and not ctypes.util.find_library("numa"):
        return "vLLM needs libnuma (apt-get install libnuma1)"
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < MEMORY:
        return f"they need {MEMORY >> 30} GiB of memory"
    home = folder().parent
    home.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(home).free < DISK:
        return f"they need {DISK >> 30} GiB of disk"
    return None


def fetch() -> None:
    """Puts everything aside first, so that what lies there is whole."""
    to = folder()
    with tempfile.TemporaryDirectory(dir=to.parent) as aside:
        aside = Path(aside)
        (aside / "wheels.txt").write_text(f"uv=={UV} --hash=sha256:{DIGEST}\n")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(aside)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]
        command = [*pip, "download", *options, "-r", str(aside / "wheels.txt")]
        subprocess.run(command, check=True, timeout=LIMIT)
        with zipfile.ZipFile(aside / WHEEL) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("/scripts/uv")]
            (aside / "bin").mkdir()
            (aside / "bin/uv").write_bytes(archive.read(name))
        (aside / "bin/uv").chmod(0o755)
        shutil.rmtree(to, ignore_errors=True)
        (aside / "bin").rename(to)


def main(which: str = "SGLang and vLLM", needs_numa: bool = True) -> None:
    why = unusable(needs_numa)
    if why:
        sys.exit(f"{which} cannot run here: {why}")
    if not (folder() / "uv").is_file():
        if "--check" in sys.argv:
            sys.exit(f"no {folder() / 'uv'}")
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            sys.exit(f"not fetched: {error}")
        print(f"tests install {which} when they first run, which takes minutes")
    print(folder())


if __name__ == "__main__":
    main()

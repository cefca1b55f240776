"""Says the BLAKE3 of every tensor that the program of `checkpoint.load` brings, by its name.

Usage: PROGRAM FOLDER BACKEND, where PROGRAM is that program's file.
"""

import importlib.util
import json
import sys

import blake3

program, folder, backend = sys.argv[1:]
spec = importlib.util.spec_from_file_location("loads", program)
loads = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loads)
tensors = loads.load(folder, backend, loads.maps(backend))
print(json.dumps({name: blake3.blake3(t.tobytes()).hexdigest() for name, t in tensors.items()}))

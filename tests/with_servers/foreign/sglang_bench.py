"""Runs SGLang's benchmark client, as `fetch.py` brought it, with the arguments of its own command."""

import importlib.util
import sys

import fetch

spec = importlib.util.spec_from_file_location("_bench", fetch.file())
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
bench.run_argv(["sglang-bench", *sys.argv[1:]])

"""Brings uv into a cache, with which tests install Transformers' server, as `engines.py` does for others."""

import engines

if __name__ == "__main__":
    engines.main("Transformers' server", needs_numa=False)

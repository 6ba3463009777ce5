#!/usr/bin/env python3
"""Runs `edgepack check` with the hook's options on each file that pre-commit passes, and ends with the highest code."""

import subprocess
import sys


def main(words: list[str]) -> int:
    """Run the command on every word after `--`, or on every .tflite file where there is none."""
    split = (
        words.index("--")
        if "--" in words
        else next((number for number, word in enumerate(words) if word.endswith(".tflite")), len(words))
    )
    options, files = words[:split], [word for word in words[split:] if word != "--"]
    try:
        return max((subprocess.call(["edgepack", "check", *options, "--", file]) for file in files), default=0)
    except FileNotFoundError:
        print("edgepack is not installed: pip install edgepack", file=sys.stderr)
        return 5


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

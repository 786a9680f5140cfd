#!/usr/bin/env python3
"""Writes a file's bytes as the elements of a C++ array: embed.py INPUT OUTPUT."""

import sys


def main() -> None:
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        content = file.read()
    with open(target, "w", encoding="ascii") as file:
        for start in range(0, len(content), 24):
            file.write("".join(f"{byte}," for byte in content[start : start + 24]) + "\n")


main()

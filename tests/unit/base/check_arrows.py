#!/usr/bin/env python3
"""Includes point downwards only: every #include "room/..." must be an arrow that ARCHITECTURE.md draws."""

import pathlib
import re
import sys

ALLOWED = {
    "base": set(),
    "fabric": {"base"},
    "excache": {"base"},
    "ept": {"base", "excache", "remote-mem/page_store.h"},
    "vcpu": {"base"},
    "controller/wire": {"base"},
    "remote-mem": {"base", "fabric", "controller/wire"},
    "vstore": {"base", "fabric", "controller/wire"},
    "vmm/virtio": {"base", "vmm", "vstore/block_backend.h"},
    "vmm": {"base", "vcpu", "ept", "remote-mem", "vstore", "fabric", "vmm/virtio"},
    "controller": {"base", "controller/wire"},
    "guests": {"base"},
}


def room_of(path):
    """The innermost room that a path lies in; paths outside every room give None."""
    fitting = [room for room in ALLOWED if path == room or path.startswith(room + "/")]
    return max(fitting, key=len, default=None)


def offences(root):
    files = [path for room in ALLOWED for pattern in ("*.h", "*.cc") for path in (root / room).rglob(pattern)]
    for path in sorted(set(files)):
        name = path.relative_to(root).as_posix()
        own = room_of(name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not match or room_of(match[1]) in (None, own):
                continue
            if room_of(match[1]) not in ALLOWED[own] and match[1] not in ALLOWED[own]:
                yield f"{name}:{number}: {own} must not include {match[1]}"
        if path.suffix == ".h" and "#pragma once" not in path.read_text():
            yield f"{name}: has no #pragma once"


def main():
    root = pathlib.Path(sys.argv[1])
    found = list(offences(root))
    print("\n".join(found) or "every include points downwards")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

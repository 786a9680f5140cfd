#!/usr/bin/env python3
"""test_checker.py CHECKER: the checker passes on sound memory and notices one byte that is changed behind its back."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

CHECKER = sys.argv.pop(1)


def result_of(output):
    lines = [line for line in output.splitlines() if line.startswith("vnode-checker: {")]
    assert len(lines) == 1, output
    return json.loads(lines[0].removeprefix("vnode-checker: "))


def run(*arguments):
    done = subprocess.run([CHECKER, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def arena_of(pid, mib):
    """The start of the arena: the only private anonymous mapping of its size or a little more."""
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        anonymous = re.match(r"(\w+)-(\w+) rw-p 0+ 00:00 0\s*$", line)
        if not anonymous:
            continue
        start, end = (int(edge, 16) for edge in anonymous.groups())
        if mib << 20 <= end - start < (mib + 4) << 20:
            return start
    raise AssertionError("no arena in the checker's maps")


class CheckerTest(unittest.TestCase):
    def test_sound_memory_passes_in_every_mode(self):
        status, output = run("--mib", "8", "--threads", "3", "--mode", "all")
        result = result_of(output)
        self.assertEqual((status, result["ok"], result["mismatches"]), (0, True, 0))
        self.assertGreaterEqual(result["pages_written"], 2048)
        self.assertEqual(result["bytes_written"], result["pages_written"] * 4096)

    def test_ledger_may_live_in_a_file(self):
        with tempfile.NamedTemporaryFile() as ledger:
            status, output = run("--mib", "8", "--mode", "fill+random", "--ledger", ledger.name)
            self.assertEqual((status, result_of(output)["ok"]), (0, True))
            self.assertEqual(pathlib.Path(ledger.name).stat().st_size, 8 * 4096)

    def test_a_changed_byte_is_found(self):
        mib = 40
        checker = subprocess.Popen([CHECKER, "--mib", str(mib), "--mode", "fill", "--seconds", "20"],
                                   stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 10
        first_line = checker.stdout.readline()
        where = arena_of(checker.pid, mib) + (5 << 20) + 123
        # The page is rewritten again and again without a look at every turn: keep spoiling it until it is seen.
        with open(f"/proc/{checker.pid}/mem", "r+b", buffering=0) as memory, contextlib.suppress(OSError):
            # An OSError says that the checker has found it and is gone.
            while time.monotonic() < deadline:
                memory.seek(where)
                byte = memory.read(1)[0]
                memory.seek(where)
                memory.write(bytes([byte ^ 1]))
                time.sleep(0.002)
        output = first_line + checker.communicate(timeout=30)[0]
        result = result_of(output)
        self.assertEqual((checker.returncode, result["ok"]), (1, False))
        self.assertGreaterEqual(result["mismatches"], 1)
        self.assertIn(" wrong_words=1 ", output)


if __name__ == "__main__":
    unittest.main()

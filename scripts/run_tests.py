#!/usr/bin/env python3
"""Builds Splitvisor and runs every test; see ../run-tests."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
STARTED = time.monotonic()
# What has no output for so long says at least that it is still at work.
SIGN_OF_LIFE_S = 60
# A lab host keeps one processor busy.
LAB_TESTS_AT_ONCE = max(1, min(4, os.cpu_count() or 1))


def progress(text):
    print(f"run-tests: {time.monotonic() - STARTED:.0f} s: {text}", flush=True)


class Tally:
    """Names what passed and what failed, as it happens."""

    def __init__(self):
        self.passed = []
        self.failed = []
        self.skipped = []
        self.lock_ = threading.Lock()

    def note(self, name, ok, seconds, hint="", log=None):
        with self.lock_:
            (self.passed if ok else self.failed).append(name)
            progress(f"{'ok    ' if ok else 'FAILED'} {name} ({seconds:.1f} s){'' if ok or not hint else ': ' + hint}")
            if log and not ok:
                print(tail(log), flush=True)

    def conclude(self):
        for name in self.failed:
            print(f"failed: {name}")
        print(f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped", flush=True)
        return 1 if self.failed or not self.passed else 0


def run_logged(command, log, timeout_s, env=None, folder=CHECKOUT):
    """Runs a command with its output in a file; returns (status, seconds). 124 when the time was up."""
    start = time.monotonic()
    ended = threading.Event()

    def sign_of_life():
        while not ended.wait(SIGN_OF_LIFE_S):
            progress(f"still at {log.stem} ({time.monotonic() - start:.0f} s)")

    watcher = threading.Thread(target=sign_of_life, daemon=True)
    watcher.start()
    with log.open("wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, cwd=folder, env=env)
        try:
            status = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            status = 124
    ended.set()
    return status, time.monotonic() - start


def tail(log, lines=25):
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join("    " + line for line in text)


def must(what, command):
    progress(what)
    if subprocess.run([str(word) for word in command], cwd=CHECKOUT, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        print(f"run-tests: {what} failed; its message is above")
        print("0 passed, 1 failed, 0 skipped", flush=True)
        sys.exit(1)


def build_folder(sanitize):
    if os.environ.get("SPLITVISOR_BUILD"):
        return pathlib.Path(os.environ["SPLITVISOR_BUILD"]).resolve()
    return CHECKOUT / ("build" if not sanitize else "build-" + sanitize.split(",")[0])


def build(folder, sanitize):
    if not (folder / "build.ninja").exists():
        options = [f"-Db_sanitize={sanitize}", "-Db_lundef=false"] if sanitize else []
        must("configuring", ["meson", "setup", folder, *options])
    must("building", ["ninja", "-C", folder, "--quiet"])


def run_unit_tests(folder, tally, logs):
    info = json.loads(subprocess.run(["meson", "introspect", "--tests", str(folder)], capture_output=True, text=True,
                                     check=True).stdout)
    progress(f"unit tests: {len(info)} programs")
    for test in info:
        name = test["name"]
        env = os.environ | {key: str(value) for key, value in test["env"].items()}
        env.setdefault("TSAN_OPTIONS", f"suppressions={CHECKOUT / 'tests' / 'thread-sanitizer.txt'}")
        log = logs / f"{name}.log"
        # Meson names programs relative to the build folder.
        status, seconds = run_logged(test["cmd"], log, test["timeout"] * 4, env | {"SPLITVISOR_BUILD": str(folder)}, folder)
        tally.note(name, status == 0, seconds, f"status {status}, {log}", log)


def lab_tests():
    """The table of lab tests: tests/lab/tests.txt, one `name: limit_s: command` a line."""
    table = []
    for line in (CHECKOUT / "tests" / "lab" / "tests.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            name, limit, command = (part.strip() for part in line.split(":", 2))
            table.append((name, float(limit), command.split()))
    return table


def run_lab_tests(folder, tally, logs, wanted):
    table = [entry for entry in lab_tests() if not wanted or entry[0] in wanted]
    for name in set(wanted) - {entry[0] for entry in table}:
        tally.note(name, False, 0, "there is no lab test of that name in tests/lab/tests.txt")

    def run_one(entry):
        name, limit, command = entry
        log = logs / f"lab-{name}.log"
        progress(f"lab test {name} (at most {limit:.0f} s)")
        status, seconds = run_logged([CHECKOUT / command[0], *command[1:]], log, limit,
                                     os.environ | {"SPLITVISOR_BUILD": str(folder)})
        tally.note(f"lab-{name}", status == 0, seconds, f"status {status}, {log}", log)

    with ThreadPoolExecutor(LAB_TESTS_AT_ONCE) as pool:
        list(pool.map(run_one, table))


def main(argv):
    parser = argparse.ArgumentParser(prog="run-tests", description="Builds Splitvisor and runs every test.")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--unit", action="store_true", help="only the unit tests")
    part.add_argument("--lab", action="store_true", help="only the lab tests")
    parser.add_argument("--sanitize", choices=("address,undefined", "thread"), help="the unit tests in such a build")
    parser.add_argument("names", nargs="*", metavar="NAME", help="lab tests to run")
    options = parser.parse_args(argv)

    must("packages", [CHECKOUT / "scripts" / "install-deps"])
    folder = build_folder(options.sanitize)
    build(folder, options.sanitize)
    logs = folder / "test-logs"
    logs.mkdir(exist_ok=True)
    tally = Tally()
    if not options.lab and not options.names:
        run_unit_tests(folder, tally, logs)
    if not options.unit and not options.sanitize:
        run_lab_tests(folder, tally, logs, options.names)
    return tally.conclude()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

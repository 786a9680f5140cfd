"""What the lab tests that run on a Splitvisor cluster have in common: vNodes by name, verified workloads, a tally of steps."""

import json
import os
import pathlib
import subprocess
import sys
import time

from cluster import Cluster, ClusterError
from console import Console, ConsoleError
from vnodes import guest_files

RESULT = r"splitvisor-result: (\{.*\})"
CHECKER = r"vnode-checker: (\{.*\})"
ROOT_CMDLINE = "console=ttyS0 quiet panic=1 root=LABEL=splitvisor-root"
PASSWORD = "splitvisor"
# Most of it is reading symbols, which takes more than a minute in a lab host.
GDB_S = 150


class TestFailure(Exception):
    """A promise did not hold; the text says which."""


class LabCluster(Cluster):
    """A cluster on this lab host, whose vNodes boot the cloud kernel of one series."""

    def __init__(self, series, **options):
        self.out_ = pathlib.Path(os.environ["LAB_OUT"])
        super().__init__(folder=pathlib.Path(os.environ["LAB_SCRATCH"]), out=self.out_, **options)
        self.series_ = series
        kernel, initramfs = guest_files(series)
        self.add_kernel("vmlinuz", kernel)
        self.add_kernel("initrd", initramfs)

    def __exit__(self, failure, *rest):
        if failure:
            self.keep_state()
        super().__exit__(failure, *rest)

    def keep_state(self):
        """What each vNode and each thread of its VMM was doing, for whoever looks into a failure."""
        for folder in self.run_folder.iterdir():
            name = folder.name
            try:
                (self.out_ / f"{name}.stats.json").write_text(json.dumps(self.ctl("vnode", "stats", name), indent=1))
            except ClusterError as error:
                (self.out_ / f"{name}.stats.json").write_text(f"{error}\n")
            pid = self.vmm_pid(name)
            if pid is not None:
                self.keep_threads(pid, self.out_ / f"{name}.threads.log")

    def keep_threads(self, pid, path):
        """Backtraces of a VMM and its vCPUs' registers, these twice: a second look tells a loop from a halt."""
        vcpus = f"source {pathlib.Path(__file__).with_name('vcpu_state.py')}"
        steps = [vcpus, "thread apply all backtrace", "detach", "shell sleep 2", f"attach {pid}", vcpus]
        with path.open("w") as log:
            try:
                subprocess.run(["gdb", "-p", str(pid), "-batch", *(word for step in steps for word in ("-ex", step))], stdout=log,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=GDB_S, check=False)
            except subprocess.TimeoutExpired:
                log.write(f"gdb did not end within {GDB_S} s\n")

    def vmm_pid(self, name):
        """The process whose command line names the vNode's configuration; None where there is none."""
        wanted = str(self.run_folder / name).encode()
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if command[0].endswith(b"vnode-vmm") and any(word.startswith(wanted) for word in command):
                    return int(entry.name)
        return None

    def create_vnode(self, name, memory="256M", excache="25%", vcpus=2, cmdline="", volumes=(), more=()):
        volume_options = [word for volume in volumes for word in ("--volume", volume)]
        self.ctl("vnode", "create", name, "--memory", memory, "--excache", excache, "--vcpus", str(vcpus),
                 "--kernel", "vmlinuz", "--initrd", "initrd", "--cmdline", cmdline, *volume_options, *more)

    def start_vnode(self, name, timeout=90):
        """Starts it; returns its console, from the first byte on."""
        self.ctl("vnode", "start", name, timeout=timeout)
        return Console.connect(self.console_socket(name), self.out_ / f"{name}.console.log")

    def engine(self, name):
        return self.ctl("vnode", "stats", name)["engine"]

    def wait_for_state(self, name, wanted, timeout, console=None):
        deadline = time.monotonic() + timeout
        while (state := self.vnode_state(name)) != wanted:
            if time.monotonic() > deadline:
                raise TestFailure(f"{name} is {state} after {timeout:.0f} s, expected {wanted}")
            if console:
                console.receive(0.3)
            else:
                time.sleep(0.3)

    def run_checker(self, name, arguments, timeout, sample_after=None, **options):
        """A vNode that runs the checker from its initramfs and powers off; returns the checker's JSON, with the engine's
        figures when the checker had said `sample_after`: at its end the guest is gone at once."""
        self.create_vnode(name, cmdline=f"console=ttyS0 quiet splitvisor.check={arguments.replace(' ', ',')}", **options)
        console = self.start_vnode(name)
        engine = None
        if sample_after:
            console.expect(sample_after, timeout)
            engine = self.engine(name)
        check = json.loads(console.expect(CHECKER, timeout).group(1)) | {"engine": engine}
        result = json.loads(console.expect(RESULT, 30).group(1))
        self.wait_for_state(name, "stopped", 60, console)
        console.close()
        expect(result["ok"] and check["ok"] and check["mismatches"] == 0, f"{name}: the checker found mismatches: {check}")
        return check


def expect(holds, otherwise):
    if not holds:
        raise TestFailure(otherwise)


def main(name, test):
    """Runs `test(say)`; exit status 0 if it returned."""
    started = time.monotonic()

    def say(text):
        print(f"{name}: {time.monotonic() - started:.1f} s: {text}", flush=True)

    if "LAB_OUT" not in os.environ:
        print(f"{name}: this runs in a lab host; use tests/lab/run tests/lab/{name}", file=sys.stderr)
        return 2
    try:
        test(say)
    except (TestFailure, ClusterError, ConsoleError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    say("ok")
    return 0

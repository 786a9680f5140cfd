"""Ways to have one guest in the lab: on a Splitvisor cluster, or under QEMU for comparison. Both are used alike."""

import os
import pathlib
import shutil
import subprocess
import time

from cluster import Cluster
from console import Console, ConsoleError

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def guest_files(series):
    """The cloud kernel and initramfs of that series, from the cache."""
    def ask(*command):
        done = subprocess.run([CHECKOUT / "guests" / command[0], *command[1:]], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise ConsoleError(f"guests/{' '.join(command)} failed; its message is above")
        return pathlib.Path(done.stdout.strip())
    return ask("fetch-kernel", "cloud", series) / "vmlinuz", ask("build-initramfs", series)


class QemuVnode:
    """QEMU with KVM as the VMM: the lab without a part of ours."""

    def __init__(self, options, image, cmdline):
        self.options_, self.image_, self.cmdline_ = options, image, cmdline
        self.out_ = pathlib.Path(os.environ["LAB_OUT"])
        self.process_ = self.console_ = None

    def start(self):
        kernel, initramfs = guest_files(self.options_.kernel)
        socket = "/run/lab/qemu-console.sock"
        log = (self.out_ / "nested-qemu.log").open("wb")
        self.process_ = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "microvm,acpi=on", "-enable-kvm", "-cpu", "host", "-no-user-config", "-nodefaults",
             "-m", str(self.options_.memory), "-smp", str(self.options_.vcpus), "-display", "none", "-no-reboot",
             "-kernel", str(kernel), "-initrd", str(initramfs), "-append", self.cmdline_,
             "-drive", f"file={self.image_},format=raw,if=none,id=root,cache=unsafe", "-device", "virtio-blk-device,drive=root",
             "-device", "virtio-rng-device", "-device", "virtio-balloon-device,free-page-reporting=on",
             "-chardev", f"socket,id=console,path={socket},server=on,wait=off", "-serial", "chardev:console"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.console_ = Console.connect(socket, self.out_ / "console.log")
        return self.console_

    def wait_off(self, timeout):
        self.console_.wait_closed(timeout)
        self.process_.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process_ and self.process_.poll() is None:
            self.process_.kill()
            self.process_.wait()
        if self.console_:
            self.console_.close()


class SplitvisorVnode:
    """A cluster on this one host (controller, one processor, two memory, one storage component) and one vNode on it."""

    name = "debian"

    def __init__(self, options, image, cmdline):
        self.options_, self.image_, self.cmdline_ = options, pathlib.Path(image), cmdline
        self.out_ = pathlib.Path(os.environ["LAB_OUT"])
        self.cluster_ = Cluster(folder=pathlib.Path(os.environ["LAB_SCRATCH"]), out=self.out_)
        self.console_ = None

    def start(self):
        options, cluster = self.options_, self.cluster_
        kernel, initramfs = guest_files(options.kernel)
        cluster.add_kernel(f"vmlinuz-{options.kernel}", kernel)
        cluster.add_kernel(f"initrd-{options.kernel}", initramfs)
        cluster.start()
        cluster.ctl("volume", "create", "root", "--size", "2G", "--image", self.image_.stem, timeout=120)
        cluster.ctl("vnode", "create", self.name, "--memory", f"{options.memory}M", "--excache", options.excache,
                    "--vcpus", str(options.vcpus), "--kernel", f"vmlinuz-{options.kernel}",
                    "--initrd", f"initrd-{options.kernel}", "--volume", "root", "--cmdline", self.cmdline_)
        cluster.ctl("vnode", "start", self.name, timeout=60)
        self.console_ = Console.connect(cluster.console_socket(self.name), self.out_ / "console.log")
        return self.console_

    def wait_off(self, timeout):
        deadline = time.monotonic() + timeout
        while True:
            state = self.cluster_.vnode_state(self.name)
            if state == "stopped":
                return
            if state == "failed" or time.monotonic() > deadline:
                raise ConsoleError(f"the vNode is {state} {timeout:.0f} s after its power-off; last: {self.console_.pending[-400:]!r}")
            # Reading on keeps the console's log complete.
            self.console_.receive(0.5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.console_:
            self.console_.close()
        self.cluster_.stop()
        console_log = self.cluster_.run_folder / self.name / "console.log"
        if console_log.exists():
            shutil.copyfile(console_log, self.out_ / "console-kept-by-pcomponent.log")


VNODES = {"qemu": QemuVnode, "splitvisor": SplitvisorVnode}

"""A Splitvisor cluster on this host: starts its programs, waits until all are there, stops them. For the lab and natively."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
REST_PORT = 7770
CONTROL_PORT = 7771
MEMORY_PORT = 7801
STORAGE_PORT = 7901
READY_S = 60
STOP_S = 10

BINARIES = {
    "vnode-vmm": "vmm/vnode-vmm",
    "vnode-controller": "controller/vnode-controller",
    "vnodectl": "controller/vnodectl",
    "pcomponentd": "controller/pcomponentd",
    "mcomponentd": "remote-mem/mcomponentd",
    "scomponentd": "vstore/scomponentd",
}


class ClusterError(Exception):
    """The cluster or a command to it failed; the text is one line."""


class Daemon:
    """One program of the cluster, by its pid: start, stop, kill, start again. Its output is appended to its own log."""

    def __init__(self, name, command, log):
        self.name, self.log = name, log
        self.command_ = [str(word) for word in command]
        self.process_ = None

    @property
    def pid(self):
        return self.process_.pid if self.running() else None

    def running(self):
        return self.process_ is not None and self.process_.poll() is None

    def start(self):
        if self.running():
            raise ClusterError(f"{self.name} is running already; stop it first")
        with self.log.open("ab") as log:
            self.process_ = subprocess.Popen(self.command_, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        """Asks it to end, and makes it end when it does not; True if it ended as asked."""
        if not self.running():
            return True
        self.process_.terminate()
        try:
            return self.process_.wait(STOP_S) in (0, -15)
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def kill(self):
        """Without any warning, as a power failure would."""
        if self.running():
            self.process_.kill()
            self.process_.wait()


class Cluster:
    """One controller, one pComponent, one sComponent and some mComponents.

    folder: keeps their state (a real disk: in the lab, LAB_SCRATCH); volumes' images are offered from folder/storage/images.
    out:    gets their logs.
    memory_host: where the mComponents listen, an endpoint without its port: rdma:10.77.0.1, say.
    """

    def __init__(self, folder, out, build=None, memory_components=2, memory_capacity="1G", port_offset=0, memory_host="127.0.0.1"):
        self.build = pathlib.Path(build or os.environ.get("SPLITVISOR_BUILD") or CHECKOUT / "build")
        self.folder, self.out = pathlib.Path(folder), pathlib.Path(out)
        self.controller_folder = self.folder / "controller"
        self.storage_folder = self.folder / "storage"
        self.kernel_folder = self.folder / "kernels"
        # Unix socket paths are short: not below a deep folder. In the lab it outlives the cluster, for whoever looks.
        self.run_folder_is_ours_ = "LAB_OUT" not in os.environ
        self.run_folder = pathlib.Path(tempfile.mkdtemp(prefix="splitvisor-") if self.run_folder_is_ours_ else "/run/splitvisor-lab")
        self.rest_port = REST_PORT + port_offset
        self.control_port = CONTROL_PORT + port_offset
        for path in (self.controller_folder, self.storage_folder / "images", self.kernel_folder, self.run_folder, self.out):
            path.mkdir(parents=True, exist_ok=True)
        self.daemons = {}
        self.describe(memory_components, memory_capacity, port_offset, memory_host)

    def describe(self, memory_components, memory_capacity, port_offset, memory_host):
        self.add("controller", "vnode-controller", "--state", self.controller_folder,
                 "--listen", f"127.0.0.1:{self.rest_port}", "--listen-control", f"127.0.0.1:{self.control_port}")
        for index in range(1, memory_components + 1):
            self.add_component("mcomponentd", f"m{index}", "--listen", f"{memory_host}:{MEMORY_PORT + port_offset + index - 1}",
                               "--capacity", memory_capacity)
        self.add_component("scomponentd", "s1", "--listen", f"127.0.0.1:{STORAGE_PORT + port_offset}", "--dir", self.storage_folder)
        self.add_component("pcomponentd", "p1", "--run-dir", self.run_folder, "--kernels", self.kernel_folder,
                           "--vmm", self.binary("vnode-vmm", must_exist=False))

    def add(self, name, program, *arguments):
        command = [self.binary(program, must_exist=False), *arguments]
        self.daemons[name] = Daemon(name, command, self.out / f"{name}.log")

    def add_component(self, program, name, *arguments):
        self.add(name, program, "--name", name, "--controller", f"127.0.0.1:{self.control_port}",
                 "--token-file", self.controller_folder / "enrol-token", *arguments)

    @property
    def address(self):
        """What vnodectl must be told to find this cluster."""
        return ["--controller", f"http://127.0.0.1:{self.rest_port}", "--token-file", str(self.controller_folder / "admin-token")]

    def binary(self, program, must_exist=True):
        path = self.build / BINARIES[program]
        if must_exist and not os.access(path, os.X_OK):
            raise ClusterError(f"{path} is not there; build it (ninja -C {self.build} {BINARIES[program]}) or set SPLITVISOR_BUILD")
        return path

    def add_kernel(self, name, path):
        """Offers a kernel or initramfs file to vNodes under a name."""
        shutil.copyfile(path, self.kernel_folder / name)

    def start(self):
        for program in BINARIES:
            self.binary(program)
        self.daemons["controller"].start()
        self.wait_for(lambda: all((self.controller_folder / token).exists() for token in ("admin-token", "enrol-token")),
                      "the controller's tokens")
        for name, daemon in self.daemons.items():
            if name != "controller":
                daemon.start()
        expected = {name for name in self.daemons if name != "controller"}
        self.wait_for(lambda: expected <= self.components_up(), "the components " + ", ".join(sorted(expected)))

    def stop(self):
        """Components first, so that none of them waits for a controller; then the controller."""
        for name, daemon in reversed(self.daemons.items()):
            if not daemon.stop():
                print(f"cluster: {name} did not end by itself", flush=True)
        if self.run_folder_is_ours_:
            shutil.rmtree(self.run_folder, ignore_errors=True)

    def wait_for(self, condition, what, timeout=READY_S):
        deadline = time.monotonic() + timeout
        while not condition():
            for daemon in self.daemons.values():
                if daemon.process_ is not None and not daemon.running():
                    raise ClusterError(f"{daemon.name} ended with status {daemon.process_.returncode}: {last_line(daemon.log)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} did not appear within {timeout} s; logs are in {self.out}")
            time.sleep(0.1)

    def ctl(self, *arguments, timeout=30):
        """Runs vnodectl; returns its JSON answer, or None where it says nothing."""
        command = [str(self.binary("vnodectl")), *self.address, "--json", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"vnodectl {' '.join(arguments)} took more than {timeout} s") from None
        if done.returncode != 0:
            raise ClusterError(f"vnodectl {' '.join(arguments)}: status {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def components_up(self):
        try:
            answer = self.ctl("component", "list")
        except ClusterError:
            return set()
        rows = answer if isinstance(answer, list) else (answer or {}).get("components", [])
        return {row["name"] for row in rows if row.get("connected", row.get("state") in (None, "up", "ready", "connected"))}

    def vnode_state(self, name):
        return self.ctl("vnode", "show", name)["state"]

    def console_socket(self, vnode):
        return self.run_folder / vnode / "console.sock"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


def last_line(path):
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it said nothing"

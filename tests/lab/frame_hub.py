"""The wire between lab hosts: passes Ethernet frames among QEMU processes over socket pairs."""

import selectors
import socket
import threading

# The largest frame QEMU hands over, with room for offloads.
FRAME_BYTES = 128 * 1024
BUFFER_BYTES = 4 * 1024 * 1024


class FrameHub:
    """One socket pair a host: QEMU's `dgram` netdev holds one end, a thread of ours forwards between the other ends.

    A frame for a known host goes to it alone, a broadcast to all others. A host that does not read loses frames, as on
    any wire, and never holds up the others; the network outlives any of its hosts.
    """

    def __init__(self, hosts):
        self.ours_, self.theirs_ = {}, {}
        for index in range(1, hosts + 1):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
                end.setblocking(False)
            self.ours_[index], self.theirs_[index] = ours, theirs

    @staticmethod
    def mac(index):
        return f"52:54:00:4d:00:{index:02x}"

    def host_fd(self, index):
        return self.theirs_[index].fileno()

    def start(self):
        """Call once, after every QEMU process has its end."""
        threading.Thread(target=self.forward, daemon=True).start()

    def forward(self):
        selector = selectors.DefaultSelector()
        for index, end in self.ours_.items():
            selector.register(end, selectors.EVENT_READ, index)
        prefix = bytes.fromhex("5254004d00")
        while True:
            for ready, _ in selector.select():
                try:
                    frame = ready.fileobj.recv(FRAME_BYTES)
                except OSError:
                    continue
                to = [frame[5]] if frame[:5] == prefix else [index for index in self.ours_ if index != ready.data]
                for index in to:
                    self.send(index, frame)

    def send(self, index, frame):
        end = self.ours_.get(index)
        try:
            if end:
                end.send(frame)
        except OSError:
            pass

"""A console to talk to: send, expect, log in, run commands. Shared by the tests of this folder."""

import os
import pathlib
import re
import select
import socket
import time

# What terminals are told besides text: colours, cursor moves, bracketed paste, titles.
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[=>()][0-9A-B]?)")
# Never more than this is kept unmatched.
KEPT_CHARACTERS = 1 << 20


class ConsoleError(Exception):
    """What was expected did not come; the text says what was awaited and what came last."""


class Console:
    """A byte stream with a guest at its end. All it says is also appended to a log file.

    Not thread-safe. Every wait has a time limit in seconds.
    """

    def __init__(self, stream, log_path):
        self.fd_ = stream.fileno()
        self.stream_ = stream  # kept so that it stays open
        os.set_blocking(self.fd_, False)
        self.log_ = pathlib.Path(log_path).open("ab", buffering=0)
        self.text_ = ""
        self.partial_ = b""
        self.closed_ = False

    @classmethod
    def connect(cls, path, log_path, timeout=20.0):
        """Connects to a Unix socket, which may not exist yet."""
        deadline = time.monotonic() + timeout
        while True:
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                stream.connect(str(path))
                return cls(stream, log_path)
            except OSError as error:
                stream.close()
                if time.monotonic() > deadline:
                    raise ConsoleError(f"cannot connect to the console {path} within {timeout:.0f} s: {error}") from None
                time.sleep(0.1)

    def close(self):
        self.stream_.close()
        self.log_.close()

    @property
    def pending(self):
        """What came and was not matched yet."""
        return self.text_

    def send(self, text):
        data = text.encode()
        deadline = time.monotonic() + 10
        while data:
            _, writable, _ = select.select([], [self.fd_], [], max(0.0, deadline - time.monotonic()))
            if not writable:
                raise ConsoleError("the console took no input for 10 s")
            try:
                data = data[os.write(self.fd_, data):]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ConsoleError(f"the console went away while '{text.strip()}' was sent: {error}") from None

    def send_line(self, line=""):
        self.send(line + "\r")

    def expect(self, pattern, timeout):
        """Waits for a regular expression; consumes all up to its end and returns the match.

        `before` of the match object's string is match.string[:match.start()].
        """
        deadline = time.monotonic() + timeout
        expression = re.compile(pattern, re.MULTILINE)
        while True:
            if match := expression.search(self.text_):
                self.text_ = self.text_[match.end():]
                return match
            left = deadline - time.monotonic()
            if left <= 0 or self.closed_:
                reason = "the console was closed" if self.closed_ else f"it did not come within {timeout:.0f} s"
                raise ConsoleError(f"expected {pattern!r}, but {reason}; last: {self.text_[-400:]!r}")
            self.receive(left)

    def wait_closed(self, timeout):
        """Waits until the other end is gone."""
        deadline = time.monotonic() + timeout
        while not self.closed_:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ConsoleError(f"the console is still open after {timeout:.0f} s; last: {self.text_[-400:]!r}")
            self.receive(left)

    def receive(self, timeout):
        readable, _, _ = select.select([self.fd_], [], [], timeout)
        if not readable:
            return
        try:
            data = os.read(self.fd_, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed_ = True
            return
        self.log_.write(data)
        self.take(data)

    def take(self, data):
        # An escape sequence may be cut in two by the stream: keep a started one for the next piece.
        data = self.partial_ + data
        start = data.rfind(b"\x1b", max(0, len(data) - 32))
        whole = start < 0 or ESCAPES.match(data[start:].decode(errors="replace"))
        self.partial_ = b"" if whole else data[start:]
        text = (data if whole else data[:start]).decode(errors="replace")
        self.text_ = (self.text_ + ESCAPES.sub("", text).replace("\r", ""))[-KEPT_CHARACTERS:]

    def log_in(self, user, password, timeout):
        """From the login prompt to a quiet shell."""
        self.expect(r"login: $", timeout)
        self.send_line(user)
        self.expect(r"Password: $", timeout)
        self.send_line(password)
        self.expect(r"[#$] $", timeout)
        # No echo, no prompt: what comes back is what the commands say.
        self.send_line("stty -echo; PS1=; PS2=; TERM=dumb")
        self.run("true", timeout)

    def run(self, command, timeout):
        """Runs a shell command after log_in; returns (status, output)."""
        # The quotes keep an echo of the command from looking like its end.
        self.send_line(f"echo @'@begin'; {command}; echo @'@end' $?")
        self.expect(r"@@begin\n", timeout)
        end = self.expect(r"@@end (\d+)\n", timeout)
        return int(end.group(1)), end.string[:end.start()].strip()

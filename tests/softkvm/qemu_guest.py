"""A machine that a test talks with: its console, and QEMU's monitor."""
import os
import select
import socket
import subprocess
import time

from harness import Fail, environment


class Guest:
    """A machine with its first serial port on its standard streams. Ends with `with`."""

    def __init__(self, command, log):
        self.log, self.text = log, b""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment())

    def __enter__(self):
        return self

    def __exit__(self, *what):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def more(self, seconds, what):
        """Reads on the console while waiting for what."""
        if seconds <= 0 or not select.select([self.process.stdout], [], [], seconds)[0]:
            raise Fail(f"{what!r} did not come; there is {self.text[-200:]!r}")
        chunk = os.read(self.process.stdout.fileno(), 65536)
        if not chunk:
            raise Fail(f"the machine ended before {what!r}")
        self.log.write(chunk)
        self.text += chunk

    def expect(self, what, seconds=60):
        """Reads the console up to what; returns what stood before."""
        end = time.monotonic() + seconds
        while what not in self.text:
            self.more(end - time.monotonic(), what)
        before, self.text = self.text.split(what, 1)
        return before

    def drain(self, seconds):
        """Reads the console until the machine ends; returns what stood there."""
        end = time.monotonic() + seconds
        while select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                return self.text
            self.log.write(chunk)
            self.text += chunk
        raise Fail(f"the machine did not end within {seconds} s")

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


class Qemu(Guest):
    """folder: for its monitor's socket."""

    def __init__(self, command, folder, name, log):
        self.monitor = os.path.join(folder, name)
        super().__init__([*command, "-serial", "stdio", "-monitor", f"unix:{self.monitor},server=on,wait=off"], log)

    def command(self, line, seconds=60):
        """One of the monitor's; returns its answer."""
        end = time.monotonic() + seconds
        with socket.socket(socket.AF_UNIX) as s:
            while True:
                try:
                    s.connect(self.monitor)
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise Fail("the monitor does not listen") from None
                    time.sleep(0.05)
            s.settimeout(seconds)
            self._prompt(s)
            s.sendall(line.encode() + b"\n")
            return self._prompt(s)

    @staticmethod
    def _prompt(s):
        got = b""
        while not got.endswith(b"(qemu) "):
            chunk = s.recv(4096)
            if not chunk:
                raise Fail("the monitor hung up")
            got += chunk
        return got.decode(errors="replace")

    def wait_for(self, line, word, seconds=60):
        """Until the monitor's answer has the word."""
        end = time.monotonic() + seconds
        while word not in self.command(line):
            if time.monotonic() > end:
                raise Fail(f"{line}: never {word}")
            time.sleep(0.1)

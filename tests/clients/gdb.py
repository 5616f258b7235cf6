"""A client of GDB's remote protocol, as far as a debugger of a whole machine needs it.
GDB manual, appendix E."""
import os
import socket
import struct
import time

from harness import Fail

RSP, RDI, RIP = 7, 5, 16     # registers of x86-64's "g" packet, 8 bytes each


class Gdb:
    def __init__(self, path, seconds=60):
        self.socket, self.got = socket.socket(socket.AF_UNIX), b""
        self.socket.settimeout(seconds)
        self._connect(path, time.monotonic() + seconds)
        # Without a target description QEMU's "g" has 32-bit registers.
        self.command("qSupported:xmlRegisters=i386")
        self.command("qXfer:features:read:target.xml:0,ffb")
        self.command("?")

    def _connect(self, path, end):
        while not os.path.exists(path):
            if time.monotonic() > end:
                raise Fail("no gdbstub")
            time.sleep(0.05)
        self.socket.connect(path)

    def close(self):
        self.socket.close()

    def send(self, text):
        data = text.encode()
        self.socket.sendall(b"$%s#%02x" % (data, sum(data) & 255))

    def receive(self):
        while True:
            start = self.got.find(b"$")
            end = self.got.find(b"#", start)
            if 0 <= start < end and len(self.got) >= end + 3:
                break
            chunk = self.socket.recv(65536)
            if not chunk:
                raise Fail("the gdbstub hung up")
            self.got += chunk
        packet, self.got = self.got[start + 1:end], self.got[end + 3:]
        self.socket.sendall(b"+")
        return packet.decode("latin-1")

    def command(self, text):
        """Its answer; QEMU 7.2 also says, at some time, that the machine has stopped for the connection."""
        self.send(text)
        while (answer := self.receive()).startswith("T02"):
            pass
        return answer

    def done(self, text):
        answer = self.command(text)
        if answer != "OK":
            raise Fail(f"gdb {text}: {answer}")

    def register(self, number):
        return struct.unpack_from("<Q", self.bytes("g"), number * 8)[0]

    def bytes(self, text):
        answer = self.command(text)
        try:
            return bytes.fromhex(answer[:16 * 24])
        except ValueError:
            raise Fail(f"gdb {text}: {answer}") from None

    def memory(self, address, size):
        return self.bytes(f"m{address:x},{size:x}")

    def stop(self, expected="T05"):
        """Waits for the machine's stop; returns all that is said of it."""
        said = self.receive()
        if not said.startswith(expected):
            raise Fail(f"gdb: {said}, not {expected}")
        return said

    def go(self):
        self.send("c")

    def interrupt(self):
        self.socket.sendall(b"\x03")
        self.stop("T02")

    def step(self):
        """One instruction; returns where the CPU is then."""
        self.send("s")
        self.stop()
        return self.register(RIP)

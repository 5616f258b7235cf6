"""A machine with a screen: pictures of it, the text on it, keys for it."""
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib

from harness import Fail, environment

VGA_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"
KEYS = {"Enter": 0xFF0D, "Escape": 0xFF1B, "Up": 0xFF52, "Down": 0xFF54, **{f"F{n}": 0xFFBD + n for n in range(1, 13)}}
CHANGED_ROWS_MAX = 0.1      # a release of the guest may word a line anew


class Picture:
    """A PNG of true colour, 8 bits a sample, not interlaced."""

    def __init__(self, png):
        if not png.startswith(b"\x89PNG\r\n\x1a\n") or not png.endswith(b"IEND\xaeB`\x82"):
            raise Fail("the screenshot is no complete PNG")
        chunks = dict(self.chunks(png))
        self.width, self.height, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
        if kind != [8, 2, 0, 0, 0]:
            raise Fail(f"the screenshot is of kind {kind}")
        self.rows = self.unfilter(zlib.decompress(chunks[b"IDAT"]))

    @staticmethod
    def chunks(png):
        at = 8
        while at < len(png):
            size, kind = struct.unpack_from(">I4s", png, at)
            data = png[at + 8:at + 8 + size]
            if zlib.crc32(kind + data) != struct.unpack_from(">I", png, at + 8 + size)[0]:
                raise Fail(f"the screenshot's {kind} has a wrong checksum")
            yield kind, data
            at += 12 + size

    def unfilter(self, data):
        """Of PNG's filters our writer takes "up"."""
        size, above, rows = 3 * self.width, bytes(3 * self.width), []
        for y in range(self.height):
            kind, row = data[y * (size + 1)], data[y * (size + 1) + 1:(y + 1) * (size + 1)]
            if kind != 2:
                raise Fail(f"row {y} has filter {kind}")
            if row.count(0) != size:
                above = bytes((a + b) & 255 for a, b in zip(row, above))
            rows.append(above)
        return rows

    def cell(self, x, y, width):
        """A character's eight columns and sixteen rows: bits where it is not its background's colour."""
        at = 3 * width * x
        lines = [row[at:at + 24] for row in self.rows[16 * y:16 * y + 16]]
        colors = {line[i:i + 3] for line in lines for i in range(0, 24, 3)}
        for paper in colors if len(colors) < 3 else ():
            yield bytes(sum((line[3 * i:3 * i + 3] != paper) << 7 - i for i in range(8)) for line in lines)

    def text(self):
        """What stands there in the VGA BIOS's font; unknown shapes are ?."""
        font, width = vga_font(), 9 if self.width % 9 == 0 else 8
        return "\n".join("".join(next((font[c] for c in self.cell(x, y, width) if c in font), "?")
                                 for x in range(self.width // width)).rstrip() for y in range(self.height // 16))

    def checksums(self):
        """Of each 16 lines."""
        return [f"{zlib.crc32(b''.join(self.rows[y:y + 16])):08x}" for y in range(0, self.height, 16)]


def vga_font():
    """{shape: character} of printable ASCII, from the ROM: its second character is the well-known face."""
    with open(VGA_BIOS, "rb") as f:
        rom = f.read()
    start = rom.find(bytes(16) + bytes.fromhex("00007e81a58181bd9981817e00000000"))
    if start < 0:
        raise Fail("the VGA BIOS has no font that we know")
    # A blank cell of one colour gives all zeroes or all ones.
    shapes = {rom[start + 16 * c:start + 16 * c + 16]: chr(c) for c in range(0x7E, 0x1F, -1)}
    return {**shapes, b"\xff" * 16: " "}


class Screen:
    """A qumra whose screen is looked at. Ends with `with`; its serial port goes to the log."""

    def __init__(self, command, folder, log):
        self.file = os.path.join(folder, "screen.png")
        self.log, self.shots, self.lines = log, 0, []
        self.process = subprocess.Popen([*command, "--screenshot", self.file], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=subprocess.PIPE, env=environment())
        self.taken = threading.Condition()
        self.reader = threading.Thread(target=self.read_lines)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()

    def read_lines(self):
        for line in self.process.stderr:
            self.log.write(line)
            with self.taken:
                self.lines.append(line.decode())
                self.shots += b"screenshot: " in line
                self.taken.notify_all()
        with self.taken:
            self.lines.append(None)
            self.taken.notify_all()

    def said(self, word, seconds=30):
        """Waits for a line on standard error."""
        def found():
            return next((line for line in self.lines if line is None or word in line), False)
        with self.taken:
            if not self.taken.wait_for(lambda: found() is not False, seconds) or found() is None:
                raise Fail(f"qumra never said {word!r}")
            return found()

    def picture(self):
        """The screen now."""
        self.said("accelerator")
        before = self.shots
        self.process.send_signal(signal.SIGUSR1)
        with self.taken:
            self.taken.wait_for(lambda: self.shots > before or self.lines[-1] is None, 60)
            if self.shots == before:
                raise Fail("there was no screenshot")
        return self.last()

    def last(self):
        """The screen as the file has it."""
        with open(self.file, "rb") as f:
            return Picture(f.read())

    def wait_for(self, good, what, seconds):
        """Until a picture is good."""
        end = time.monotonic() + seconds
        while True:
            picture = self.picture()
            if good(picture):
                return picture
            if time.monotonic() > end:
                raise Fail(f"{what} never showed on the screen; there is\n{picture.text() if picture.width == 720 else self.file}")
            time.sleep(0.5)     # between two looks

    def wait_for_text(self, pattern, seconds=60):
        picture = self.wait_for(lambda p: p.height == 400 and re.search(pattern, p.text()), pattern, seconds)
        return picture.text()

    def wait_for_rows(self, path, seconds):
        """Until the screen is the one of a list (see compare())."""
        return self.wait_for(lambda p: compare(p, path)[0], os.path.basename(path), seconds)


def compare(picture, path):
    """A list of checksums: a first line WIDTH HEIGHT, then of each 16 lines; a row with a remark must be the same."""
    with open(path, encoding="utf-8") as f:
        size, *rows = [line.split(None, 1) for line in f if not line.startswith("#")]
    now = picture.checksums()
    if [picture.width, picture.height] != [int(n) for n in size] or len(now) != len(rows):
        return False, f"{picture.width} x {picture.height}"
    changed = [y for y, (row, new) in enumerate(zip(rows, now)) if row[0] != new]
    named = [rows[y][1].strip() for y in changed if len(rows[y]) > 1]
    return not named and len(changed) <= CHANGED_ROWS_MAX * len(rows), f"rows {changed}, {named}"


class Viewer:
    """A VNC viewer on a Unix socket (RFC 6143) that only types and points."""

    def __init__(self, path, seconds=30):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)
        self.socket.connect(path)
        self.expect(b"RFB 003.008\n")
        self.socket.sendall(b"RFB 003.008\n")
        count = self.read(1)[0]
        if 1 not in self.read(count):
            raise Fail("VNC wants a password")
        self.socket.sendall(b"\x01")
        self.expect(bytes(4))
        self.socket.sendall(b"\x01")
        self.width, self.height, _, name = struct.unpack(">HH16sI", self.read(24))
        self.read(name)

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.socket.close()

    def read(self, n):
        data = b""
        while len(data) < n:
            chunk = self.socket.recv(n - len(data))
            if not chunk:
                raise Fail("the VNC server hung up")
            data += chunk
        return data

    def expect(self, data):
        got = self.read(len(data))
        if got != data:
            raise Fail(f"VNC: {got!r} in place of {data!r}")

    def type(self, *keys):
        """Names as in KEYS, or characters."""
        for key in keys:
            for down in (1, 0):
                self.socket.sendall(struct.pack(">BBHI", 4, down, 0, KEYS.get(key) or ord(key)))

    def point(self, x, y, buttons=0):
        self.socket.sendall(struct.pack(">BBHH", 5, buttons, x, y))

"""The host's side of the disks of tests/virtio/more-disks: each way to a file, and what the file holds afterwards.

disks.py COMMAND...: runs it where there is no io_uring."""
import ctypes
import hashlib
import os
import random
import struct
import subprocess
import sys
import tempfile

FULL = 8 << 20
MIB = 1 << 20
# How a disk is opened; what a guest writes stays in all but the first.
WAYS = ("snapshot", "cache=none", "cache=directsync", "cache=unsafe", "cache=writethrough", "aio=threads")
IO_URING_SETUP = 425


def without_io_uring():
    """A filter for system calls (seccomp(2)): that one is unknown."""
    load, jump_equal, ret = 0x20, 0x15, 0x06
    program = b"".join(struct.pack("HBBI", *row) for row in (
        (load, 0, 0, 0), (jump_equal, 0, 1, IO_URING_SETUP), (ret, 0, 0, 0x00050000 | 38), (ret, 0, 0, 0x7FFF0000)))
    code = ctypes.create_string_buffer(program)

    class Filter(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_void_p)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(code)))):
        sys.exit(f"disks.py: prctl: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    without_io_uring()
    os.execvp(sys.argv[1], sys.argv[1:])

from harness import ROOT, Fail  # noqa: E402


def takes_direct(folder):
    """Has its file system O_DIRECT?"""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as f:
            os.close(os.open(f.name, os.O_RDWR | os.O_DIRECT))
        return True
    except OSError:
        return False


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Disks:
    """Disks more for a machine. ring: may it have an io_uring?"""
    name, forward, words, remark, checks, ring = "disks", "", "", "", len(WAYS), True

    def __init__(self, kit, folder):
        self.folder = folder
        self.full = random.Random(15).randbytes(FULL)
        places = [p for p in (folder, "/var/tmp", os.path.join(ROOT, "build")) if takes_direct(p)]
        if not places:
            raise Fail("no folder has O_DIRECT")
        self.kept = tempfile.TemporaryDirectory(prefix="qumra-disks-", dir=places[0])
        self.images = self.kept.name
        self.paths = []
        for i, _ in enumerate(WAYS):
            self.paths.append(f"{self.images}/image{i}")
            with open(self.paths[-1], "wb") as f:
                f.write(self.full)
                os.fsync(f.fileno())
        self.room = [os.stat(path).st_blocks for path in self.paths]

    def files(self):
        program = f"{self.folder}/zeroes"
        subprocess.run(["cc", "-static", "-O1", "-o", program, os.path.join(os.path.dirname(__file__), "zeroes.c")], check=True)
        for name, data in (("full.sha256", sha256(self.full).encode() + b"\n"), ("last", self.full[7 * MIB:])):
            with open(f"{self.folder}/{name}", "wb") as f:
                f.write(data)
        return [f"{name}={self.folder}/{name}" for name in ("zeroes", "full.sha256", "last")]

    def options(self):
        return [w for path, way in zip(self.paths, WAYS) for w in ("--disk", f"{path},format=raw,{way}")]

    def command(self, command, kernel):
        if self.ring:
            return command
        wrapped = [sys.executable, os.path.abspath(__file__), *command]
        refused = subprocess.run([*wrapped[:wrapped.index("--kernel") + 2], "--disk", f"{self.paths[0]},format=raw,aio=io_uring"],
                                 capture_output=True, text=True, timeout=60, check=False)
        if refused.returncode != 1 or "this host has no io_uring: Function not implemented" not in refused.stderr:
            raise Fail(f"aio=io_uring without one: status {refused.returncode}, {refused.stderr[-200:]!r}")
        return wrapped

    def meet(self, guest):
        """Every disk has a ring of its own but those that are told to have threads."""
        found = subprocess.run(["ls", "-l", f"/proc/{guest.process.pid}/fd"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True, check=False)    # descriptors that are gone meanwhile are its failure
        rings = found.stdout.count("anon_inode:[io_uring]")
        threads = sum("aio=threads" in way for way in WAYS)
        if rings != (2 + len(WAYS) - threads if self.ring else 0):
            raise Fail(f"{rings} rings for {2 + len(WAYS)} disks, {threads} of them with threads")

    def judge(self, _, text):
        for path, way, before in zip(self.paths, WAYS, self.room):
            self.judge_image(path, way, before, text)
        self.kept.cleanup()

    def judge_image(self, path, way, before, text):
        with open(path, "rb") as f:
            data = f.read()
            os.fsync(f.fileno())
        room = (before - os.stat(path).st_blocks) * 512
        if way == "snapshot":
            if data != self.full or room:
                raise Fail("a snapshot's image was written to")
            return
        odd = 4099 * 512
        found = {
            "before": data[:MIB] == self.full[:MIB], "first": sha256(data[MIB:2 * MIB]) in text,
            "odd": sha256(data[odd:odd + 2001 * 512]) in text,
            "between": data[2 * MIB:odd] == self.full[2 * MIB:odd],
            "after": data[odd + 2001 * 512:4 * MIB] == self.full[odd + 2001 * 512:4 * MIB],
            "zeroes": not data[4 * MIB:7 * MIB].strip(b"\0"), "last": data[7 * MIB:] == self.full[7 * MIB:],
            "size": len(data) == FULL}
        bad = [name for name, ok in found.items() if not ok]
        if bad:
            raise Fail(f"{way}: the image is wrong: {bad}")
        # What was given back, and no more: zeroes to keep have their room.
        if room != 2 * MIB:
            raise Fail(f"{way}: {room >> 10} KiB of the image's room were given back, not 2048")


class Threads(Disks):
    """The same where the host has no io_uring: threads do it all."""
    ring = False

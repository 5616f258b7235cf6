"""The machine is killed at random moments while its guest writes with fsync, again and again on the same disk. Each time
what the guest had reported as written must be there, and disk and file system sound. The next machine that opens a qcow2 image
finds by its dirty bit that it was not closed and frees what nothing refers to: until then clusters may be lost, and no more than
that.

QUMRA_KILLS says how often for each kind of disk; 6 without it. QUMRA_SEED begins another row of moments.
"""
import fcntl
import json
import os
import random
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time

from harness import Fail, Test, need_qumra, script_output

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL = "linux-image-cloud-amd64"
MODULES = ("virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_blk", "virtio_console")
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"     # an ordinary user's lacks them
DISK_MIB = 64

# As writer.c has them.
SECTOR, BLOCK_SECTORS, MAGIC = 512, 16, 0x6d757221
OVER, LOG, NEW = range(3)
REPORT = re.compile(r"([OANU])((?: \d+)+)$")
# Of e2fsck's: the journal, files that were open when they went, and what is free then.
MOUNT = re.compile(r": (recovering journal$|(Clearing|Truncating) orphaned inode |Setting free (inodes|blocks) count to |clean, )")
# The guest begins to remove a file when so many younger ones are reported; a report may be lost with the machine.
KEPT = 6


def run(*command, fine=(0,)):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env={**os.environ, "PATH": PATH})
    if r.returncode not in fine:
        raise Fail(f"{' '.join(command)}: status {r.returncode}: {r.stdout.decode(errors='replace').strip()[-300:]}")
    return r.stdout


class Diary:
    """What the guest reported, over all machines."""

    def __init__(self):
        self.over, self.log, self.new, self.gone, self.reports, self.torn = {}, {}, {}, set(), 0, 0

    def line(self, text):
        found = REPORT.match(text)
        if not found:
            raise Fail(f"the port said {text!r}")
        numbers = tuple(map(int, found[2].split()))
        self.reports += 1
        if found[1] == "O":
            self.over[numbers[:2]] = numbers[2]
        elif found[1] == "A":
            self.log[numbers[0]] = numbers[1]
        elif found[1] == "N":
            self.new[numbers[:2]] = numbers[2]
        else:
            self.gone.add(numbers)
            self.new.pop(numbers, None)

    def must_be(self):
        """The files new-… that nothing may have removed."""
        for writer in {w for w, _ in self.new}:
            versions = sorted(v for w, v in self.new if w == writer)
            yield from ((writer, v) for v in versions[-KEPT:])


class Files:
    """The file system's files, read on the host, against the diary."""

    def __init__(self, folder, diary):
        self.folder, self.diary = folder, diary

    def sectors(self, name, kind, writer):
        """(place, version, index) of each sector; None for one of zeroes."""
        with open(os.path.join(self.folder, name), "rb") as f:
            data = f.read()
        for at in range(0, len(data) // SECTOR * SECTOR, SECTOR):
            sector = data[at:at + SECTOR]
            magic, k, w, place, version, i, inverse, mix = struct.unpack("<8I", sector[:32])
            if not any(sector):
                yield None
            elif sector[:32] * 16 != sector or (magic, k, w) != (MAGIC, kind, writer) or inverse != version ^ 0xffffffff \
                    or mix != place + 7 * i:
                raise Fail(f"{name}: the sector at {at} is none of its writer's: {sector[:32].hex()}")
            else:
                yield place, version, i

    def check_over(self):
        for writer in {w for w, _ in self.diary.over}:
            there = list(self.sectors(f"over-{writer}", OVER, writer))
            for (_, block), version in ((k, v) for k, v in self.diary.over.items() if k[0] == writer):
                for i in range(BLOCK_SECTORS):
                    at = block * BLOCK_SECTORS + i
                    got = there[at] if at < len(there) else None
                    if not got or (got[0], got[2]) != (block, i) or got[1] < version:
                        raise Fail(f"over-{writer}: sector {i} of block {block} is {got}, version {version} was written")

    def check_log(self):
        for writer, records in self.diary.log.items():
            there = list(self.sectors(f"log-{writer}", LOG, writer))
            bad = [f"{i} is {there[i:i + 1]}" for i in range(records) if there[i:i + 1] != [(i, i, 0)]]
            self.diary.torn += there[records:] == [None]     # see log_trim() in writer.c
            if bad:
                raise Fail(f"log-{writer}: of {records} records that were written, {len(there)} there, {', '.join(bad[:4])}")

    def check_new(self):
        for writer, version in self.diary.must_be():
            name, n = f"new-{writer}-{version}", self.diary.new[writer, version]
            if not os.path.exists(os.path.join(self.folder, name)):
                raise Fail(f"{name} is not there")
            if list(self.sectors(name, NEW, writer)) != [(n, version, i) for i in range(n)]:
                raise Fail(f"{name} holds something else")
        for writer, version in self.diary.gone:
            if os.path.exists(os.path.join(self.folder, f"new-{writer}-{version}")):
                raise Fail(f"new-{writer}-{version} was removed and is there")

    def check(self):
        self.check_over()
        self.check_log()
        self.check_new()


class Disk:
    """An image with a file system, its format and how it is cached."""

    def __init__(self, folder, form, cache):
        self.folder, self.form, self.cache, self.leaks = folder, form, cache, 0
        self.image, self.copy = os.path.join(folder, "disk." + form), os.path.join(folder, "copy.raw")
        with open(self.copy, "wb") as f:
            f.truncate(DISK_MIB << 20)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=4", self.copy)
        run("qemu-img", "convert", "-f", "raw", "-O", form, self.copy, self.image)

    def option(self):
        return f"{self.image},format={self.form},cache={self.cache}"

    def wait_for_last(self):
        """The kernel may still have requests of a process that is gone, and its locks as long."""
        with open(self.image, "r+b") as f:
            fcntl.lockf(f, fcntl.LOCK_EX, 200, 100)     # the bytes that QEMU and we lock

    def check_image(self):
        """A machine that ends in the midst of an allocation may leave clusters that nobody has. Returns how many."""
        said = {}
        if self.form == "qcow2":
            out = run("qemu-img", "check", "--output=json", "-f", self.form, self.image, fine=(0, 2, 3)).decode()
            said = json.loads(out[out.index("{\n"):])     # messages stand before it
            if said.get("corruptions") or said["check-errors"]:
                raise Fail(f"qemu-img check: {said}")
        self.leaks = max(self.leaks, said.get("leaks", 0))
        return said.get("leaks", 0)

    def check(self, diary):
        """On a copy, so that the next machine finds what this one left: its kernel replays the journal itself."""
        self.wait_for_last()
        self.check_image()
        run("qemu-img", "convert", "-f", self.form, "-O", "raw", self.image, self.copy)
        # What a kernel does at the next mount, and not a repair more.
        said = run("e2fsck", "-p", self.copy, fine=(0, 1)).decode().splitlines()
        repairs = [line for line in said if not MOUNT.search(line)]
        if repairs:
            raise Fail(f"e2fsck -p: {repairs[:3]}")
        run("e2fsck", "-fn", self.copy)
        files = os.path.join(self.folder, "files")
        os.mkdir(files)
        run("debugfs", "-R", f"rdump / {files}", self.copy)
        Files(files, diary).check()
        shutil.rmtree(files)


class Port:
    """The guest's reports, as they come."""

    def __init__(self, path, diary):
        self.socket, self.diary, self.rest = socket.socket(socket.AF_UNIX), diary, b""
        self.socket.connect(path)

    def read(self, seconds):
        """What comes within the time; false at the end."""
        if not select.select([self.socket], [], [], max(0, seconds))[0]:
            return True
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            self.diary.line(line.decode())
        return bool(piece)


class Killed:
    """One disk and the machines that use it, one after the other."""

    def __init__(self, kit, build, disk, log, files):
        self.kit, self.build, self.disk, self.log = kit, build, disk, log
        self.kernel, self.initrd = files
        self.diary = Diary()

    def command(self, port):
        return [*self.build.run, "--kernel", self.kernel, "--initrd", self.initrd, "--memory", "256M", "--append",
                "console=ttyS0 quiet panic=-1", "--disk", self.disk.option(), "--device", "console=none", "--device",
                f"console=unix:{port},name=org.qumra.test"]

    def until_killed(self, guest, port, reports, more):
        """Reads on for so many reports and so many seconds more; then the machine is gone at once."""
        limit, wanted = time.monotonic() + 120 * self.build.slow, self.diary.reports + reports
        while self.diary.reports < wanted:
            if time.monotonic() > limit or not port.read(1):
                raise Fail(f"the guest stopped writing: {guest.text[-200:]!r}")
        end = time.monotonic() + more
        while time.monotonic() < end:
            port.read(end - time.monotonic())
        if guest.process.poll() is not None:
            raise Fail(f"the machine ended by itself: {guest.process.returncode}")
        guest.process.kill()
        while port.read(10):
            pass

    def open_once(self):
        """No kernel: the machine opens the disk, finds nothing to start, and is told to end."""
        guest = self.kit.Guest([*self.build.run, "--firmware", "bios,log", "--memory", "64M", "--disk", self.disk.option()],
                               60 * self.build.slow)
        try:
            guest.until("No bootable device")
            guest.process.terminate()
        finally:
            guest.end(self.log)
        if self.disk.check_image():
            raise Fail("an open has not freed what was lost")

    def once(self, i, choice):
        path = os.path.join(self.disk.folder, "port")
        guest = self.kit.Guest(self.command(path), 200 * self.build.slow)
        try:
            guest.until("READY port")
            port = Port(path, self.diary)
            port.socket.sendall(b"%d %d\n" % (choice.getrandbits(32), (i + 1) * 1000000))
            self.until_killed(guest, port, choice.randrange(1, 120), choice.random() * 0.03)
            port.socket.close()
        finally:
            guest.process.kill()
            guest.end(self.log)
        if "CHECK BAD" in guest.text:
            raise Fail(guest.text[-300:])
        self.disk.check(self.diary)


def prepare(kit, folder):
    with kit.lock:
        kernel = script_output("scripts/fetch-kernel", KERNEL)
        modules = script_output("scripts/fetch-modules", KERNEL, *MODULES)
        busybox = script_output("scripts/fetch-busybox", "amd64")
        mine = os.path.join(folder, "modules")
        shutil.copytree(modules, mine)
    writer, initrd = os.path.join(folder, "writer"), os.path.join(folder, "initrd.cpio")
    script_output("cc", "-static", "-O2", "-Wall", "-o", writer, os.path.join(HERE, "writer.c"))
    script_output("scripts/make-initramfs", initrd, busybox, os.path.join(HERE, "init-durability"), f"modules={mine}",
                  f"writer={writer}")
    return kernel, initrd


def killed(kit, build, form, cache, log):
    need_qumra(build)
    kills, seed = int(os.environ.get("QUMRA_KILLS", 2 if build.name else 6)), os.environ.get("QUMRA_SEED", "1")
    choice = random.Random(f"{seed} {form} {cache}")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disk = Disk(folder, form, cache)
        machine = Killed(kit, build, disk, log, prepare(kit, folder))
        for i in range(kills):
            try:
                machine.once(i, choice)
            except Fail as e:
                raise Fail(f"kill {i + 1}: {e}") from None
        machine.open_once()
        leaks = f", at most {disk.leaks} clusters lost" if disk.leaks else ""
        torn = f", {machine.diary.torn} records torn" if machine.diary.torn else ""
        return f"{kills} kills, {machine.diary.reports} reports{leaks}{torn}"


def tests(build, kit):
    for form in ("raw", "qcow2"):
        for cache in ("writeback", "writethrough"):
            if not build.name or (form, cache) == ("qcow2", "writeback"):
                yield Test(build.test(f"virtio/kill-{form}-{cache}"),
                           lambda log, f=form, c=cache: killed(kit, build, f, c, log), cost=30 * build.slow)

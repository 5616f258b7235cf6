"""Debian's disk for the tests: made once from the mirror's packages, without privileges, and kept in build/guest/debian.

An MBR disk with GRUB for both kinds of firmware: boot.img and core.img in front of the first partition (where core.img
lies behind the boot sector, neither needs a patch: GRUB manual 3.4), a FAT partition of type 0xef with
EFI/BOOT/BOOTX64.EFI (UEFI 2.10 13.3.1.1), and the root.
"""
import os
import shutil
import struct
import subprocess
import tarfile
import threading

from harness import GUEST_FILES, ROOT, Fail, Missing

FOLDER = os.path.join(GUEST_FILES, "debian")
DISK, KERNEL, INITRD = (os.path.join(FOLDER, name) for name in ("disk.img", "vmlinuz", "initrd.img"))
HERE = os.path.join(ROOT, "tests", "clients")
SOURCES = [os.path.join(HERE, name) for name in ("make-root", "disk-hook", "disk-setup", "disk.py")]
TOOLS = ("mmdebstrap", "genext2fs", "tune2fs", "e2fsck", "grub-mkimage", "mformat", "mcopy")
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"     # an ordinary user's lacks them
GRUB = "/usr/lib/grub"
MODULES = ("part_msdos", "ext2", "fat", "linux", "normal", "serial", "terminal", "configfile", "minicmd", "reboot", "halt")
SECTOR, MIB = 512, 1 << 20
ESP_START, ESP_SIZE = MIB, 8 * MIB
ROOT_START, ROOT_SIZE = ESP_START + ESP_SIZE, 768 * MIB
lock = threading.Lock()


def run(*command, fine=(0,)):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                       env={**os.environ, "PATH": PATH})
    if r.returncode not in fine:
        raise Fail(f"{command[0]}: status {r.returncode}: {r.stdout.decode(errors='replace').strip().splitlines()[-1:]}")
    return r.stdout


def path(name):
    return os.path.join(FOLDER, name)


def make_root():
    r = subprocess.run([os.path.join(HERE, "make-root"), path("root.tar")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       stdin=subprocess.DEVNULL, check=False)
    with open(path("root.log"), "wb") as f:
        f.write(r.stdout)
    if r.returncode:
        reasons = [line for line in r.stdout.decode(errors="replace").splitlines() if line.startswith("E:")]
        raise Missing("Debian's packages cannot be had here: " + (reasons or ["mmdebstrap failed"])[0])


def extract(tar, link, out):
    """What one of the root's symlinks /vmlinuz and /initrd.img means."""
    target = tar.getmember(link).linkname
    with tar.extractfile("./" + target.lstrip("/")) as f, open(out, "wb") as g:
        shutil.copyfileobj(f, g)


def make_filesystem(out):
    run("genext2fs", "-B", "4096", "-b", str(ROOT_SIZE // 4096), "-N", "60000", "-L", "root", "-a", path("root.tar"), out)
    run("tune2fs", "-c", "0", "-i", "0", "-j", "-O", "extents,dir_index,uninit_bg,sparse_super", "-L", "root", out)
    run("e2fsck", "-fyD", out, fine=(0, 1))


def make_loaders(core, esp):
    prefix = "(hd0,msdos2)/boot/grub"
    run("grub-mkimage", "-O", "i386-pc", "-o", core, "-p", prefix, "biosdisk", *MODULES)
    run("grub-mkimage", "-O", "x86_64-efi", "-o", path("grub.efi"), "-p", prefix, *MODULES)
    if os.path.exists(esp):
        os.unlink(esp)
    run("mformat", "-C", "-i", esp, "-T", str(ESP_SIZE // SECTOR), "-H", str(ESP_START // SECTOR), "::")
    run("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT")
    run("mcopy", "-i", esp, path("grub.efi"), "::/EFI/BOOT/BOOTX64.EFI")


def entry(kind, start, size, boot=False):
    """A partition by sectors; cylinders, heads and sectors say "beyond"."""
    return struct.pack("<B3sB3sII", 0x80 if boot else 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR, size // SECTOR)


def put(disk, name, offset):
    """Copies a file, leaving holes."""
    with open(name, "rb") as f:
        for i, block in enumerate(iter(lambda: f.read(65536), b"")):
            if block.count(0) != len(block):
                disk.seek(offset + i * 65536)
                disk.write(block)


def make_disk(core, esp, filesystem, out):
    if os.path.getsize(core) > ESP_START - SECTOR:
        raise Fail("core.img is too large")
    with open(os.path.join(GRUB, "i386-pc", "boot.img"), "rb") as f:
        boot = f.read()[:440].ljust(446, b"\0")
    with open(out, "wb") as disk:
        disk.truncate(ROOT_START + ROOT_SIZE)
        disk.write(boot + entry(0xef, ESP_START, ESP_SIZE) + entry(0x83, ROOT_START, ROOT_SIZE, True) + bytes(32) + b"\x55\xaa")
        put(disk, core, SECTOR)
        put(disk, esp, ESP_START)
        put(disk, filesystem, ROOT_START)


def make():
    os.makedirs(FOLDER, exist_ok=True)
    missing = [t for t in TOOLS if not shutil.which(t, path=PATH)]
    missing += [d for d in ("i386-pc", "x86_64-efi") if not os.path.isdir(os.path.join(GRUB, d))]
    if missing:
        raise Missing("not installed: " + ", ".join(missing))
    if not os.path.exists(path("root.tar")) or newer(SOURCES[:3], path("root.tar")):
        make_root()
    with tarfile.open(path("root.tar")) as tar:
        extract(tar, "./vmlinuz", KERNEL)
        extract(tar, "./initrd.img", INITRD)
    make_filesystem(path("root.ext4"))
    make_loaders(path("core.img"), path("esp.img"))
    make_disk(path("core.img"), path("esp.img"), path("root.ext4"), DISK + ".new")
    os.unlink(path("root.ext4"))
    os.rename(DISK + ".new", DISK)


def newer(sources, than):
    return any(os.path.getmtime(s) > os.path.getmtime(than) for s in sources)


def disk():
    """The path of the disk; the kernel and its initial RAM disk are KERNEL and INITRD."""
    with lock:
        if not os.path.exists(DISK) or newer(SOURCES, DISK):
            make()
    return DISK

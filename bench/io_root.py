"""The root of guests that measure disks and networks: fio and iperf3 with the libraries that they open, the drivers, and
a list of jobs. An initial RAM disk; nothing is installed."""
import fcntl
import glob
import hashlib
import os
import re
import shutil

from machine import ROOT, output, progress
from root import FOLDER, read, run, unshare, write

KERNEL = "linux-image-cloud-amd64"
PACKAGES = ["fio", "iperf3"]
PROGRAMS = ["usr/bin/fio", "usr/bin/iperf3"]
MODULES = ["virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_blk",
           "virtio_net", "failover", "net_failover"]
TREE = os.path.join(FOLDER, "io-packages")
CHOSEN = os.path.join(FOLDER, "io")
INITRD = os.path.join(FOLDER, "io.cpio")
STAMP = os.path.join(FOLDER, "io.stamp")


def libraries(program):
    """What the dynamic linker of the tree opens for it."""
    text = output(*unshare("chroot", TREE, "/lib64/ld-linux-x86-64.so.2", "--list", "/" + program))
    return set(re.findall(r"(/\S+) \(0x", text))


def copy(name):
    """A file of the tree, under its name, whatever links lead to it."""
    path = os.path.join(CHOSEN, name.lstrip("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    run(*unshare("chroot", TREE, "/lib64/ld-linux-x86-64.so.2", "/bin/cp", "-L", name, "/file"))
    shutil.move(os.path.join(TREE, "file"), path)


def make_anew():
    run("scripts/unpack-debs", TREE, "coreutils", *PACKAGES)
    for folder in glob.glob(os.path.join(TREE, "usr/lib/x86_64-linux-gnu/ceph")):
        write(os.path.join(TREE, "etc", "ld.so.conf"), f"/{os.path.relpath(folder, TREE)}\n")
    shutil.rmtree(CHOSEN, ignore_errors=True)
    wanted = {"/lib64/ld-linux-x86-64.so.2", *("/" + p for p in PROGRAMS)}.union(*map(libraries, PROGRAMS))
    for name in sorted(wanted):
        copy(name)
    shutil.rmtree(TREE)


def stamp(jobs):
    digest = hashlib.sha256((jobs + " ".join(PACKAGES + MODULES)).encode())
    for name in ("io_root.py", "io-init", "io.sh"):
        digest.update(read(os.path.join(ROOT, "bench", name)).encode())
    return digest.hexdigest()


def make(jobs):
    """The initial RAM disk; jobs: lines of a name and a command. Made when something has changed."""
    os.makedirs(FOLDER, exist_ok=True)
    with open(os.path.join(FOLDER, "io.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(STAMP) or read(STAMP) != stamp(jobs):
            progress("making the root with fio and iperf3")
            if not os.path.exists(CHOSEN):
                make_anew()
            os.makedirs(os.path.join(CHOSEN, "bench"), exist_ok=True)
            shutil.copy(os.path.join(ROOT, "bench", "io.sh"), os.path.join(CHOSEN, "bench"))
            write(os.path.join(CHOSEN, "bench", "list"), jobs)
            run("scripts/make-initramfs", INITRD, output("scripts/fetch-busybox"), "bench/io-init", f".={CHOSEN}",
                "modules=" + output("scripts/fetch-modules", KERNEL, *MODULES))
            write(STAMP, stamp(jobs))
    return INITRD

"""The root that all machines run: Debian's programs, unpacked and thinned, with the benchmark's own in /bench. As a
folder for the host's chroot and as an initial RAM disk for guests."""
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess

import workloads
from machine import ROOT, output, progress

PACKAGES = ["gcc", "libc6-dev", "gzip", "xz-utils", "openssl", "sqlite3", "python3-minimal", "perl-base", "dash",
            "coreutils", "sed", "grep", "findutils"]
FOLDER = os.path.join(ROOT, "build", "bench")
TREE = os.path.join(FOLDER, "root")
INITRD = os.path.join(FOLDER, "root.cpio")
# The benchmark's own program and what it needs: boots some seconds faster.
SMALL, SMALL_INITRD = os.path.join(FOLDER, "small"), os.path.join(FOLDER, "small.cpio")
SMALL_FILES = ["bench/program", "bench/list", "bench/suite.sh", "lib64/ld-linux-x86-64.so.2",
               "lib/x86_64-linux-gnu/libc.so.6", "bin/true"]
KEY = os.path.join(FOLDER, "rsa.pem")     # kept, so that results can be compared between runs
STAMP = os.path.join(FOLDER, "root.stamp")
# What no workload opens, as patterns below the tree. Guests hold the rest in memory.
THINNED = [
    "usr/share/[!p]*", "usr/share/pixmaps", "usr/sbin", "sbin", "var", "etc/[!lp]*",
    "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/python3", "usr/lib/dpkg", "usr/lib/gcc/x86_64-linux-gnu/*/lto*",
    "usr/lib/gcc/x86_64-linux-gnu/*/lib[!g]*.a", "usr/lib/gcc/x86_64-linux-gnu/*/libgcov.a",
    "usr/lib/gcc/x86_64-linux-gnu/*/plugin", "usr/lib/gcc/x86_64-linux-gnu/*/lib*san*",
    "usr/lib/x86_64-linux-gnu/lib*san.so*", "usr/lib/x86_64-linux-gnu/lib[!cp]*.a",
    "usr/lib/x86_64-linux-gnu/libc.a", "usr/lib/x86_64-linux-gnu/lib*gprofng*", "usr/lib/x86_64-linux-gnu/gprofng",
    "usr/lib/x86_64-linux-gnu/perl-base/unicore/lib", "usr/bin/dpkg*", "usr/bin/*gprof*", "usr/bin/*gp-*",
    "usr/bin/*dwp", "usr/bin/*ld.gold", "usr/bin/*gold", "usr/bin/*gcov*", "usr/bin/perl5*",
    "usr/bin/x86_64-linux-gnu-[!agl]*", "usr/lib/x86_64-linux-gnu/libstdc*", "usr/bin/*lto-dump*",
    "usr/lib/x86_64-linux-gnu/audit", "usr/lib/x86_64-linux-gnu/engines-3", "usr/lib/x86_64-linux-gnu/libgomp*",
    "usr/lib/x86_64-linux-gnu/libquadmath*",
]


def sources():
    files = [*glob.glob(os.path.join(ROOT, "bench", "work", "*")), *glob.glob(os.path.join(ROOT, "bench", "programs", "*"))]
    return sorted(files) + [os.path.join(ROOT, "bench", name) for name in ("suite.sh", "root-init", "root.py")]


def stamp():
    digest = hashlib.sha256(workloads.script().encode())
    for path in sources():
        with open(path, "rb") as f:
            digest.update(path.encode() + b"\0" + f.read())
    return digest.hexdigest()


def run(*command):
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def unshare(*command):
    """The command with a mount namespace of its own, as root there whoever calls."""
    return ["unshare", "-m", *(["-r"] if os.geteuid() else []), *command]


def unpack():
    """Debian's packages; kept until the list changes."""
    mark = os.path.join(FOLDER, "packages.stamp")
    wanted = " ".join(PACKAGES + THINNED)
    if os.path.exists(mark) and read(mark) == wanted:
        return
    run("scripts/unpack-debs", TREE, *PACKAGES)
    for pattern in THINNED:
        for path in glob.glob(os.path.join(TREE, pattern)):
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    for folder in ("dev", "proc", "sys", "tmp", "root", "bench"):
        os.makedirs(os.path.join(TREE, folder), exist_ok=True)
    for name, target in (("bin/sh", "dash"), ("usr/bin/awk", "../../bin/busybox")):
        path = os.path.join(TREE, name)
        if not os.path.lexists(path):
            os.symlink(target, path)
    write(mark, wanted)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def fill():
    """/bench: the program, compiled with the root's own compiler, a key to sign with, data."""
    bench = os.path.join(TREE, "bench")
    shutil.rmtree(bench, ignore_errors=True)
    for name in ("work", "programs"):
        shutil.copytree(os.path.join(ROOT, "bench", name), os.path.join(bench, name))
    shutil.copy(os.path.join(ROOT, "bench", "suite.sh"), bench)
    write(os.path.join(bench, "list"), workloads.script())
    inside("gcc -O2 -pthread -o /bench/program /bench/work/*.c")
    inside(f"/bench/program data {workloads.DATA} {workloads.DATA_SIZE}")
    if not os.path.exists(KEY):
        inside("openssl genrsa -out /bench/rsa.pem 2048 && chmod 644 /bench/rsa.pem")
        shutil.move(os.path.join(bench, "rsa.pem"), KEY)
    shutil.copy(KEY, os.path.join(bench, "rsa.pem"))


def inside(command):
    run(*unshare("chroot", TREE, "/bin/sh", "-c", f"PATH=/usr/bin:/bin; TMPDIR=/tmp; export PATH TMPDIR; {command}"))


def fill_small():
    shutil.rmtree(SMALL, ignore_errors=True)
    for name in SMALL_FILES:
        os.makedirs(os.path.dirname(os.path.join(SMALL, name)), exist_ok=True)
        run(*unshare("chroot", TREE, "/bin/cp", "-L", "/" + name, "/tmp/file"))
        shutil.move(os.path.join(TREE, "tmp", "file"), os.path.join(SMALL, name))


def make():
    """Makes what has changed; one process at a time."""
    os.makedirs(FOLDER, exist_ok=True)
    with open(os.path.join(FOLDER, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new = stamp()
        if not os.path.exists(STAMP) or read(STAMP) != new:
            progress("making the root")
            make_anew()
            write(STAMP, new)


def make_anew():
    unpack()
    fill()
    fill_small()
    busybox = output("scripts/fetch-busybox")
    for path, tree in ((INITRD, TREE), (SMALL_INITRD, SMALL)):
        run("scripts/make-initramfs", path, busybox, "bench/root-init", f".={tree}")


def initrd(names):
    """The initial RAM disk for the workloads of these names."""
    return INITRD if workloads.needs_programs(names) else SMALL_INITRD

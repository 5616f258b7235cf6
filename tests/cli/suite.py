"""The qumra command: bad input, the terminal, exit statuses, what an idle guest costs."""
import contextlib
import importlib.util
import mmap
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

from harness import ROOT, SANITIZER_WORDS, Fail, Missing, Test, environment, need_qumra, run_process

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import bad_devices  # noqa: E402
import huge_pages  # noqa: E402

spec = importlib.util.spec_from_file_location("guest_suite", os.path.join(ROOT, "tests", "guest", "suite.py"))
guest_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guest_suite)


def guest(name, log, bits="64"):
    return guest_suite.built(guest_suite.Guest(name, bits, {}), log)


# ---- bad input -------------------------------------------------------------------------------------------------


def bzimage(setup_sects=4, magic=b"HdrS", version=0x20c, size=32768, jump=0x66, **fields):
    """A kernel's header by the boot protocol, and nothing behind it."""
    image = bytearray(max(size, 0x300))
    image[0x1f1] = setup_sects
    image[0x1fe:0x200] = b"\x55\xaa"
    image[0x200:0x202] = bytes([0xeb, jump])
    image[0x202:0x206] = magic
    struct.pack_into("<H", image, 0x206, version)
    image[0x211] = 1
    for name, value in {"code32": 0x100000, "initrd_max": 0x7fffffff, "alignment": 0x200000, "cmdline_size": 255,
                        "init_size": 0x1000000, **fields}.items():
        where, kind = {"code32": (0x214, "<I"), "initrd_max": (0x22c, "<I"), "alignment": (0x230, "<I"),
                       "cmdline_size": (0x238, "<I"), "init_size": (0x260, "<I"), "syssize": (0x1f4, "<I"),
                       "pref_address": (0x258, "<Q"), "xloadflags": (0x236, "<H")}[name]
        struct.pack_into(kind, image, where, value)
    return bytes(image[:size])


def elf(phdrs, bits=64, entry=0x100000, phoff=None, phnum=None, note=True, size=8192, phentsize=None):
    """An ELF file with the given program headers (type, offset, vaddr, paddr, filesz, memsz)."""
    image = bytearray(size)
    head = 64 if bits == 64 else 52
    each = 56 if bits == 64 else 32
    phdrs = list(phdrs)
    if note:
        phdrs.append((4, 0x400, 0, 0, 24, 24))
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    offset = head if phoff is None else phoff
    count = len(phdrs) if phnum is None else phnum
    if bits == 64:
        image[:64] = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, offset, 0, 0, head, phentsize or each,
                                         count, 0, 0, 0)
    else:
        image[:52] = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, offset, 0, 0, head, phentsize or each,
                                         count, 0, 0, 0)
    for i, (kind, off, vaddr, paddr, filesz, memsz) in enumerate(phdrs):
        if bits == 64:
            packed = struct.pack("<IIQQQQQQ", kind, 7, off, vaddr, paddr, filesz, memsz, 4096)
        else:
            packed = struct.pack("<IIIIIIII", kind, off, vaddr, paddr, filesz, memsz, 7, 4096)
        image[head + i * each:head + (i + 1) * each] = packed
    image[0x400:0x418] = struct.pack("<III", 4, 8, 18) + b"Xen\0" + struct.pack("<Q", entry & 0xffffffff)
    return bytes(image)


M = 1 << 20
G = 1 << 30
KERNELS = {
    "empty": b"",
    "one byte": b"M",
    "zeroes": bytes(4096),
    "text": b"#!/bin/sh\necho this is no kernel\n" * 40,
    "short of the header": bzimage(size=0x1f0),
    "ends in the header": bzimage(size=0x230),
    "no HdrS": bzimage(magic=b"XXXX"),
    "an old protocol": bzimage(version=0x105),
    "setup_sects beyond the file": bzimage(setup_sects=255, size=4096),
    "setup_sects covers all": bzimage(setup_sects=63, size=32768),
    "init_size of 4 GiB": bzimage(init_size=0xffffffff),
    "code32 at the top": bzimage(code32=0xfffff000),
    "pref_address beyond RAM": bzimage(pref_address=1 << 60, xloadflags=1),
    "alignment not a power of 2": bzimage(alignment=0x12345, pref_address=0x12345000),
    "ELF: header only": elf([])[:64],
    "ELF: cut": elf([(1, 0x1000, M, M, 4096, 4096)])[:40],
    "ELF: no segment": elf([], note=True),
    "ELF: no PVH note": elf([(1, 0x1000, M, M, 4096, 4096)], note=False),
    "ELF: headers outside": elf([(1, 0x1000, M, M, 4096, 4096)], phoff=1 << 40),
    "ELF: headers at the very end": elf([(1, 0x1000, M, M, 4096, 4096)], phoff=8190),
    "ELF: offset wraps": elf([(1, 0x1000, M, M, 4096, 4096)], phoff=(1 << 64) - 8),
    "ELF: 65535 headers": elf([(1, 0x1000, M, M, 4096, 4096)], phnum=65535),
    "ELF: header size 1": elf([(1, 0x1000, M, M, 4096, 4096)], phentsize=1),
    "ELF: segment outside the file": elf([(1, 0x100000, M, M, 4096, 4096)]),
    "ELF: segment size wraps": elf([(1, 0x1000, M, M, (1 << 64) - 16, (1 << 64) - 16)]),
    "ELF: file size over memory size": elf([(1, 0x1000, M, M, 4096, 16)]),
    "ELF: segment beyond RAM": elf([(1, 0x1000, 100 * G, 100 * G, 4096, 4096)]),
    "ELF: address wraps": elf([(1, 0x1000, M, (1 << 64) - 2048, 4096, 4096)]),
    "ELF: overlapping segments": elf([(1, 0x1000, M, M, 4096, 8192), (1, 0x1000, M, M + 4096, 4096, 4096)]),
    "ELF: memory size of 1 TiB": elf([(1, 0x1000, M, M, 4096, 1 << 40)]),
    "ELF: entry outside": elf([(1, 0x1000, M, M, 4096, 4096)], entry=0xf0000000),
    "ELF: note outside": elf([(1, 0x1000, M, M, 4096, 4096), (4, 1 << 40, 0, 0, 64, 64)], note=False),
    "ELF: note cut": elf([(1, 0x1000, M, M, 4096, 4096), (4, 0x400, 0, 0, 11, 11)], note=False),
    "ELF32: segment outside the file": elf([(1, 0xfffff000, M, M, 8192, 8192)], bits=32),
    "ELF32: beyond RAM": elf([(1, 0x1000, M, 0xfffff000, 4096, 4096)], bits=32),
    "ELF: big-endian": b"\x7fELF\x02\x02\x01" + bytes(100),
    "ELF: another machine": elf([(1, 0x1000, M, M, 4096, 4096)])[:18] + b"\xb7\x00"
                            + elf([(1, 0x1000, M, M, 4096, 4096)])[20:],
}


def refused(build, log, name, args, statuses=(1, 2), problems=None, must=None, cwd=None):
    """One line on standard error, a status of 1 or 2, no crash; anything else is a problem."""
    r = run_process([build.qumra, "run", "--accel", "soft", *args], 30 * build.slow, log, cwd=cwd)
    lines = [line for line in r.err.decode(errors="replace").splitlines() if "accelerator soft" not in line]
    problem = None
    if r.timed_out:
        problem = "no end"
    elif r.status not in statuses:
        problem = f"status {r.status}"
    elif len(lines) != 1:
        problem = f"{len(lines)} lines on standard error"
    elif must and not re.search(must, lines[0]):
        problem = f'"{lines[0]}" does not tell'
    if problem:
        problems.append(f"{name}: {problem}")


def report(log, problems, fine):
    for p in problems:
        log.write(f"FAIL {p}\n".encode())
    if problems:
        raise Fail(f"{len(problems)}, first: {problems[0]}")
    return fine


def bad_kernels(build, log):
    need_qumra(build)
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel")
        for name, content in KERNELS.items():
            with open(path, "wb") as f:
                f.write(content)
            refused(build, log, name, ["--kernel", path, "--serial", "none", "--memory", "64M"], (1,), problems,
                    re.escape(path))
        refused(build, log, "missing", ["--kernel", path + "-not-there"], (1, 2), problems, "No such file")
        refused(build, log, "a folder", ["--kernel", folder], (1, 2), problems, re.escape(folder))
        refused(build, log, "a device", ["--kernel", "/dev/null"], (1, 2), problems)
    return report(log, problems, f"{len(KERNELS) + 3} files")


def truncated_kernels(build, log):
    """Debian's own kernel, cut at many places, and with bytes of its header changed."""
    need_qumra(build)
    kernel = os.path.join(ROOT, "build", "guest", "linux-image-cloud-amd64", "vmlinuz")
    if not os.path.exists(kernel):
        subprocess.run(["scripts/fetch-kernel", "linux-image-cloud-amd64"], cwd=ROOT, stderr=log, stdout=log, check=False)
    if not os.path.exists(kernel):
        raise Missing("no kernel")
    with open(kernel, "rb") as f:
        whole = f.read()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel")
        for size in (1, 511, 512, 0x201, 0x205, 0x22f, 0x263, 0x268, 1024, 4096, 15000, 20000, 1 << 20,
                     len(whole) - 4096):
            with open(path, "wb") as f:
                f.write(whole[:size])
            refused(build, log, f"{size} bytes of it", ["--kernel", path, "--serial", "none"], (1,), problems)
    return report(log, problems, "14 lengths")


def bad_options(build, log):
    need_qumra(build)
    problems = []
    kernel = guest("hello", log)
    ok = ["--kernel", kernel, "--serial", "none"]
    with tempfile.TemporaryDirectory() as folder:
        empty = os.path.join(folder, "empty")
        big = os.path.join(folder, "big")
        open(empty, "w").close()
        with open(big, "w") as f:
            f.truncate(100 << 20)
        for name, args, statuses, must in (
                ("memory 0", [*ok, "--memory", "0"], (1, 2), "memory"),
                ("memory 3M", [*ok, "--memory", "3M"], (1, 2), "memory"),
                ("memory 1T", [*ok, "--memory", "1T"], (1, 2), "memory"),
                ("memory 12Q", [*ok, "--memory", "12Q"], (2,), "12Q"),
                ("memory -1", [*ok, "--memory", "-1"], (2,), "memory"),
                ("memory empty", [*ok, "--memory", ""], (2,), "memory"),
                ("memory of 2^64", [*ok, "--memory", "18446744073709551616"], (2,), "memory"),
                ("memory of 2^24 T", [*ok, "--memory", "16777216T"], (1, 2), "memory"),
                ("memory not a multiple of a page", [*ok, "--memory", "67108865"], (1, 2), "memory"),
                ("no kernel", ["--serial", "none"], (2,), "kernel"),
                ("kernel twice", [*ok, "--kernel", kernel], (2,), "kernel"),
                ("memory twice", [*ok, "--memory", "64M", "--memory", "64M"], (2,), "memory"),
                ("no value", ["--kernel"], (2,), "kernel"),
                ("unknown option", [*ok, "--turbo"], (2,), "turbo"),
                ("unknown short option", [*ok, "-x"], (2,), "-x"),
                ("an argument too many", [*ok, "extra"], (2,), "extra"),
                ("a value for a flag", [*ok, "--no-reboot=1"], (2,), "no-reboot"),
                ("cpus 0", [*ok, "--cpus", "0"], (2,), "cpus"),
                ("cpus 9999", [*ok, "--cpus", "9999"], (2,), "cpus"),
                ("cpus abc", [*ok, "--cpus", "abc"], (2,), "cpus"),
                ("cpus of a shape that does not add up", [*ok, "--cpus", "4,cores=3"], (2,), "add up"),
                ("cpus of a shape unknown", [*ok, "--cpus", "4,dies=2"], (2,), "understood"),
                ("engine", [*ok, "--engine", "steam"], (2,), "steam"),
                ("serial", ["--kernel", kernel, "--serial", "carrier-pigeon"], (2,), "pigeon"),
                ("serial file in a missing folder", ["--kernel", kernel, "--serial", f"file:{folder}/a/b"], (1, 2), f"--serial file:{folder}/a/b: "),
                ("serial file that is a folder", ["--kernel", kernel, "--serial", f"file:{folder}"], (1, 2), "directory"),
                ("serial file without a name", ["--kernel", kernel, "--serial", "file:"], (1, 2), None),
                ("serial socket in a missing folder", ["--kernel", kernel, "--serial", f"unix:{folder}/a/b"], (1, 2), None),
                ("serial socket with a long name", ["--kernel", kernel, "--serial", "unix:/" + "x" * 200], (1, 2), None),
                ("initrd missing", [*ok, "--initrd", folder + "/none"], (1, 2), "No such file"),
                ("initrd a folder", [*ok, "--initrd", folder], (1, 2), None),
                ("initrd does not fit", [*ok, "--initrd", big, "--memory", "64M"], (1,), None),
                ("display", [*ok, "--display", "gtk"], (2,), "gtk"),
                ("display open to a network", [*ok, "--display", "vnc=0.0.0.0:5999"], (2,), "password"),
                ("display socket in a missing folder", [*ok, "--display", f"vnc=unix:{folder}/a/b"], (1,), "a/b"),
                ("display with a missing password", [*ok, "--display", f"vnc,password={folder}/none"], (1,), "none"),
                ("screenshot in a missing folder", [*ok, "--screenshot", f"{folder}/a/b.png"], (1,), "a/b.png"),
                ("screenshot over a folder", [*ok, "--screenshot", folder], (1,), "regular"),
                ("append too long", [*ok, "--append", "x" * 100000], (1, 2), None)):
            refused(build, log, name, args, statuses, problems, must)
        r = run_process([build.qumra, "run", "--accel", "fast", *ok], 30, log)
        if r.status != 2:
            problems.append(f"accel fast: status {r.status}")
        for args in ([], ["walk"], ["run"], ["--verbose"]):
            r = run_process([build.qumra, *args], 30, log)
            if r.status != 2 or len(r.err.splitlines()) != 1:
                problems.append(f"qumra {' '.join(args)}: status {r.status}, {len(r.err.splitlines())} lines")
    return report(log, problems, "42 mistakes")


def bad_device_options(build, log):
    """Options of devices, and images."""
    need_qumra(build)
    problems = []
    left = bad_devices.run(build, log, guest("hello", log), lambda name, args, must, cwd: refused(
        build, log, name, args, (1, 2), problems, must, cwd))
    if left:
        problems.append(f"files left: {left}")
    return report(log, problems, f"{len(bad_devices.MISTAKES)} mistakes, {len(bad_devices.IMAGES)} images")


def unwritable(build, log):
    """A serial file that may not be written, not even by root."""
    need_qumra(build)
    problems = []
    kernel = guest("hello", log)
    for path in ("/sys/qumra", "/proc/qumra"):
        if not os.path.ismount(os.path.dirname(path)):
            continue
        refused(build, log, path, ["--kernel", kernel, "--serial", "file:" + path], (1, 2), problems, re.escape(path))
    return report(log, problems, None)


# ---- exit statuses -----------------------------------------------------------------------------------------------


def statuses(build, log):
    need_qumra(build)
    problems = []
    echo = guest("echo", log)
    for name, args, keys, want in (
            ("power off", [], b"q", 0), ("triple fault", [], b"t", 3), ("triple fault, --no-reboot", ["--no-reboot"], b"t", 3),
            ("reboot, --no-reboot", ["--no-reboot"], b"r", 0)):
        r = run_process([*build.run, "--kernel", echo, "--memory", "64M", *args],
                        30 * build.slow, log, stdin=keys)
        if r.status != want:
            problems.append(f"{name}: status {r.status}, want {want}")
        if name == "power off" and b"ready" not in r.out:
            problems.append("the guest's output is missing")
    r = run_process([*build.run, "--kernel", guest("hello", log), "--memory", "64M",
                     "--debug-exit"], 30 * build.slow, log)
    if r.status != 33:
        problems.append(f"debug exit: status {r.status}")
    r = run_process([build.qumra, "run", "--help"], 30, log)
    if r.status or b"--kernel" not in r.out:
        problems.append(f"--help: status {r.status}")
    r = run_process([build.qumra, "--version"], 30, log)
    if r.status:
        problems.append(f"--version: status {r.status}")
    return report(log, problems, None)


def piped(build, log):
    """Input by pipe reaches the guest in order and whole, more of it than any buffer holds."""
    need_qumra(build)
    text = b"".join(b"the line %d\n" % i for i in range(400)).replace(b"q", b"").replace(b"t", b"x").replace(b"r", b"y")
    r = run_process([*build.run, "--kernel", guest("echo", log), "--memory", "64M"],
                    60 * build.slow, log, stdin=text + b"q")
    got = r.out.replace(b"\r", b"")
    want = text.upper()
    if r.status:
        raise Fail(f"status {r.status}")
    if want not in got:
        raise Fail("the text did not come back whole")


def end_of_input(build, log):
    """The end of standard input is no reason to end."""
    need_qumra(build)
    r = run_process([*build.run, "--kernel", guest("hello", log), "--memory", "64M",
                     "--debug-exit"], 30 * build.slow, log, stdin=b"")
    if r.status != 33:
        raise Fail(f"status {r.status}")


def serial_places(build, log):
    need_qumra(build)
    problems = []
    hello, echo = guest("hello", log), guest("echo", log)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "serial.log")
        run_process([*build.run, "--kernel", hello, "--memory", "64M", "--debug-exit",
                     "--serial", "file:" + path], 30 * build.slow, log)
        with open(path, "rb") as f:
            if b"DONE 4 passed" not in f.read():
                problems.append("file: text is missing")
        path = os.path.join(folder, "socket")
        p = subprocess.Popen([*build.run, "--kernel", echo, "--memory", "64M", "--serial",
                              "unix:" + path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())
        try:
            s = socket.socket(socket.AF_UNIX)
            end = time.monotonic() + 20 * build.slow
            while True:
                try:
                    s.connect(path)
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise Fail("unix: nobody listens") from None
                    time.sleep(0.02)
            s.settimeout(20 * build.slow)
            s.sendall(b"abc")
            got = b""
            while b"ABC" not in got:
                got += s.recv(100)
            s.sendall(b"q")
            if p.wait(20 * build.slow):
                problems.append(f"unix: status {p.returncode}")
        finally:
            if p.poll() is None:
                p.kill()
                p.wait()
    return report(log, problems, None)


# ---- the terminal ------------------------------------------------------------------------------------------------


class Terminal:
    """qumra on a pseudo-terminal of its own."""

    def __init__(self, build, log, *args):
        self.log, self.slow = log, build.slow
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        self.process = subprocess.Popen([*build.run, "--memory", "64M", *args],
                                        stdin=self.slave, stdout=self.slave, stderr=self.slave, env=environment(),
                                        start_new_session=True)

    def wait_for(self, pattern, seconds=20):
        end = time.monotonic() + seconds * self.slow
        while not re.search(pattern, self.text):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise Fail(f"{pattern!r} did not appear; there is {self.text[-200:]!r}")
            chunk = os.read(self.master, 4096)
            self.log.write(chunk)
            self.text += chunk

    def send(self, data):
        os.write(self.master, data)

    def end(self, seconds=20):
        """The status, and whether the terminal is as it was."""
        try:
            status = self.process.wait(seconds * self.slow)
        except subprocess.TimeoutExpired:
            raise Fail("no end") from None
        end = time.monotonic() + 5 * self.slow      # a helper may restore it a moment later
        while termios.tcgetattr(self.slave) != self.before and time.monotonic() < end:
            time.sleep(0.02)
        return status, termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def with_terminal(build, log, guest_name, body):
    need_qumra(build)
    t = Terminal(build, log, "--kernel", guest(guest_name, log))
    try:
        t.wait_for(b"ready" if guest_name == "echo" else b"idle")
        body(t)
    finally:
        t.close()
    for word in SANITIZER_WORDS:
        if word in t.text:
            raise Fail(f"{word.decode()} spoke")


def is_raw(t):
    return not termios.tcgetattr(t.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


def keys(build, log):
    def body(t):
        if not is_raw(t):
            raise Fail("the terminal is not raw")
        t.send(b"hello\x03\x1a")          # Ctrl-C and Ctrl-Z are the guest's
        t.wait_for(b"HELLO\x03\x1a")
        t.send(b"\x01h")
        t.wait_for(rb"Ctrl-A x")
        t.send(b"\x01s")
        t.wait_for(b"--screenshot FILE")  # there is no screen
        t.send(b"\x01\x01")               # Ctrl-A for the guest
        t.wait_for(b"\x01")
        t.send(b"\x01x")
        status, restored = t.end()
        if status:
            raise Fail(f"Ctrl-A x: status {status}")
        if not restored:
            raise Fail("the terminal was left raw")
    with_terminal(build, log, "echo", body)


def restored_by(build, log, number):
    def body(t):
        if not is_raw(t):
            raise Fail("the terminal is not raw")
        t.process.send_signal(number)
        status, restored = t.end()
        if not restored:
            raise Fail("the terminal was left raw")
        if number == signal.SIGKILL and status != -signal.SIGKILL:
            raise Fail(f"status {status}")
        if status == 0:
            raise Fail("status 0 though a signal ended it")
    with_terminal(build, log, "echo", body)


def restored_after(build, log, sent, want):
    def body(t):
        t.send(sent)
        status, restored = t.end()
        if status != want or not restored:
            raise Fail(f"status {status}, terminal {'restored' if restored else 'left raw'}")
    with_terminal(build, log, "echo", body)


def reboot(build, log):
    """A reset starts the machine anew."""
    def body(t):
        t.send(b"a")
        t.wait_for(b"A")
        t.send(b"r")
        t.wait_for(rb"(?s)ready.*A.*ready")
        t.send(b"bq")
        t.wait_for(b"bye")
        status, restored = t.end()
        if status or not restored:
            raise Fail(f"status {status}")
    with_terminal(build, log, "echo", body)


# ---- which accelerator, and why -----------------------------------------------------------------------------------


def accelerator(build, log):
    need_qumra(build)
    problems = []
    hello = guest("hello", log)
    base = [build.qumra, "run", "--kernel", hello, "--memory", "64M", "--debug-exit"]
    for accel in ("auto", "soft"):
        r = run_process([*base, "--accel", accel], 60 * build.slow, log)
        lines = [line for line in r.err.decode().splitlines() if "accelerator" in line]
        if r.status != 33 or len(lines) != 1:
            problems.append(f"{accel}: status {r.status}, {len(lines)} lines name the accelerator")
        elif not re.search(r"accelerator (soft|kvm) \([a-z]", lines[0]):
            problems.append(f"{accel}: {lines[0]}")
    with open("/proc/cpuinfo") as f:
        virtual = re.search(r"^flags.*\b(vmx|svm)\b", f.read(), re.M)
    if not virtual:
        r = run_process([*base, "--accel", "auto"], 60 * build.slow, log)
        if b"accelerator soft" not in r.err:
            problems.append("auto takes /dev/kvm on a CPU without VMX and SVM")
    if not os.path.exists("/dev/kvm"):
        r = run_process([*base, "--accel", "kvm"], 60 * build.slow, log)
        if r.status != 1 or len(r.err.splitlines()) != 1:
            problems.append(f"kvm without /dev/kvm: status {r.status}")
    return report(log, problems, None)


# ---- what it costs -------------------------------------------------------------------------------------------------


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        words = f.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def idle(build, log):
    """A guest in HLT with 100 ticks a second; the limit of the issue is 2 % of a core, here with room for a busy host."""
    need_qumra(build)
    p = subprocess.Popen([*build.run, "--kernel", guest("idle", log), "--memory", "64M"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment())
    try:
        p.stdout.readline()
        before, start = cpu_seconds(p.pid), time.monotonic()
        time.sleep(5)       # what is measured is this time
        share = (cpu_seconds(p.pid) - before) / (time.monotonic() - start) * 100
    finally:
        p.kill()
        p.wait()
    if share > 4 * build.slow:
        raise Fail(f"{share:.1f} % of a core")
    return f"{share:.1f} % of a core"


def memory(build, log):
    """Resident memory beyond the guest's: under 16 MiB."""
    need_qumra(build)
    p = subprocess.Popen([*build.run, "--kernel", guest("idle", log), "--memory", "64M"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment())
    try:
        p.stdout.readline()
        with open(f"/proc/{p.pid}/smaps") as f:
            text = f.read()
    finally:
        p.kill()
        p.wait()
    guest_kib = total = 0
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.M):
        size, rss = re.search(r"^Size: +(\d+)", block, re.M), re.search(r"^Rss: +(\d+)", block, re.M)
        if not rss:
            continue
        total += int(rss[1])
        if int(size[1]) >= 60 << 10:        # the guest's RAM: one mapping of 64 MiB
            guest_kib += int(rss[1])
    extra = (total - guest_kib) / 1024
    if extra > 16 and not build.name:
        raise Fail(f"{extra:.1f} MiB beyond the guest's RAM")
    return f"{extra:.1f} MiB beyond the guest's RAM"


def memory_back_ends(build, log):
    """A guest on each of them; what a shared file holds afterwards, and a private one not."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ram,file")
        name = path.replace(",", ",,")

        def run(backing, want=33, size="16M"):
            r = run_process([*build.run, "--kernel", guest("hello", log), "--memory", f"{size},{backing}", "--debug-exit"],
                            30 * build.slow, log)
            if r.status != want:
                raise Fail(f"{backing}: status {r.status}: {r.err[-200:]!r}")
            return r
        for backing in ("prealloc=on", "share=on", "share=on,prealloc=on", f"file={name},share=on"):
            run(backing)
        with open(path, "rb") as f:
            ram = f.read()
        with open(guest("hello", log), "rb") as f:
            code = f.read()[0x1000:0x1800]
        if len(ram) != 16 << 20 or code not in ram:
            raise Fail(f"{len(ram)} bytes in the file, without the guest's code")
        with open(path, "r+b") as f:
            f.write(b"mark")
        run(f"file={name}")
        with open(path, "rb") as f:
            if f.read() != b"mark" + ram[4:]:
                raise Fail("a private file was written")
        with huge_pages.Pools() as pools:
            if pools.free(huge_pages.MIB_2) < 8:
                lines = [line for line in run("hugepages", 1).err.splitlines() if b"huge pages of 2 MiB" in line]
                if len(lines) != 1:
                    raise Fail(f"{len(lines)} lines say that there are no huge pages")
            return on_huge_pages(build, log, pools, folder, run)


def on_huge_pages(build, log, pools, folder, run):
    """Guests on pages of 2 MiB, 1 GiB and of a file of hugetlbfs; what the host gives makes the remark."""
    with pools.more(huge_pages.MIB_2, 16) as there:
        if not there:
            return "the host gives no huge pages"
        for backing in ("hugepages", "hugepages,share=on", "hugepages=2M,prealloc=on"):
            run(backing)
            before = pools.unclaimed(huge_pages.MIB_2)
            with idle_guest(build, log, "--memory", "16M," + backing):
                taken = before - pools.unclaimed(huge_pages.MIB_2)
            if taken != 8:
                raise Fail(f"{backing}: {taken} huge pages taken")
        remark = "huge pages of 2 MiB"
        with huge_pages.mounted(os.path.join(folder, "huge")) as path:
            if path:
                run(f"file={path},share=on")
                with open(path, "r+b") as f:
                    ram = mmap.mmap(f.fileno(), 16 << 20)
                    code = ram.find(b"DONE ")
                    ram.close()
                if os.path.getsize(path) != 16 << 20 or code < 0:
                    raise Fail("the guest was not in the file of hugetlbfs")
                run(f"file={path}")
                remark += ", in a file"
    if build.name:      # the host takes seconds to make one
        return remark
    with pools.more(huge_pages.GIB_1, 1) as there:
        if there:
            run("hugepages=1G", size="1G")
            remark += ", of 1 GiB"
    return remark


@contextlib.contextmanager
def idle_guest(build, log, *options):
    """A machine whose guest does nothing."""
    with subprocess.Popen([*build.run, "--kernel", guest("idle", log), *options], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=log, env=environment()) as p:
        try:
            p.stdout.readline()
            yield p
        finally:
            p.kill()


def dump(build, log):
    """QUMRA_DUMP_FRAGMENTS: guest and host instructions, all of which our own decoder knows; and the guest's run is the same."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fragments")
        r = run_process([*build.run, "--kernel", guest("x87", log), "--memory", "64M", "--debug-exit"], 60 * build.slow, log,
                        env=environment(QUMRA_DUMP_FRAGMENTS=path))
        with open(path) as f:
            text = f.read()
    if r.status != 33:
        raise Fail(f"status {r.status}")
    pairs = re.findall(r"^[0-9a-f]{8,16}  mov .*\n\t[0-9a-f]{12}  mov ", text, flags=re.M)
    unknown = re.findall(r"^\t[0-9a-f]{12}  \?$", text, flags=re.M)
    if len(pairs) < 10 or unknown or "\nout of line\n" not in text:
        raise Fail(f"{len(pairs)} moves, {len(unknown)} host instructions are unknown")
    return f"{text.count('guest kernel')} fragments"


# Where it is the engine that decides: how it is stopped, what it costs.
BY_ENGINE = ("cli/statuses", "cli/memory", "cli/reboot", "cli/terminal-after-term", "cli/idle")


# ---- options in a file -----------------------------------------------------------------------------------------


CONFIG = """# a machine
kernel=vmlinuz
append = console=ttyS0 root=/dev/vda quiet
  memory\t1G

cpus 2,cores=2
machine q35,root-ports=2
disk a.img,snapshot
net user
cdrom c.iso,bootindex=3
firmware uefi,vars=variables
display vnc
no-reboot
"""
COMMENTS = (r"# runs on: \S+ \(.*\)", r"# firmware: /usr/share/OVMF/OVMF_CODE\S*", r"# variables: a new file begins as in /usr/share/OVMF/\S*",
            r"# vnc: 127\.0\.0\.1:59\d\d is free now", r"# pci 00:01\.0 vga", r"# pci 00:02\.0 virtio-blk",
            r"# pci 00:03\.0 virtio-blk", r"# pci 00:04\.0 virtio-scsi", r"# pci 00:05\.0 virtio-net", r"# pci 00:06\.0 virtio-net",
            r"# pci 00:07\.0 virtio-rng", r"# pci 00:00\.0 host bridge", r"# pci 00:10\.0 root port", r"# pci 00:11\.0 root port",
            r"# pci 00:1f\.0 LPC bridge")
RESOLVED = (r"kernel vmlinuz", r"machine q35,root-ports=2", r"firmware uefi,vars=variables",
            r"append console=ttyS0 root=/dev/vda quiet", r"memory 2G", r"cpus 2,sockets=1,cores=2,threads=1", r"serial stdio",
            r"# a.img: its format seems to be raw", r"disk a.img,snapshot,cache=writeback,aio=(io_uring|threads),queues=2",
            r"net user,mac=52:54:00:12:34:56,rom=(/.*\.rom|off)",
            r"# c.iso: No such file or directory", r"cdrom c.iso,bootindex=3,cache=writeback,aio=(io_uring|threads)",
            r"disk b.img,queues=1,aio=threads,format=qcow2,cache=writeback",
            r"net tap=tap7,rom=off,mac=(52:54:00(:[0-9a-f][0-9a-f]){3})", r"device rng",
            r"display vnc", r"virtio pci", r"no-reboot")
BAD_CONFIGS = (
    ("memory 1Q\n", r"vm.conf:1: --memory: \"1Q\" is not a size"), ("\n#\nmemroy 1G\n", r"vm.conf:3: unknown option memroy; did you mean"),
    ("no-reboot yes\n", r"vm.conf:1: no-reboot takes no value"), ("kernel\n", r"vm.conf:1: kernel needs a value: FILE"),
    ("config x\n", r"vm.conf:1: config does not belong"), ("kernel a\0b\n", r"vm.conf: that is no text"),
    ("memory 1G\n" * 200000, r"vm.conf: that is no text of at most 1M"), ("rng\n" * 3, r"vm.conf:1: unknown option rng"),
    ("device rng\n" * 200, r"vm.conf:33: there are too many devices"),
)


def without_random(text):
    """An interface's address stays on a host that has a name of its own; a container's image may have none."""
    with contextlib.suppress(OSError), open("/etc/machine-id", encoding="ascii") as f:
        if re.fullmatch("[0-9a-f]{32}\n?", f.read()):
            return text
    return re.sub(rb"(?m)^(net tap.*),mac=.*", rb"\1", text)


def dry_run_of_given(dry, log):
    """Each line as it should be; the same again from its own output; addresses that stay; on other boards other things."""
    words = ("--memory", "2G", "--disk", "b.img,queues=1,aio=threads", "--net", "tap=tap7,rom=off", "--device", "rng")
    r = dry(CONFIG, *words)
    lines = r.out.decode().splitlines()
    if r.status or len(lines) != len(COMMENTS + RESOLVED):
        raise Fail(f"status {r.status}, {len(lines)} lines")
    for line, want in zip(lines, COMMENTS + RESOLVED):
        if not re.fullmatch(want, line):
            raise Fail(f"{line}, not {want}")
    if without_random(dry(CONFIG, *words).out) != without_random(r.out):
        raise Fail("another machine at the next start")
    for text in (r.out.decode(), "kernel x\nappend=\n", "kernel x\nmachine microvm\ndisk a.img\nnet socket=x\ncpus 8\n",
                 "kernel x\nmachine microvm,pcie=on\nvirtio pci\nnet user\nnet user\ncdrom b.img\ndisk a.img,bus=vhost-user\n"):
        once = dry(text).out
        if not once or dry(once.decode()).out != once:
            raise Fail(f"not the same again: {once!r}")
    return once


def dry_run_of_values(dry, folder):
    """What a file cannot say is refused; what looks like a blank, a sign or a name of something else is itself."""
    with open(os.path.join(folder, "c.vmdk"), "wb") as f:
        f.write(b"KDMV" + bytes(4092))
    for words, want in ((["--append", "a\nb"], "--append with a line's end"), (["--append", " a"], "--append with a blank"),
                        (["--disk", "x\ny.img"], "--disk with a line's end"), (["--disk", "a.img\t"], "--disk with a blank")):
        r = dry("kernel x\n", *words)
        if r.status != 2 or r.out or r.err.count(b"\n") != 1 or want not in r.err.decode():
            raise Fail(f"status {r.status}, {r.err!r}, want {want}")
    once = dry("kernel x\n", "--append", "=a =b", "--disk", "file:b.img", "--disk", "file:a.img", "--disk", "c.vmdk", "--disk",
               "nbd://127.0.0.1/x,queues=1,aio=threads", "--cdrom", "=").out.decode()
    for line in ("append==a =b", "disk file:b.img,format=qcow2,cache=.*", "disk file:a.img,cache=.*",
                 "# a.img: its format seems to be raw", "# c.vmdk: its format seems to be vmdk", "disk c.vmdk,cache=.*",
                 "disk nbd://127.0.0.1/x,queues=1,aio=threads,cache=writeback", "cdrom==,cache=.*"):
        if not re.search(f"(?m)^{line}$", once):
            raise Fail(f"no {line} in {once!r}")
    if "# nbd" in once or "format=vmdk" in once or "format=raw" in once or dry(once).out.decode() != once:
        raise Fail(f"not the same again: {once!r}")


def config(build, log):
    """A file is read, the command line goes before it, and what --dry-run prints is such a file again."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vm.conf")
        with open(os.path.join(folder, "a.img"), "wb") as f:
            f.truncate(1 << 20)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", os.path.join(folder, "b.img"), "1M"], check=True)

        def dry(text, *words):
            with open(path, "w", encoding="ascii") as f:
                f.write(text)
            return run_process([*build.run[:2], "--config", path, *words, "--dry-run"], 20 * build.slow, log, cwd=folder)

        last = dry_run_of_given(dry, log).decode()
        for want in ("# pci 00:01.0 virtio-blk", "# pci 00:02.0 virtio-scsi", "# pci 00:03.0 virtio-net", "mac=52:54:00:12:34:57",
                     "cdrom b.img,format=qcow2", "disk a.img,bus=vhost-user,queues=1\n"):
            if want not in last:
                raise Fail(f"no {want}")
        dry_run_of_values(dry, folder)
        for text, want in BAD_CONFIGS:
            r = dry(text)
            if r.status != 2 or r.out or r.err.count(b"\n") != 1 or not re.search(want, r.err.decode()):
                raise Fail(f"status {r.status}, {r.err!r}, want {want}")
    return f"{len(BAD_CONFIGS)} bad ones"


def all_tests(build):
    for name, function, cost in (
            ("bad-kernels", bad_kernels, 10), ("truncated-kernels", truncated_kernels, 10), ("bad-options", bad_options, 10),
            ("bad-devices", bad_device_options, 10),
            ("unwritable", unwritable, 1), ("statuses", statuses, 5), ("piped", piped, 5), ("end-of-input", end_of_input, 1),
            ("serial", serial_places, 5), ("keys", keys, 5), ("accelerator", accelerator, 3), ("memory", memory, 2),
            ("memory-back-ends", memory_back_ends, 3),
            ("reboot", reboot, 2), ("config", config, 3)):
        yield Test(build.test(f"cli/{name}"), lambda log, f=function: f(build, log), cost=cost)
    for name in ("KILL", "TERM", "INT", "HUP", "SEGV", "ABRT"):
        number = getattr(signal, "SIG" + name)
        if build.name and name in ("SEGV", "ABRT"):     # the sanitizers have handlers of their own
            continue
        yield Test(build.test(f"cli/terminal-after-{name.lower()}"),
                   lambda log, n=number: restored_by(build, log, n))
    yield Test(build.test("cli/terminal-after-power-off"), lambda log: restored_after(build, log, b"q", 0))
    yield Test(build.test("cli/terminal-after-crash"), lambda log: restored_after(build, log, b"t", 3))
    if not build.name:
        yield Test("cli/dump", lambda log: dump(build, log))
    yield Test(build.test("cli/idle"), lambda log: idle(build, log), alone=True)


def tests(build):
    for k, b in enumerate(build.variants()):
        yield from (t for t in all_tests(b) if k == 0 or t.name.split("@")[0] in BY_ENGINE)

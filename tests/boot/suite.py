"""Debian's own kernels, unmodified, from the first instruction to power-off."""
import hashlib
import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types

from harness import (GUEST_FILES, ROOT, Fail, Missing, Test, environment, kill_group, need_qumra, run_process,
                     script_output)

HERE = os.path.join(ROOT, "tests", "boot")
sys.path.append(HERE)
import vmgenid  # noqa: E402

KERNELS = {     # name: (package, architecture)
    "cloud-amd64": ("linux-image-cloud-amd64", "amd64"),
    "amd64": ("linux-image-amd64", "amd64"),
    "686": ("linux-image-686", "i386"),
    "686-pae": ("linux-image-686-pae", "i386"),
}
# What a healthy kernel never says.
BAD = re.compile(r"(?-i:\bBUG\b|WARNING|Oops)|\bunstable\b|spurious|\blost\b|self-?tests? fail|alternatives:.*fail"
                 r"|rcu.*stall|Call Trace|soft lockup|hung task|general protection|segfault|NMI received"
                 r"|No irq handler|nobody cared|[Ff]irmware [Bb]ug|ACPI.*Error|failed to (?:calibrate|set up)"
                 r"|Fast TSC calibration failed|unchecked MSR|invalid opcode|divide error|trap .* ip:"
                 r"|can't claim|no compatible bridge|BAR \d+: (?:failed|no space)|MMCONFIG .*not reserved|(?-i:\bAE_)"
                 r"|time went backwards|Clocksource .* skewed|Unable to|not functional|timer doesn't work", re.I)
fetch_lock = threading.Lock()


def known():
    """Lines that the same kernel prints on QEMU and on real machines too, with the reason in the file."""
    with open(os.path.join(HERE, "known-lines")) as f:
        return [re.compile(line.split("  #")[0].strip()) for line in f if line.strip() and not line.startswith("#")]


def test_initramfs(arch):
    out = os.path.join(GUEST_FILES, f"test-{arch}.cpio")
    sources = [os.path.join(HERE, "init"), os.path.join(ROOT, "scripts", "make-initramfs"), __file__]
    busybox = script_output("scripts/fetch-busybox", arch)
    if os.path.exists(out) and all(os.path.getmtime(s) < os.path.getmtime(out) for s in sources):
        return out
    base = os.path.join(GUEST_FILES, f"test-{arch}")
    # Half noise, half text, so that gzip has both to do.
    noise = random.Random(1)
    data = noise.randbytes(64 << 10) + b"".join(b"line %d of the data\n" % (i % 977) for i in range(3500))
    number = 0.0
    for i in range(1, 500):
        number = number / 1.01 + i * 3.7 / (i + 0.3)
    for name, content in (("data", data), ("sha256", (hashlib.sha256(data).hexdigest() + "  /data\n").encode()),
                          ("float", f"{number:.6f}\n".encode())):
        with open(f"{base}.{name}", "wb") as f:
            f.write(content)
    script_output("scripts/make-initramfs", out, busybox, os.path.join(HERE, "init"), f"data={base}.data",
                  f"data.sha256={base}.sha256", f"float={base}.float")
    return out


def files(name):
    package, arch = KERNELS[name]
    with fetch_lock:
        return script_output("scripts/fetch-kernel", package, arch), test_initramfs(arch)


# OVMF leaves a network card's ROM where no bridge has a window, under any hypervisor.
OVMF_ROM = re.compile(r"ROM \[mem .*\]: can't claim; no compatible bridge window")
# TCG's PIT is served by another thread of a host that runs other tests too: Linux's calibration then gives up.
TCG_CLOCK = re.compile(r"tsc: (Fast TSC calibration failed|Unable to calibrate against PIT)")

# An HPET's interrupts come when the host has time for them, QEMU's and ours.
HPET_LATE = re.compile(r"hpet: Lost \d+ RTC interrupts")


def judge(r, limit, clocks, excused=()):
    text = r.out.decode(errors="replace").replace("\r", "")
    if r.timed_out:
        last = text.strip().splitlines()[-1:] or ["nothing printed"]
        raise Fail(f"no end within {limit:.0f} s; last: {last[0][:120]}")
    if r.status:
        raise Fail(f"status {r.status}")
    init = re.search(r"^INIT (\S+) (\S+) ([\d.]+)$", text, re.M)
    log = re.search(r"^DMESG BEGIN$(.*)^DMESG END$", text, re.M | re.S)
    if not init or not log:
        raise Fail("init did not report")
    bad = re.findall(r"^CHECK BAD (.*)$", text, re.M)
    if bad:
        raise Fail("checks: " + ", ".join(bad))
    if len(re.findall(r"^CHECK ok", text, re.M)) != 11:
        raise Fail("not all checks ran")
    allowed = [*known(), *excused]
    # Console lines behind the dump (power-off) count too.
    lines = [line for line in (log[1] + text[log.end():]).splitlines() if BAD.search(line)]
    lines = [line for line in lines if not any(k.search(line) for k in allowed)]
    if lines:
        raise Fail(f"{len(lines)} lines of dmesg, first: {lines[0].strip()[:160]}")
    clock = re.search(r"^CLOCKSOURCE (\S+)$", text, re.M)[1]
    if clock not in clocks:
        raise Fail(f"clocksource {clock}")
    return f"{init[1]}, init after {init[3]} s of guest time, {clock}"


# What the guest finds on PCI, by itself and in configuration space: the chipset.
CHIPSET = ("0000:00:00.0 0x8086 0x29c0 0x060000 8680c029", "0000:00:1f.0 0x8086 0x2918 0x060100 86801829")


PORTS = ("0000:00:10.0 0x1b36 0x000c 0x060400 361b0c00", "0000:00:11.0 0x1b36 0x000c 0x060400 361b0c00")


def judge_pci(r, firmware):
    lines = re.findall(r"^PCI (.*)$", r.out.decode(errors="replace").replace("\r", ""), re.M)
    missing = [line for line in CHIPSET + (PORTS if firmware else ()) if line not in lines]
    if missing:
        raise Fail(f"not on PCI: {missing[0]}")
    # Firmware hands on what SMBIOS says of the machine; a kernel that is loaded directly has none.
    want = {None: "FIRMWARE ,", "bios": "FIRMWARE Qumra,", "uefi": "FIRMWARE Qumra,efi"}[firmware]
    if want not in lines:
        raise Fail(f"firmware: {[line for line in lines if line.startswith('FIRMWARE')]}")


def numbers(text):
    """Of a list as the kernel writes it: 0-3,8."""
    ends = [part.split("-") for part in text.split(",")]
    return {n for e in ends for n in range(int(e[0]), int(e[-1]) + 1)}


def judge_shape(out, sockets, cores, threads):
    """What the guest makes of CPUID: which CPUs share a core, a socket, the first cache and the last."""
    rows = re.findall(r"^SIBLINGS cpu(\d+)/topology/(thread|core)_siblings_list:(\S+)$", out, re.M)
    if len(rows) != 2 * sockets * cores * threads:
        raise Fail(f"{len(rows)} lists of CPUs in /sys")
    for number, kind, shared in rows:
        size = threads if kind == "thread" else cores * threads
        first = int(number) // size * size
        if numbers(shared) != set(range(first, first + size)):
            raise Fail(f"CPU {number}'s {kind}_siblings are {shared}")
    caches = {int(level): numbers(shared) for level, shared in re.findall(r"^CACHE (\d) (\S+)$", out, re.M)}
    for level, size in ((1, threads), (3, cores * threads)):
        if caches.get(level, set(range(size))) != set(range(size)):
            raise Fail(f"the cache of level {level} is shared by {caches[level]}")


# RAM with as much above 4 GiB as below: the firmware, the loader and the kernel's DMA have to know of it.
HIGH_MEMORY = 5 << 30


def judge_memory(out, memory):
    total = int(re.search(r"^MEMORY (\d+)$", out, re.M)[1]) << 10
    if not memory * 0.85 < total <= memory:
        raise Fail(f"{total >> 20} MiB of memory")
    high = re.search(r"^HIGH (\d+) (\d+)$", out, re.M)
    if memory >= HIGH_MEMORY and (not high or int(high[1]) << 12 != 4 << 30 or int(high[2]) << 12 < 16 << 20):
        raise Fail(f"nothing in use above 4 GiB: {high and high[0]}")


def on_qumra(build, name, log, cpus=1, firmware=None, memory=512 << 20, shape=None):
    need_qumra(build)
    kernel, initrd = files(name)
    limit = 240 * build.slow
    words = shape and "".join(f",{k}={n}" for k, n in zip(("sockets", "cores", "threads"), shape))
    r = run_process([*build.run, "--kernel", kernel, "--initrd", initrd,
                     "--memory", f"{memory >> 20}M", "--serial", "stdio", "--cpus", f"{cpus}{words or ''}",
                     *(["--firmware", firmware, "--machine", "q35,root-ports=2"] if firmware else []),
                     "--append", f"console=ttyS0 panic=-1 cpus={cpus}", "--stats"], limit, log)
    remark = judge(r, limit, ("kvm-clock", "tsc", "tsc-early"))
    judge_pci(r, firmware)
    judge_memory(out := r.out.decode(errors="replace").replace("\r", ""), memory)
    judge_shape(out, *(shape or (1, cpus, 1)))
    rss = [int(re.search(rb"^%s (\d+)$" % key, r.err, re.M)[1]) for key in (b"max_rss_kib", b"guest_rss_kib")]
    beyond = (rss[0] - rss[1]) / 1024
    # The interpreter keeps little; the translator a code cache and tables for each CPU.
    most = 16 if build.engine == "interp" else 96 + 64 * (cpus - 1)
    if beyond > most and not build.name:
        raise Fail(f"{beyond:.1f} MiB resident beyond the guest's RAM")
    return f"{remark}, {beyond:.1f} MiB beyond its RAM"


# A busy host held up QEMU while Linux looked for ten ticks: that says nothing of its init.
TCG_NO_TICKS = b"IO-APIC + timer doesn't work"


def on_qemu(name, log):
    kernel, initrd = files(name)
    try:
        for _ in range(3):
            r = run_process(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none",
                             "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
                             "-append", "console=ttyS0 panic=-1"], 240, log)
            if TCG_NO_TICKS not in r.out:
                break
    except FileNotFoundError:
        raise Missing("no QEMU") from None
    return judge(r, 240, ("tsc", "tsc-early", "acpi_pm", "hpet", "refined-jiffies", "kvm-clock"), (TCG_CLOCK, HPET_LATE))


def microvm(build, log, cpus=1, more=""):
    """The board without probing: to init and through power-off; what was not asked for is not there."""
    need_qumra(build)
    kernel, initrd = files("cloud-amd64")
    limit = 240 * build.slow
    r = run_process([*build.run, "--machine", "microvm" + more, "--kernel", kernel, "--initrd", initrd, "--memory", "256M",
                     "--cpus", str(cpus), "--append",
                     f"console=ttyS0 panic=-1 cpus={cpus} {'' if more else 'cmos=none'}"], limit, log)
    remark = judge(r, limit, ("kvm-clock", "tsc", "tsc-early"))
    found = re.findall(r"^PCI (0.*)$", r.out.decode(errors="replace").replace("\r", ""), re.M)
    want = ["0000:00:00.0 0x1b36 0x0008 0x060000 361b0800"] if more else []
    if found != want:
        raise Fail(f"on PCI: {found}")
    return remark


def numa(build, log, *more):
    """Two nodes as they were asked for, and how far they are; a node is a socket of two cores of two threads."""
    need_qumra(build)
    kernel, initrd = files("cloud-amd64")
    limit = 240 * build.slow
    r = run_process([*build.run, *more, "--kernel", kernel, "--initrd", initrd, "--cpus", "8,sockets=2,cores=2,threads=2",
                     "--memory", "512M",
                     "--numa", "cpus=0-3,memory=192M,distances=10:31", "--numa", "cpus=4-7,memory=320M,distances=31:10",
                     "--append", "console=ttyS0 panic=-1 cpus=8"], limit, log)
    judge(r, limit, ("kvm-clock", "tsc", "tsc-early"))
    out = r.out.decode(errors="replace").replace("\r", "")
    for want in ("SRAT: Node 0 PXM 0 [mem 0x00000000-0x0bffffff]", "SRAT: Node 1 PXM 1 [mem 0x0c000000-0x1fffffff]",
                 "Brought up 2 nodes, 8 CPUs", "NODE node0 0-3 10 31", "NODE node1 4-7 31 10"):
        if want not in out:
            raise Fail(f"not said: {want}")
    judge_shape(out, 2, 2, 2)


def hpet(build, log):
    """Linux keeps time and ticks by the HPET, which has the i8254's line: 250 in a second, of which an idle CPU leaves out some."""
    need_qumra(build)
    kernel, initrd = files("cloud-amd64")
    limit = 240 * build.slow
    r = run_process([*build.run, "--machine", "q35,hpet=on", "--kernel", kernel, "--initrd", initrd,
                     "--append", "console=ttyS0 panic=-1 clocksource=hpet nolapic_timer"], limit, log)
    remark = judge(r, limit, ("hpet",), (HPET_LATE,))
    up = float(re.search(r"init after ([\d.]+) s", remark)[1])
    ticks = re.search(rb"^INTERRUPTS +0: +(\d+) +IO-APIC +2-edge +timer", r.out.replace(b"\r", b""), re.M)
    if not ticks or int(ticks[1]) < 125 * up or b"hpet0: 3 comparators, 64-bit 100.000000 MHz counter" not in r.out:
        raise Fail(f"ticks: {ticks and ticks[1]} in {up} s")
    return remark


def microvm_reboot(build, log, append=""):
    """By the reset vector, by ACPI's register, and without ACPI by the keyboard controller's line."""
    kernel, _ = files("cloud-amd64")
    until([*build.run, "--machine", "microvm", "--kernel", kernel, "--append", f"console=ttyS0 panic=1 {append}"],
          rb"(?s)Linux version.*Kernel panic.*Linux version.*Kernel panic", 120 * build.slow, log)


def seconds_to_init(command, log):
    start = time.monotonic()
    until(command, rb"INIT \S+ \S+ ", 120, log)
    return time.monotonic() - start


def microvm_start(build, log):
    """From the start of the program to init: at most half of what QEMU's microvm takes on TCG, the best of three."""
    kernel, initrd = files("cloud-amd64")
    append = ["-append", "console=ttyS0 panic=-1"]
    ours = [*build.run, "--machine", "microvm", "--kernel", kernel, "--initrd", initrd, "--memory", "512M", *append]
    # With ACPI it has no timer that Linux finds under TCG.
    qemu = ["qemu-system-x86_64", "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none",
            "-nodefaults", "-no-user-config", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd, *append]
    try:
        pairs = [(seconds_to_init(ours, log), seconds_to_init(qemu, log)) for _ in range(3)]
    except FileNotFoundError:
        raise Missing("no QEMU") from None
    ours, qemu = (min(p[i] for p in pairs) for i in (0, 1))
    if ours > qemu / 2:
        raise Fail(f"{ours:.2f} s, QEMU {qemu:.2f} s")
    return f"{ours:.2f} s, QEMU {qemu:.2f} s: {ours / qemu:.2f}"


def until(command, pattern, limit, log):
    """Runs a machine until its serial port or standard error shows the pattern, then ends it."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment(), start_new_session=True) as process:
        os.set_blocking(process.stdout.fileno(), False)
        text, end = b"", time.monotonic() + limit
        while not re.search(pattern, text) and time.monotonic() < end and process.poll() is None:
            select.select([process.stdout], [], [], 0.5)
            text += process.stdout.read() or b""
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            kill_group(process)
        text += process.stdout.read() or b""
    log.write(text)
    if not re.search(pattern, text):
        raise Fail(f"within {limit:.0f} s nothing like {pattern}")
    return text


def bios_alone(build, log):
    """SeaBIOS lists what is on PCI, finds nothing to boot, and says so on the serial port."""
    text = until([*build.run, "--firmware", "bios,log", "--cpus", "2"], rb"(?s)No bootable device.*No bootable device",
                 60 * build.slow, log)
    for want in (rb"Found 2 PCI devices", rb"bdf=00:00.0 id=8086:29c0", rb"bdf=00:1f.0 id=8086:2918",
                 rb"using q35 mmconfig at 0xb0000000", rb"Found 2 cpu\(s\)", rb"fw_cfg DMA interface supported"):
        if not re.search(want, text):
            raise Fail(f"SeaBIOS does not say {want.decode()}")


def bios_reboot(build, log):
    """A kernel that panics without a root file system reboots the machine, which starts with its firmware again."""
    kernel, _ = files("cloud-amd64")
    until([*build.run, "--firmware", "bios", "--kernel", kernel, "--append", "console=ttyS0 panic=1"],
          rb"(?s)Linux version.*Kernel panic.*SeaBIOS.*Linux version", 120 * build.slow, log)


class Shell:
    """OVMF's shell on the serial port."""

    def __init__(self, build, variables, log, cpus="1"):
        self.log, self.limit = log, 120 * build.slow
        self.process = subprocess.Popen([*build.run, "--firmware", f"uefi,vars={variables}", "--cpus", cpus],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env=environment(), start_new_session=True)
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        self.hear(rb"Shell>")
        return self

    def __exit__(self, *_):
        kill_group(self.process)
        self.process.wait()

    def hear(self, pattern):
        """What was said, up to the pattern or more."""
        text, end = b"", time.monotonic() + self.limit
        while not re.search(pattern, text):
            if time.monotonic() > end or self.process.poll() is not None and not text:
                raise Fail(f"nothing like {pattern}: {text[-200:]!r}")
            select.select([self.process.stdout], [], [], 0.5)
            new = self.process.stdout.read() or b""
            self.log.write(new)
            text += new
        return text

    def say(self, line, pattern=rb"Shell>"):
        os.write(self.process.stdin.fileno(), line.encode() + b"\r")
        return self.hear(pattern)

    def set(self, name, value, pattern=rb"Shell>"):
        self.say(f'setvar {name} -guid {VARIABLE} -nv -bs =S"{value}"', pattern)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.hear(rb"written now")
        self.process.wait(30)


VARIABLE = "c2ac9d0b-0c11-4f5a-b9f1-7c1f0f0d8a11"


def uefi_shell(build, log):
    """What a guest sets is there at the next start, too, with more CPUs, even if the file could not be written for a while."""
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "vars")
        with Shell(build, path, log) as shell:
            shell.set("Early", "killed")
        with open(path, "rb") as f:
            if "BootOrder".encode("utf-16-le") not in f.read():
                raise Fail("no BootOrder in the file")
        with Shell(build, path, log, "4") as shell:
            if b"6B 69 6C 6C 65 64" not in shell.say(f"setvar Early -guid {VARIABLE}"):
                raise Fail("a variable is lost")
            before = resource.prlimit(shell.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(shell.process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
            shell.set("Late", "retried", rb"(?s)cannot be written: File too large.*Shell>")
            resource.prlimit(shell.process.pid, resource.RLIMIT_FSIZE, before)
            shell.end()
        with open(path, "rb") as f:
            if b"retried" not in f.read():
                raise Fail("what could not be written was not written at the end")


# A boot takes a minute: the default engine boots all kernels, others (and sanitizers) one of each word size.
FEW = {"": ("cloud-amd64", "686"), "asan": ("cloud-amd64",)}
# Of these the default boots with so many CPUs, what runs with the sanitizers with one; of the cloud's see boot/bios-4-cpus.
SEVERAL = {"amd64": 4, "686": 4, "686-pae": 4}


def tests(build):
    for name in KERNELS:
        for k, b in enumerate(build.variants()):
            if k == 0 or name in FEW[build.name]:
                cpus = SEVERAL.get(name, 1) if k == 0 and not b.name else 1
                yield Test(b.test(f"boot/{name}"), lambda log, b=b, n=name, c=cpus: on_qumra(b, n, log, c), cost=100 * b.slow)
    for k, b in enumerate(build.variants()):
        slow = 3 if k else 1
        yield Test(b.test("boot/bios-alone"), lambda log, b=b: bios_alone(b, log), cost=10 * b.slow)
        if k == 0:
            yield Test(b.test("boot/bios-reboot"), lambda log, b=b: bios_reboot(b, log), cost=20 * b.slow)
        if k == 0 or not b.name:
            memory = 512 << 20 if k else HIGH_MEMORY
            yield Test(b.test("boot/bios"), lambda log, b=b, m=memory: on_qumra(b, "cloud-amd64", log, 1, "bios", m),
                       cost=50 * b.slow * slow)
        if k == 0:
            yield Test(b.test("boot/bios-4-cpus"), lambda log, b=b: on_qumra(b, "cloud-amd64", log, 4, "bios"),
                       cost=80 * b.slow)
            yield Test(b.test("boot/uefi"), lambda log, b=b: on_qumra(b, "cloud-amd64", log, firmware="uefi", memory=HIGH_MEMORY),
                       cost=80 * b.slow)
            yield Test(b.test("boot/uefi-shell"), lambda log, b=b: uefi_shell(b, log), cost=40 * b.slow)
        if k == 0:
            yield Test(b.test("boot/numa"), lambda log, b=b: numa(b, log), cost=60 * b.slow)
            yield Test(b.test("boot/hpet"), lambda log, b=b: hpet(b, log), cost=60 * b.slow)
        yield Test(b.test("boot/microvm"), lambda log, b=b: microvm(b, log), cost=60 * b.slow * slow)
        if k == 0:
            yield Test(b.test("boot/microvm-4-cpus"), lambda log, b=b: microvm(b, log, 4, ",rtc=on,pcie=on"), cost=60 * b.slow)
        if k == 0 and not b.name:
            yield Test("boot/numa-bios", lambda log, b=b: numa(b, log, "--firmware", "bios"), cost=60)
            yield Test("boot/64-cpus", lambda log, b=b: on_qumra(b, "cloud-amd64", log, 64, "bios", 1 << 30, (2, 16, 2)), cost=80)
            yield Test("boot/microvm-reboot", lambda log, b=b: microvm_reboot(b, log), cost=20)
            yield Test("boot/microvm-reboot-register", lambda log, b=b: microvm_reboot(b, log, "reboot=acpi"), cost=20)
            yield Test("boot/microvm-reboot-no-acpi", lambda log, b=b: microvm_reboot(b, log, "acpi=off"), cost=30)
            yield Test("boot/microvm-start", lambda log, b=b: microvm_start(b, log), alone=True, cost=60)
    yield from vmgenid.tests(build, types.SimpleNamespace(fetch_lock=fetch_lock, known=known, BAD=BAD))
    for name in KERNELS:
        if not build.name:
            yield Test(f"boot-qemu/{name}", lambda log, n=name: on_qemu(n, log), cost=20)

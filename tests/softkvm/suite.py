"""softkvm: unmodified programs on our hypervisor, and what softkvm says where it cannot help."""
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

from harness import ROOT, Fail, Missing, Skip, Test, environment, run_process, script_output

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from qemu_guest import Qemu  # noqa: E402

spec = importlib.util.spec_from_file_location("boot_suite", os.path.join(ROOT, "tests", "boot", "suite.py"))
boot_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(boot_suite)

CLOCKS = ("kvm-clock", "tsc", "tsc-early")
# QEMU's machine, its irqchip, CPUs. Without an irqchip of the hypervisor's, Debian 12's QEMU hangs with more than one CPU
# (its APs spin on a SIPI that it never takes back), on any KVM; and Linux must not be shown an interrupt for asynchronous
# page faults, as KVM refuses its MSR then and QEMU does not look.
MACHINES = (    # cost a boot each
    ("pc", "on", 1, "qemu64"), ("pc", "off", 1, "qemu64"), ("pc", "on", 4, "host,migratable=off"), ("q35", "on", 2, "qemu64"),
    ("q35", "off", 1, "host,kvm-asyncpf-int=off"), ("q35", "on", 1, "Skylake-Client"), ("microvm", "on", 2, "host"),
    ("q35", "split", 2, "host"), ("microvm", "split", 1, "qemu64"))
# What QEMU 7.2's CPUs lack on AMD's processors, on any KVM: an invariant TSC (unless migratable=off), and the leaf that
# says SRSO_NO.
QEMU_CPU = re.compile("Marking TSC unstable due to TSCs unsynchronized|Speculative Return Stack Overflow: WARNING")


def softkvm(build, *args):
    path = os.path.join(build.path, "softkvm")
    if not os.path.exists(path):
        raise Fail(f"{path} is not built")
    return [path, *(["--engine", build.engine] if build.engine else []), *args]


def preloaded(build):
    """The library has its sanitizer with it, which then is not the first of the program's libraries."""
    return environment(ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=0:exitcode=99:use_sigaltstack=0") if build.name else None


def built_test(build, *path):
    path = os.path.join(build.path, "tests", *path)
    if not os.path.exists(path):
        raise Missing("the tests' libraries are not installed")
    return path


# ---- programs of ours that know only /dev/kvm ----------------------------------------------------------------------


def client(build, log):
    r = run_process(softkvm(build, built_test(build, "softkvm", "softkvm-client")), 120 * build.slow, log,
                    env=preloaded(build))
    bad = re.findall(rb"^FAIL (.*)$", r.out, re.M)
    if r.status or bad:
        raise Fail(f"status {r.status}: {b', '.join(bad).decode()}")
    return r.out.decode().strip().splitlines()[-1]


def client_on_host(build, log):
    """The oracle: what the program expects is what a kernel does."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no /dev/kvm")
    r = run_process([built_test(build, "softkvm", "softkvm-client")], 300, log)
    if r.status:
        raise Fail(f"status {r.status}")


def api(build, log):
    """All tests of the API once more, by system calls."""
    r = run_process(softkvm(build, built_test(build, "api", "api-test"), "softkvm"), 120 * build.slow, log,
                    env=preloaded(build))
    if r.status:
        raise Fail(f"status {r.status}")
    if b"SKIPPED" in r.err + r.out:
        raise Fail("a test was skipped")


def as_nobody(command):
    if os.getuid():
        return command
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]


def reachable_by_nobody(build):
    return not os.getuid() or not subprocess.run(as_nobody(["test", "-x", os.path.join(build.path, "softkvm")]),
                                                 check=False).returncode


def bare(build, command, *files):
    """The command as an ordinary user's, and no device node at all."""
    if os.getuid():
        raise Skip("only root takes the node away")
    if not reachable_by_nobody(build) or any(subprocess.run(as_nobody(["test", "-r", f]), check=False).returncode for f in files):
        raise Skip("other users cannot reach the build")
    inner = "mount -t tmpfs none /dev && for d in null:3 urandom:9; do mknod -m 666 /dev/${d%:*} c 1 ${d#*:} || exit 1; done"
    return ["unshare", "-m", "sh", "-c", inner + ' && test ! -e /dev/kvm && exec "$@"', "sh", *as_nobody(command)]


def without_device(build, log):
    r = run_process(bare(build, softkvm(build, built_test(build, "softkvm", "softkvm-client"))), 120 * build.slow, log)
    if r.status:
        raise Fail(f"status {r.status}")


# ---- whole machines ------------------------------------------------------------------------------------------------


def own_vmm(build, log):
    """Our VMM by real system calls."""
    kernel, initrd = boot_suite.files("cloud-amd64")
    limit = 240 * build.slow
    r = run_process(softkvm(build, build.qumra, "run", "--accel", "kvm", "--kernel", kernel, "--initrd", initrd, "--cpus", "2",
                            "--append", "console=ttyS0 panic=-1 cpus=2"), limit, log, env=preloaded(build))
    return boot_suite.judge(r, limit, CLOCKS)


def qemu(build, machine, irqchip, cpus, cpu, log, wrapped=lambda build, command, *files: command):
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("no QEMU")
    kernel, initrd = boot_suite.files("cloud-amd64")
    chips = f"{machine},kernel-irqchip={irqchip}{',rtc=on' if machine == 'microvm' else ''}"
    command = softkvm(build, "qemu-system-x86_64", "-accel", "kvm", "-machine", chips, "-cpu", cpu, "-smp", str(cpus),
                      "-m", "512", "-display", "none", "-nodefaults", "-no-user-config", "-serial", "stdio", "-no-reboot",
                      "-kernel", kernel, "-initrd", initrd, "-append", f"console=ttyS0 panic=-1 cpus={cpus}")
    r = run_process(wrapped(build, command, kernel, initrd), 240, log)
    return boot_suite.judge(r, 240, (*CLOCKS, "hpet", "acpi_pm"), (QEMU_CPU, boot_suite.HPET_LATE))


def qemu_without_device(build, log):
    return qemu(build, "microvm", "on", 1, "qemu64", log, bare)


SHELL = b"\x1b[6n"      # ash asks the terminal for its cursor behind each prompt


def shell_initramfs():
    out = os.path.join(boot_suite.GUEST_FILES, "softkvm-shell.cpio")
    with boot_suite.fetch_lock:
        busybox = script_output("scripts/fetch-busybox", "amd64")
        if not os.path.exists(out):
            script_output("scripts/make-initramfs", out, busybox, "scripts/init-shell")
    return out


def migration(build, machine, cpus, log):
    """A busy guest moves to another QEMU, and is reset and rebooted there."""
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("no QEMU")
    kernel, _ = boot_suite.files("cloud-amd64")
    initrd = shell_initramfs()
    command = softkvm(build, "qemu-system-x86_64", "-accel", "kvm", "-machine", machine, "-smp", str(cpus), "-m", "256",
                      "-display", "none", "-nodefaults", "-no-user-config", "-kernel", kernel, "-initrd", initrd,
                      "-append", "console=ttyS0 panic=-1 quiet")
    with tempfile.TemporaryDirectory() as folder:
        state = os.path.join(folder, "state")
        with Qemu(command, folder, "from", log) as q:
            q.expect(SHELL)
            q.type("x=41; (while :; do :; done) & echo busy$((1+1))")
            q.expect(b"busy2")
            q.command("stop")
            q.command("cont")
            q.command(f'migrate "exec:cat > {state}"')
            q.wait_for("info migrate", "completed")
        with Qemu([*command, "-incoming", f"exec:cat {state}"], folder, "to", log) as q:
            q.wait_for("info status", "running")
            q.type("echo; echo here$((x+1)); sleep 0.2; echo slept$((x+2))")
            q.expect(b"here42")
            q.expect(b"slept43")
            q.command("system_reset")
            q.expect(SHELL)
            q.type("echo b > /proc/sysrq-trigger")
            q.expect(SHELL)
            q.type("poweroff -f")
            if q.process.wait(60):
                raise Fail(f"status {q.process.returncode}")


# ---- the command ---------------------------------------------------------------------------------------------------


class Command:
    """Runs softkvm and remembers what is wrong."""

    def __init__(self, build, log):
        self.build, self.log, self.problems = build, log, []

    def expect(self, name, args, status, pattern, lines=None, before=(), **env):
        r = run_process([*before, *softkvm(self.build), *args], 60, self.log, env=environment(**env) if env else None)
        text = (r.err + r.out).decode(errors="replace")
        if r.status != status:
            self.problems.append(f"{name}: status {r.status}, not {status}")
        elif pattern and not re.search(pattern, text):
            self.problems.append(f"{name}: does not say {pattern}")
        elif lines is not None and len(text.splitlines()) != lines:
            self.problems.append(f"{name}: {len(text.splitlines())} lines")

    def verdict(self):
        for p in self.problems:
            self.log.write(f"FAIL {p}\n".encode())
        if self.problems:
            raise Fail(f"{len(self.problems)}, first: {self.problems[0]}")


def script(folder, name, text, mode=0o755):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def elf(folder, name, bits):
    """The head of a program that asks for no loader, as static ones do not: enough to be refused."""
    wide = bits == 64
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", 2, 62 if wide else 3, 1, 0x400000, 64 if wide else 52, 0,
                       0, 64 if wide else 52, 56 if wide else 32, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 4096) if wide else \
        struct.pack("<IIIIIIII", 1, 0, 0x400000, 0x400000, 4096, 4096, 5, 4096)
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write((ident + head + load).ljust(4096, b"\0"))
    os.chmod(path, 0o755)
    return path


def setuid(build, log):
    if os.getuid():
        raise Skip("only root makes a program that is another user's")
    if not reachable_by_nobody(build):
        raise Skip("other users cannot reach the build")
    c = Command(build, log)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        plain = shutil.copy(shutil.which("true"), folder)
        for mode in (0o4755, 0o2755):
            os.chmod(plain, mode)
            c.expect(f"mode {mode:o}", [plain], 126, "setuid.*copy", 1, before=as_nobody([]))
    c.verdict()


def refusals(build, log):
    c = Command(build, log)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        static, narrow = elf(folder, "static", 64), elf(folder, "narrow", 32)
        c.expect("a program", ["sh", "-c", "exit 7"], 7, "", 0)
        c.expect("missing, by PATH", ["no-such-program-here"], 127, "no program no-such-program-here.*installed", 1)
        c.expect("missing, by path", [folder + "/nothing"], 127, "No such file", 1)
        c.expect("a folder", [folder], 126, "cannot be executed", 1)
        c.expect("not executable", [script(folder, "data", "text", 0o644)], 126, "cannot be executed", 1)
        c.expect("text", [script(folder, "text", "text")], 126, "neither a program", 1)
        c.expect("a script", [script(folder, "script", "#!/bin/sh\nexit 9\n")], 9, "", 0)
        c.expect("a script of nothing", [script(folder, "lost", "#!/no/such/shell\n")], 126, "is not there", 1)
        c.expect("cut ELF", [script(folder, "cut", "\x7fELF")], 126, "neither a program", 1)
        c.expect("static", [static], 126, "statically linked.*use a dynamically linked build", 1)
        c.expect("a script of a static one", [script(folder, "by", f"#!{static}\n")], 126, "statically linked", 1)
        c.expect("32 bits", [narrow], 126, "no 64-bit x86 program", 1)
    c.verdict()


CHECK = re.compile(r"""\Ahardware /dev/kvm: (yes|no) \([a-z-]+: .+\)
page-table-based /dev/kvm: (yes, but it emulates .+|no)
softkvm: yes, in software
best here: (/dev/kvm, without softkvm|softkvm)
\Z""")


def options(build, log):
    c = Command(build, log)
    c.expect("--help", ["--help"], 0, "(?s)Usage: softkvm.*--trace.*Examples:")
    c.expect("--version", ["--version"], 0, r"^softkvm \d", 1)
    c.expect("--check", ["--check"], 0, CHECK, 4)
    c.expect("nothing", [], 2, "which program", 1)
    c.expect("a wrong option", ["--stat", "true"], 2, "did you mean --stats", 1)
    c.expect("a wrong engine", ["--engine", "tcg", "true"], 2, "dbt and interp", 1)
    c.expect("a wrong kind", ["--trace=exits,foo", "true"], 2, '"foo" is none of', 1)
    c.expect("no value", ["--trace"], 2, "needs a value", 1)
    c.expect("a value too many", ["--stats=1", "true"], 2, "takes no value", 1)
    c.expect("options behind --", ["--", "true", "--stats"], 0, "", 0)
    c.expect("options of the program", ["sh", "-c", "exit 3", "--help"], 3, "", 0)
    c.expect("LD_PRELOAD of others stays", ["sh", "-c", "echo $LD_PRELOAD"], 0, "libsoftkvm.so:/no/such.so",
             LD_PRELOAD="/no/such.so")
    c.verdict()


def figures(build, log):
    """--stats and --trace of a small program."""
    program = built_test(build, "softkvm", "softkvm-client")
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        r = run_process(softkvm(build, "--stats", "--trace=exits,fds,memory,ioctls", "--trace-file", trace,
                                os.path.join(build.path, "tests", "api", "api-test"), "softkvm", "test_line_and_msi"), 60, log)
        with open(trace) as f:
            text = f.read()
        r2 = run_process(softkvm(build, "--trace=fds", program, "copies"), 60, log)
    if r.status or r2.status:
        raise Fail(f"status {r.status}, {r2.status}")
    for want in ("KVM_EXIT_IO [1-9]", "KVM_RUN [1-9]", "vcpus [1-9]", "halts [1-9]", "KVM_CREATE_VCPU [1-9]"):
        if not re.search(f"^{want}".encode(), r.err, re.M):
            raise Fail(f"--stats does not say {want}")
    for want in (r"exits: vcpu fd \d+: out port 0x99, 1 bytes times 1: 0x\d+$", r"memory: slot 0 .*: 0, 0x20000 bytes",
                 r"ioctls: fd \d+: KVM_CREATE_VM, 0 = \d+$", r"fds: open /dev/kvm = \d+$"):
        if not re.search(want, text, re.M):
            raise Fail(f"--trace does not say {want}")
    if not re.search(rb"fds: dup \d+ = 200$", r2.err, re.M):
        raise Fail("--trace does not say it on standard error")


# A test of the API, and what --trace=irq says of it, with nothing else.
IRQ_LINES = (
    ("test_line_and_msi", r"gsi 3 = 1"), ("test_line_and_msi", r"msi address 0xfee00000 data 0x51"),
    ("test_interrupt", r"vcpu fd \d+: vector 0x21"), ("test_many_nmis", r"vcpu fd \d+: NMI"),
    ("test_handler_state", r"vcpu fd \d+: SMI"), ("test_deassign", r"irqfd \d+ gsi \d+ flags 0 = 0"),
    ("test_deassign", r"irqfd \d+ no longer gsi \d+ flags 0x1 = 0"),
)
ALL_KINDS = ("exits", "irq", "memory", "ioctls", "fds")


def traced(build, kinds, test, log):
    api_test = built_test(build, "api", "api-test")
    r = run_process(softkvm(build, f"--trace={kinds}", api_test, "softkvm", test), 60, log)
    if r.status:
        raise Fail(f"{test}: status {r.status}")
    return [m[1].decode() for m in re.finditer(rb"^softkvm: +\d+\.\d{6} \d+ (\w+: .*)$", r.err, re.M)]


def traces(build, log):
    for test, want in IRQ_LINES:
        lines = traced(build, "irq", test, log)
        if not any(re.fullmatch("irq: " + want, line) for line in lines):
            raise Fail(f"--trace=irq of {test} does not say {want}")
        if any(not line.startswith("irq: ") for line in lines):
            raise Fail(f"--trace=irq of {test} says more: {lines}")
    seen = {line.split(":")[0] for line in traced(build, "all", "test_line_and_msi", log)}
    if seen != set(ALL_KINDS):
        raise Fail(f"--trace=all says {sorted(seen)}")


def tests(build):
    for k, b in enumerate(build.variants()):
        for name, function, cost in (("client", client, 10), ("api", api, 5)):
            yield Test(b.test(f"softkvm/{name}"), lambda log, f=function, b=b: f(b, log), cost=cost * b.slow)
        if k and not build.name:
            yield Test(b.test("softkvm/qemu-pc-on-1-qemu64"), lambda log, b=b: qemu(b, "pc", "on", 1, "qemu64", log), cost=100)
    if build.name:
        return
    for name, function, cost in (
            ("refusals", refusals, 3), ("options", options, 2), ("figures", figures, 2),
            ("traces", traces, 2), ("setuid", setuid, 1), ("qemu-without-device", qemu_without_device, 15), ("client-on-host", client_on_host, 30),
            ("without-device", without_device, 10), ("own-vmm", own_vmm, 20)):
        yield Test(f"softkvm/{name}", lambda log, f=function: f(build, log), cost=cost)
    for machine, cpus in (("pc", 1), ("q35", 2)):
        yield Test(f"softkvm/migration-{machine}-{cpus}", lambda log, m=machine, n=cpus: migration(build, m, n, log), cost=30)
    for machine in MACHINES:
        yield Test("softkvm/qemu-" + "-".join(map(str, machine)).replace(",", "-"), lambda log, m=machine: qemu(build, *m, log), cost=20)

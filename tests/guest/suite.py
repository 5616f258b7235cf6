"""Small guests of ours: on Qumra's own hypervisor with each engine, on QEMU's TCG as the oracle, and on the host's KVM."""
import os
import re
import subprocess
import threading
from collections import namedtuple

from harness import ROOT, Fail, Missing, Skip, Test, environment, need_qumra, run_process

HERE = os.path.join(ROOT, "tests", "guest")
OUT = os.path.join(ROOT, "build", "guest-tests")
PASSED = 33     # port 0xf4 makes (v << 1) | 1 of the guest's 0x10
Guest = namedtuple("Guest", "name bits options")
build_lock = threading.Lock()


def guests():
    with open(os.path.join(HERE, "list")) as f:
        for line in f:
            words = line.split("#")[0].split()
            if words:
                yield Guest(words[0], words[1], dict(w.split("=", 1) for w in words[2:]))


def newest_source(name):
    lib = os.path.join(HERE, "lib")
    files = [os.path.join(lib, f) for f in os.listdir(lib)]
    files += [os.path.join(HERE, name + ".c"), os.path.join(HERE, "build-guest")]
    return max(os.path.getmtime(f) for f in files)


def built(guest, log):
    path = os.path.join(OUT, f"{guest.name}-{guest.bits}.elf")
    with build_lock:
        os.makedirs(OUT, exist_ok=True)
        if os.path.exists(path) and os.path.getmtime(path) > newest_source(guest.name):
            return path
        done = subprocess.run([os.path.join(HERE, "build-guest"), path, guest.bits,
                               os.path.join(HERE, guest.name + ".c")], stdout=log, stderr=log, check=False)
    if done.returncode:
        raise Fail("does not build")
    return path


def verdict(r, want, known=()):
    """Raises Fail unless the guest ended with the wanted status and failed only in what is known."""
    text = r.out.decode(errors="replace").replace("\r", "")
    failed = [line[5:] for line in text.splitlines() if line.startswith("FAIL ")]
    unexpected = [f for f in failed if not any(k.search(f) for k in known)]
    if r.timed_out:
        raise Fail("no end")
    if unexpected:
        raise Fail(f"{len(unexpected)} checks, first: {unexpected[0]}")
    if r.status != want and not (failed and r.status == PASSED + 2):
        raise Fail(f"status {r.status}, want {want}")
    if want == PASSED:
        done = re.search(r"^DONE (\d+) passed, (\d+) failed", text, re.M)
        if not done:
            raise Fail("no summary")
        return f"{done[1]} checks" + (f", {done[2]} known to be wrong there" if failed else "")
    return None


# A host that has the least we ask for, and a code cache in which nothing stays for long.
PLAIN = {"QUMRA_PLAIN_HOST": "1", "QUMRA_NO_FSGSBASE": "1", "QUMRA_CODE_CACHE": "524288"}


def on_qumra(build, guest, log, run=None, **settings):
    need_qumra(build)
    command = [*(run or build.run), "--kernel", built(guest, log), "--debug-exit", "--serial", "stdio",
               "--memory", guest.options.get("memory", "64M"), "--cpus", guest.options.get("cpus", "1"),
               "--append", "test"]
    if "no-reboot" in guest.options:
        command.append("--no-reboot")
    r = run_process(command, 60 * build.slow, log, env=environment(**settings))
    return verdict(r, int(guest.options.get("status", PASSED)))


def known_of_qemu(guest):
    """Lines of the file: guest-bits, a regular expression, two spaces, the section that says what is right."""
    with open(os.path.join(HERE, "qemu-differs")) as f:
        for line in f:
            words = line.split(None, 1)
            if words and words[0] in (f"{guest.name}-{guest.bits}", f"{guest.name}-*"):
                yield re.compile(words[1].split("  ")[0].strip())


def on_qemu(guest, log):
    if guest.options.get("qemu") == "no":
        raise Skip(f"TCG cannot: {guest.options.get('why', 'see the list')}")
    try:
        r = run_process(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "64", "-display", "none",
                         "-smp", guest.options.get("cpus", "1"),
                         "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                         "-kernel", built(guest, log)], 240, log)
    except FileNotFoundError:
        raise Missing("no QEMU") from None
    want = 0 if guest.options.get("status") == "3" else int(guest.options.get("status", PASSED))
    return verdict(r, want, list(known_of_qemu(guest)))


def on_kvm(build, guest, log):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no /dev/kvm")
    return on_qumra(build, guest, log, [build.qumra, "run", "--accel", "kvm"])


def tests(build):
    for g in guests():
        name = f"{g.name}-{g.bits}"
        for b in build.variants():
            yield Test(b.test(f"guest/{name}"), lambda log, b=b, g=g: on_qumra(b, g, log), cost=2)
        if build.name:
            continue
        yield Test(f"guest-plain/{name}", lambda log, g=g: on_qumra(build, g, log, **PLAIN), cost=2)
        yield Test(f"guest-qemu/{name}", lambda log, g=g: on_qemu(g, log), cost=2)
        if g.options.get("kvm") == "yes":
            yield Test(f"guest-kvm/{name}", lambda log, g=g: on_kvm(build, g, log), cost=2)

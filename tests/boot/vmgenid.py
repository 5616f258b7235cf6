"""The VM generation ID: Linux finds it, and stirs its random numbers when another one is loaded."""
import base64
import gzip
import os
import re
import shutil
import subprocess
import tempfile

from harness import ROOT, Fail, Missing, Test, environment, kill_group, script_output

HERE = os.path.join(ROOT, "tests", "boot")
# Debian's cloud kernel has no driver for it.
KERNEL = "linux-image-amd64"
MACHINES = (("q35", "none"), ("microvm", "none"), ("q35", "bios"), ("q35", "uefi"))


LOADS = 2


def talk(process, pipe, log):
    """The console to its end; at each READY the machine is told to load. Closes the pipe."""
    text = b""
    with os.fdopen(pipe, "wb", buffering=0) as commands:
        for line in process.stdout:
            log.write(line)
            text += line
            if line.startswith(b"READY"):
                commands.write(b"x")
            if line.startswith(b"READY %d" % LOADS):
                commands.close()
    return text.decode(errors="replace").replace("\r", "")


def run(build, words, limit, log):
    r, w = os.pipe()
    try:
        # Descriptor 3 is the pipe's.
        command = ["bash", "-c", f'exec "$@" 3<&{r} {r}<&-' if r != 3 else 'exec "$@"', "bash", "timeout", "-s", "KILL", str(limit),
                   os.path.join(build.path, "tests", "boot", "reload"), *words]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment(),
                              pass_fds=(r,), start_new_session=True) as process:
            os.close(r)
            r = -1
            try:
                pipe, w = w, -1
                text = talk(process, pipe, log)
                return process.wait(60), text
            finally:
                kill_group(process)
    finally:
        for fd in (r, w):
            if fd >= 0:
                os.close(fd)


def check_table(text, log):
    """The compiler takes what the disassembler makes of the guest's own DSDT."""
    if not shutil.which("iasl"):
        raise Missing("no iasl; all else passed")
    table = gzip.decompress(base64.b64decode("".join(re.findall(r"^DSDT (.*)$", text, re.M))))
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/dsdt.aml", "wb") as f:
            f.write(table)
        for command in (["iasl", "-d", "dsdt.aml"], ["iasl", "-p", "again", "dsdt.dsl"]):
            done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            log.write(done.stdout)
            if done.returncode:
                raise Fail(f"{command[0]} {command[1]}: status {done.returncode}")
        if b" 0 Errors, 0 Warnings" not in done.stdout:
            raise Fail(f"iasl: {done.stdout.splitlines()[-1:]}")
        with open(f"{folder}/dsdt.dsl", encoding="ascii") as f:
            if "Device (VGEN)" not in f.read():
                raise Fail("there is no VGEN in the DSDT")
    return f"{len(table)} bytes of DSDT"


def vmgenid(build, board, firmware, suite, log):
    with suite.fetch_lock:
        kernel = script_output("scripts/fetch-kernel", KERNEL, "amd64")
        busybox = script_output("scripts/fetch-busybox", "amd64")
    with tempfile.TemporaryDirectory() as folder:
        initrd = f"{folder}/initrd.cpio"
        script_output("scripts/make-initramfs", initrd, busybox, os.path.join(HERE, "init-vmgenid"))
        status, text = run(build, [kernel, initrd, board, firmware], int(120 * build.slow), log)
    if status or "DMESG END" not in text:
        raise Fail(f"status {status}")
    if "DRIVER QMRA0001 vmgenid" not in text:
        raise Fail("the driver is not bound")
    if f"FORKS {LOADS}" not in text:
        raise Fail(f"forks: {re.findall(r'^FORKS .*$', text, re.M)}")
    known = suite.known()
    bad = [line for line in text[text.index("DMESG BEGIN"):].splitlines()
           if suite.BAD.search(line) and not any(k.search(line) for k in known)]
    if bad:
        raise Fail(f"{len(bad)} lines of dmesg, first: {bad[0].strip()[:160]}")
    return check_table(text, log)


def tests(build, suite):
    for board, firmware in MACHINES:
        if build.name and firmware != "none":
            continue
        name = f"boot/vmgenid-{board}" + (f"-{firmware}" if firmware != "none" else "")
        yield Test(build.test(name), lambda log, b=board, f=firmware: vmgenid(build, b, f, suite, log), cost=20 * build.slow)

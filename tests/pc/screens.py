"""Guests on the screen: memtest86+, the Debian installer, the UEFI shell, with keys through VNC; the installer on serial."""
import os
import re
import signal
import sys
import tempfile

from harness import ROOT, Fail, Missing, Test, need_qumra

sys.path[:0] = [os.path.join(ROOT, "tests", "pc"), os.path.join(ROOT, "tests", "softkvm")]
from qemu_guest import Guest  # noqa: E402
from screen import Screen, Viewer  # noqa: E402

MEMTEST = "/boot/memtest86+x64.bin"
INSTALLER = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
SCREENS = os.path.join(ROOT, "tests", "pc", "screens")


def need(path):
    if not os.path.exists(path):
        raise Missing(f"there is no {path}")
    return path


def bios(build, *words):
    return [*build.run, "--firmware", "bios", *words]


def no_boot(build, log):
    """SeaBIOS's own words, and an end by a signal leaves the last picture."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        with Screen(bios(build, "--memory", "64M", "--serial", "none"), folder, log) as screen:
            text = screen.wait_for_text(r"^SeaBIOS \(version.*\n(.*\n)*No bootable device\.")
            os.unlink(screen.file)
            screen.process.terminate()
            if screen.process.wait(30) != -signal.SIGTERM:
                raise Fail(f"SIGTERM ended qumra with status {screen.process.returncode}")
            if screen.last().text() != text:
                raise Fail("the last picture is another one")


def memtest(build, cpus, whole, log):
    """A pass over 8 MiB. The bit fade test waits for minutes: a whole pass is in the slow group, one without it, by the menu and
    so by keys, in the other."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        vnc = os.path.join(folder, "vnc")
        with Screen(bios(build, "--cpus", str(cpus), "--memory", "8M", "--serial", "none", "--kernel", need(MEMTEST),
                         "--append", "nosm", "--display", f"vnc=unix:{vnc}"), folder, log) as screen:
            screen.wait_for_text(r"Memory  :    8MB(.*\n)*.*<Enter> to start testing")
            with Viewer(vnc) as viewer:
                if not whole:
                    viewer.type("F1")
                    screen.wait_for_text(r"<F1>  Test selection")
                    viewer.type("F1")
                    screen.wait_for_text(r"\*\.\*{9}")
                    viewer.type("F2")
                    screen.wait_for_text(r"Enter test #")
                    viewer.type("1", "0", "Enter")
                    screen.wait_for_text(r"\*\.\*{8}\.")
                    viewer.type("F10", "F10")
                else:
                    viewer.type("Enter")
            text = screen.wait_for_text(r"Pass:  [1-9]", 400 if whole else 120)
    if not re.search(r"Status: Pass .*\n.*Errors: 0 *$", text, re.M):
        raise Fail(f"memtest86+ found errors:\n{text}")
    if cpus > 1 and f"SMP: {cpus}T" not in text:
        raise Fail(f"memtest86+ did not use {cpus} CPUs:\n{text}")
    return re.search(r"Time: +(\S+)", text)[1]


def installer(build, cpus, log):
    """Its first menu, which keys move."""
    need_qumra(build)
    words = bios(build, "--cpus", str(cpus), "--memory", "1G", "--serial", "none", "--kernel", need(f"{INSTALLER}/linux"),
                 "--initrd", f"{INSTALLER}/initrd.gz", "--append", "quiet")
    rows = os.path.join(SCREENS, "debian-installer")
    with tempfile.TemporaryDirectory() as folder:
        vnc = os.path.join(folder, "vnc")
        with Screen([*words, "--display", f"vnc=unix:{vnc}"], folder, log) as screen:
            menu = screen.wait_for_rows(rows, 300).checksums()
            with Viewer(vnc) as viewer:
                if (viewer.width, viewer.height) != (1024, 768):
                    raise Fail(f"VNC shows {viewer.width} x {viewer.height}")
                viewer.type("Down")
                screen.wait_for(lambda p: changed(menu, p) == [23, 24], "the next line selected", 30)
                viewer.type("Up")
                screen.wait_for(lambda p: changed(menu, p) == [], "the first line selected again", 30)
    return "1024 x 768"


def changed(rows, picture):
    now = picture.checksums()
    return [y for y, row in enumerate(rows) if y >= len(now) or row != now[y]]


def installer_serial(build, cpus, log):
    need_qumra(build)
    words = [*build.run, "--cpus", str(cpus), "--memory", "1G", "--kernel", need(f"{INSTALLER}/linux"), "--initrd", f"{INSTALLER}/initrd.gz",
             "--append", "console=ttyS0 quiet"]
    with Guest(words, log) as guest:
        guest.expect(b"Select a language", 300)
        guest.expect(b"<Go Back>")


def uefi_shell(build, log, *more):
    """By GOP, with a PS/2 keyboard, before and after a reset; then it turns the machine off."""
    need_qumra(build)
    words = [*build.run, "--firmware", "uefi", "--memory", "256M", "--serial", "none", *more]
    with tempfile.TemporaryDirectory() as folder:
        vnc = os.path.join(folder, "vnc")
        with Screen([*words, "--display", f"vnc=unix:{vnc}"], folder, log) as screen:
            shell = screen.wait_for_rows(os.path.join(SCREENS, "uefi-shell"), 120).checksums()
            with Viewer(vnc) as viewer:
                # A mark that only a reset takes away.
                viewer.type(*"echo x", "Enter")
                screen.wait_for(lambda p: len(changed(shell, p)) > 2, "an echo", 60)
                viewer.type(*"reset", "Enter")
                screen.wait_for_rows(os.path.join(SCREENS, "uefi-shell"), 120)
                viewer.type(*"reset -s", "Enter")
            status = screen.process.wait(60)
            if status:
                raise Fail(f"reset -s ended qumra with status {status}")


def tests(build):
    """All on the default engine; the short one with the sanitizers, too."""
    yield Test(build.test("pc/screen-bios"), lambda log: no_boot(build, log), cost=5 * build.slow)
    if build.name:
        return
    yield Test("pc/screen-uefi", lambda log: uefi_shell(build, log), cost=30)
    # The same picture, by OVMF's driver for virtio-gpu, and with all CPUs.
    yield Test("pc/screen-uefi-gpu", lambda log: uefi_shell(build, log, "--device", "gpu", "--cpus", "4"), cost=40)
    for cpus in (1, 4):
        yield Test(f"pc/memtest-{cpus}", lambda log, n=cpus: memtest(build, n, False, log), cost=20)
        yield Test(f"pc/installer-screen-{cpus}", lambda log, n=cpus: installer(build, n, log), cost=60)
        yield Test(f"pc/installer-serial-{cpus}", lambda log, n=cpus: installer_serial(build, n, log), cost=50)
    yield Test("pc/memtest-whole", lambda log: memtest(build, 1, True, log), slow=True, cost=200)

"""The control socket (vmm/control): a conversation in QEMU's QMP with a machine that runs Linux, its client, bad input."""
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from harness import ROOT, SANITIZER_WORDS, Fail, Test, environment, need_qumra, run_process, script_output

sys.path.insert(0, os.path.join(ROOT, "tests", "softkvm"))
from qemu_guest import Guest  # noqa: E402

spec = importlib.util.spec_from_file_location("softkvm_suite", os.path.join(ROOT, "tests", "softkvm", "suite.py"))
softkvm_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(softkvm_suite)


class Client:
    """Of the socket; what comes is objects, in order."""

    def __init__(self, path, seconds=60):
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + seconds
        while self.socket.connect_ex(path):
            if time.monotonic() > end:
                raise Fail("nobody listens")
            time.sleep(0.02)
        self.socket.settimeout(seconds)
        self.lines = self.socket.makefile("rb")
        self.events = []

    def close(self):
        self.lines.close()
        self.socket.close()

    def say(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else json.dumps(data).encode())

    def hear(self):
        line = self.lines.readline()
        return json.loads(line) if line else None

    def reply(self):
        """The next that is no event."""
        while True:
            what = self.hear()
            if what is None:
                raise Fail("the connection ended before a reply")
            if "event" not in what:
                return what
            self.events.append(what)

    def error(self, kind="GenericError"):
        what = self.reply()
        if what.get("error", {}).get("class") != kind or not what["error"]["desc"]:
            raise Fail(f"no {kind}: {what}")
        return what

    def do(self, name, **arguments):
        self.say({"execute": name, "arguments": arguments} if arguments else {"execute": name})
        what = self.reply()
        if "return" not in what:
            raise Fail(f"{name}: {what}")
        return what["return"]

    def event(self, name):
        """The next event, which must be that; its data."""
        what = self.events.pop(0) if self.events else self.hear()
        if what is None or what.get("event") != name or "seconds" not in what["timestamp"]:
            raise Fail(f"no {name}: {what}")
        return what.get("data")


def greeted(path):
    client = Client(path)
    version = client.hear()["QMP"]["version"]
    if set(version) != {"qemu", "package"}:
        raise Fail(f"version {version}")
    client.do("qmp_capabilities")
    return client


def expect(what, wanted):
    if what != wanted:
        raise Fail(f"{what} in place of {wanted}")


def still(guest):
    """Nothing comes any more from a guest that would say something all the time."""
    end = time.monotonic() + 20
    while select.select([guest.process.stdout], [], [], 0.5)[0]:
        os.read(guest.process.stdout.fileno(), 65536)
        if time.monotonic() > end:
            raise Fail("the guest goes on")


def shell(build, *more):
    """A small Linux with a shell on its serial port."""
    kernel, _ = softkvm_suite.boot_suite.files("cloud-amd64")
    return [*build.run, "--kernel", kernel, "--initrd", softkvm_suite.shell_initramfs(), "--append",
            "console=ttyS0 panic=-1 quiet", "--memory", "256M", *more]


# What tells in /proc and /sys that the power button was pressed: the PC's fixed event has a status nobody asked for, microvm's
# comes as an interrupt of the generic event device.
PRESSED = {"q35": ("cat /sys/firmware/acpi/interrupts/ff_pwr_btn", b" STS "),
           "microvm": ("awk '/Ged/ { print \"presses:\" $2 + $3 }' /proc/interrupts", b"presses:1")}
PROMPT = b"~ # "


def ask(guest, line):
    """What a command of the guest's shell prints."""
    guest.type(f"{line}; echo END-$((6 * 7))")
    return guest.expect(b"END-42")


def session(build, machine, log):
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "control")
        with Guest(shell(build, "--cpus", "2", "--machine", machine, "--control", path), log) as guest:
            guest.expect(PROMPT)
            expect(os.stat(path).st_mode & 0o777, 0o600)
            client = greeted(path)
            expect(client.do("query-status"), {"status": "running", "running": True})
            expect([c["cpu-index"] for c in client.do("query-cpus-fast")], [0, 1])
            verbs(guest, client, machine)
            client.do("quit")
            expect(client.event("SHUTDOWN"), {"guest": False, "reason": "host-qmp-quit"})
            expect(client.hear(), None)
            client.close()
            guest.drain(30)
            expect(guest.process.wait(30), 0)
            if os.path.exists(path):
                raise Fail("the socket stays")


def verbs(guest, client, machine):
    guest.type("while :; do echo tick; done")
    guest.expect(b"tick\r\n" * 3)
    client.do("stop")
    client.event("STOP")
    client.do("stop")
    expect(client.do("query-status"), {"status": "paused", "running": False})
    still(guest)
    client.do("cont")
    client.event("RESUME")
    guest.expect(b"tick\r\n" * 3)
    guest.process.stdin.write(b"\x03")
    guest.process.stdin.flush()
    guest.expect(PROMPT)
    client.do("inject-nmi")
    for _ in range(2):
        guest.expect(b"NMI received")
    line, sign = PRESSED[machine]
    if sign in ask(guest, line):
        raise Fail("the power button is down already")
    client.do("system_powerdown")
    client.event("POWERDOWN")
    if sign not in ask(guest, line):
        raise Fail("the guest does not see the power button")
    # A reset while it stands still takes effect then, and it goes on where it is told to.
    client.do("stop")
    client.do("system_reset")
    client.event("STOP")
    expect(client.event("RESET"), {"guest": False, "reason": "host-qmp-system-reset"})
    still(guest)
    client.do("cont")
    client.event("RESUME")
    guest.expect(PROMPT)


# A panic as pvpanic alone tells it: the kernel's messages go nowhere.
PANIC_BY_DEVICE = "insmod /modules/pvpanic.ko; insmod /modules/pvpanic-mmio.ko; echo N >/sys/class/tty/ttyS0/console; " \
                  "echo c >/proc/sysrq-trigger"
PANIC_BY_CONSOLE = "echo c >/proc/sysrq-trigger"
MESSAGE = b"Kernel panic - not syncing"


def shell_with_pvpanic(build, folder, *more):
    with softkvm_suite.boot_suite.fetch_lock:
        modules = script_output("scripts/fetch-modules", "linux-image-cloud-amd64", "pvpanic", "pvpanic-mmio")
        shutil.copytree(modules, f"{folder}/modules")
        busybox = script_output("scripts/fetch-busybox", "amd64")
    script_output("scripts/make-initramfs", f"{folder}/initrd", busybox, "scripts/init-shell", f"modules={folder}/modules")
    words = shell(build, *more)
    words[words.index("--initrd") + 1] = f"{folder}/initrd"
    return words


def guest_ends(build, machine, log):
    """What the guest does itself is told as well; that it panicked by pvpanic only, whatever its console shows."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "control")
        with Guest(shell_with_pvpanic(build, folder, "--machine", machine, "--control", path), log) as guest:
            guest.expect(PROMPT)
            client = greeted(path)
            guest.type("reboot -f")
            expect(client.event("RESET"), {"guest": True, "reason": "guest-reset"})
            guest.expect(PROMPT)
            guest.type(PANIC_BY_CONSOLE)
            expect(client.event("RESET")["guest"], True)
            expect(MESSAGE in guest.expect(PROMPT), True)
            guest.type(PANIC_BY_DEVICE)
            expect(client.event("GUEST_PANICKED"), {"action": "run"})
            expect(client.event("RESET")["guest"], True)
            expect(MESSAGE in guest.expect(PROMPT), False)
            guest.type("poweroff -f")
            expect(client.event("SHUTDOWN"), {"guest": True, "reason": "guest-shutdown"})
            client.close()


def panic_status(build, log):
    """Under --no-reboot: that of a crash, where pvpanic or the console tells of a panic."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        words = shell_with_pvpanic(build, folder, "--no-reboot")
        for line, message, status in ((PANIC_BY_DEVICE, False, 3), (PANIC_BY_CONSOLE, True, 3), ("reboot -f", False, 0)):
            with Guest(words, log) as guest:
                guest.expect(PROMPT)
                guest.type(line)
                expect((MESSAGE in guest.drain(60), guest.process.wait(30)), (message, status))


# ---- bad input ------------------------------------------------------------------------------------------------------


def idle(build, folder, *more):
    """A machine that needs no kernel: firmware without a disk. Returns the process and its socket."""
    path = os.path.join(folder, "control")
    words = [*build.run, "--firmware", "bios", "--memory", "64M", "--serial", "none", "--control", path, *more]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            env=environment()), path


def protocol(build, log):
    """Order, identifiers, packets that are cut or stick together, and errors that leave the connection alone."""
    need_qumra(build)
    with tempfile.TemporaryDirectory() as folder:
        process, path = idle(build, folder)
        try:
            client = Client(path)
            client.hear()
            client.say({"execute": "query-status"})
            client.error("CommandNotFound")
            client.say({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})
            client.error()
            client.do("qmp_capabilities")
            client.say({"execute": "qmp_capabilities"})
            client.error("CommandNotFound")
            for length in range(100, 180):      # errors are cut, perhaps within a character
                client.say({"execute": "x" * length + 300 * "\u0416"})
                client.error("CommandNotFound")
            client.say({"execute": "no-such-thing", "id": [1, {"a": "}"}]})
            expect(client.error("CommandNotFound")["id"], [1, {"a": "}"}])
            for bad in (b'{"execute": }', b"hello\n", b'{"execute": "stop", "more": 1}', b'{"execute": 5}', b"[1, 2]",
                        b'{"execute": "stop", "execute": "cont"}', b'{"execute": "stop", "arguments": []}',
                        b'{"execute": "stop", "arguments": {"now": true}}', b'{"execute": "balloon"}', b'{"a": "\xff"}',
                        b'{"execute": "balloon", "arguments": {"value": "much"}}', b'{"execute": "query-balloon"}',
                        b'{"execute": "screendump", "arguments": {"filename": "/nonexistent/x"}}', b"[" * 3000 + b"]" * 3000):
                client.say(bad)
                client.error()
            client.say(b'  {"execute": "query-kvm", "id": "a\\"}{"}\r\n{"execute": "query-kvm", "id": 2}{"execu')
            expect([client.reply()["id"], client.reply()["id"]], ['a"}{', 2])
            client.say(b'te": "query-kvm", "id": null}')
            expect(client.reply()["id"], None)
            # The next client waits for this one to leave.
            other = Client(path)
            client.close()
            expect("QMP" in other.hear(), True)
            other.do("qmp_capabilities")
            other.do("quit")
            other.close()
            expect(process.wait(60), 0)
        finally:
            process.kill()
            log.write(process.communicate()[1])


def hostile(build, log):
    """Too long a command, a client that does not read, noise: at most that connection ends."""
    need_qumra(build)
    seed = int.from_bytes(os.urandom(4), "little")
    log.write(f"seed {seed}\n".encode())
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        process, path = idle(build, folder)
        try:
            client = greeted(path)
            try:
                client.say(b'{"execute": "' + b"x" * (1 << 17))
                client.error()
            except OSError:
                pass    # it left before all was sent
            client.close()
            client = greeted(path)
            deaf(client)
            client.close()
            for _ in range(150):
                client = greeted(path)
                try:
                    client.say(noise(rng))
                except OSError:
                    pass
                client.close()
            client = greeted(path)
            expect(client.do("query-kvm"), {"enabled": True, "present": True})
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
            err = process.communicate(timeout=60)[1]
            log.write(err)
        expect(process.returncode, -signal.SIGTERM)
        if any(word in err for word in SANITIZER_WORDS):
            raise Fail("a sanitizer spoke")


def deaf(client):
    """Asks and does not read, until the machine has had enough."""
    client.socket.settimeout(60)
    try:
        while True:
            client.say(b'{"execute": "query-commands"}' * 1000)
    except (BrokenPipeError, ConnectionResetError):
        pass


WORDS = (b'{"execute": "query-status"}', b'{"execute": "', b'"arguments": {', b"}", b"{", b"[", b"]", b'"', b"\\", b"\n", b"\0", b"1e99999",
         b'{"execute": "screendump", "arguments": {"filename": ""}}', b'{"id": ', b'"\\u0000"', b"\xff\xfe", b"null", b",", b":",
         b'{"execute": "cont"}', b'{"execute": "stop"}', b'{"execute": "system_reset"}')


def noise(rng):
    return b"".join(rng.choice(WORDS) if rng.random() < 0.9 else rng.randbytes(rng.randrange(20)) for _ in range(rng.randrange(1, 60)))


def tool(build, log):
    """`qumra control`, and a screen dumped."""
    need_qumra(build)

    def control(*words, status=0):
        r = run_process([build.qumra, "control", *words], 60, log)
        expect(r.status, status)
        if r.status and (r.err.count(b"\n") != 1 or not r.err.startswith(b"qumra: ")):
            raise Fail(f"not one line: {r.err}")
        return r.out

    with tempfile.TemporaryDirectory() as folder:
        process, path = idle(build, folder, "--device", "vga", "--device", "balloon")
        try:
            Client(path).close()
            expect(control(path, "stop"), b"")
            expect(json.loads(control(path, "query-status"))["status"], "paused")
            expect(control(path, "cont"), b"")
            png = os.path.join(folder, "screen.png")
            control(path, "screendump", f"filename={png}")
            with open(png, "rb") as f:
                expect(f.read(8), b"\x89PNG\r\n\x1a\n")
            expect(json.loads(control(path, "query-balloon")), {"actual": 64 << 20})
            control(path, "balloon", f"value={32 << 20}")
            for words, status in (((path, "nonsense"), 1), ((path, "stop", "now"), 2), ((path,), 2), ((), 2),
                                  ((path, "balloon", "value=0"), 1), ((path, "balloon", "value=much"), 1), ((png, "stop"), 1),
                                  ((os.path.join(folder, "none"), "stop"), 1), (("x" * 200, "stop"), 1)):
                control(*words, status=status)
            # A second machine must not take it away, nor a file be lost.
            for there in (path, png):
                r = run_process([*build.run, "--firmware", "bios", "--serial", "none", "--control", there], 60, log)
                expect(r.status, 1)
            control(path, "quit")
            expect(process.wait(60), 0)
        finally:
            process.kill()
            log.write(process.communicate()[1])


def tests(build):
    if not build.name:
        for machine in PRESSED:
            yield Test(f"control/session-{machine}", lambda log, m=machine: session(build, m, log), cost=15)
            yield Test(f"control/guest-ends-{machine}", lambda log, m=machine: guest_ends(build, m, log), cost=15)
        yield Test("control/panic-status", lambda log: panic_status(build, log), cost=10)
    yield Test(build.test("control/protocol"), lambda log: protocol(build, log), cost=2)
    yield Test(build.test("control/hostile"), lambda log: hostile(build, log), cost=5)
    yield Test(build.test("control/tool"), lambda log: tool(build, log), cost=5)

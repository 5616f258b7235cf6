"""Linux's virtio drivers at our devices: Debian's cloud kernel with an initramfs that uses each of them."""
import hashlib
import http.server
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import types

from harness import GUEST_FILES, ROOT, SANITIZER_WORDS, Fail, Test, environment, need_qumra, run_process, script_output

HERE = os.path.join(ROOT, "tests", "virtio")
sys.path.append(HERE)
import disks  # noqa: E402
import durability  # noqa: E402
import networks  # noqa: E402
import parts  # noqa: E402

KERNEL = "linux-image-cloud-amd64"
MODULES = ("rng-core", "virtio", "virtio_ring", "virtio_mmio", "virtio_pci", "virtio_pci_modern_dev",
           "virtio_pci_legacy_dev", "virtio_blk", "virtio_net", "failover", "net_failover", "virtio_console", "virtio-rng")
CHECKS, PORTS = 34, 9     # with "ports" on the guest's command line these, too
HIGH_MEMORY = "5G"      # Linux takes what is above 4 GiB first: rings, and what is read and written
lock = threading.Lock()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Plain:
    """A machine with nothing more than all have. See networks.py and disks.py for more: forward is an option's end, files NAME=PATH."""
    words, forward, remark, checks, name = "", "", "", 0, None

    def files(self):
        return []

    def options(self):
        return []

    def command(self, command, kernel):
        return command

    def meet(self, guest):
        pass

    def judge(self, download, text):
        pass


def files(folder, more):
    """Kernel, initramfs, and what they and the host's side agree on."""
    noise = random.Random(7)
    disk, file = noise.randbytes(1 << 20), noise.randbytes(3 << 20)
    with lock:
        kernel = script_output("scripts/fetch-kernel", KERNEL)
        modules = script_output("scripts/fetch-modules", KERNEL, *MODULES)
        busybox = script_output("scripts/fetch-busybox", "amd64")
    for name, data in (("disk", disk), ("file", file)):
        with open(os.path.join(folder, name + ".sha256"), "w", encoding="ascii") as f:
            f.write(sha256(data) + "\n")
    with open(os.path.join(folder, "disk.img"), "wb") as f:
        f.write(disk)
        f.truncate(64 << 20)
    with open(os.path.join(folder, "readonly.img"), "wb") as f:
        f.write(disk)
    initrd = os.path.join(folder, "initrd.cpio")
    script_output("scripts/make-initramfs", initrd, busybox, os.path.join(HERE, "init"), f"modules={modules}",
                  f"disk.sha256={folder}/disk.sha256", f"file.sha256={folder}/file.sha256", f"ports={HERE}/ports",
                  *more.files(),
                  *([f"more-{more.name}={HERE}/more-{more.name}"] if more.name else []))
    return kernel, initrd, file


def serve(data, address="127.0.0.1"):
    """A web server on a port of its own, which it returns."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Guest:
    """A running qumra, its console line by line."""

    def __init__(self, command, limit):
        # No buffer: what until() has read and not used, communicate() would not see.
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        bufsize=0, env=environment(), start_new_session=True)
        self.timer = threading.Timer(limit, self.process.kill)
        self.timer.start()
        self.text = ""

    def until(self, word, times=1):
        while self.text.count(word) < times:
            line = self.process.stdout.readline().decode(errors="replace")
            if not line:
                raise Fail(f"ended before it said {word!r}")
            self.text += line.replace("\r", "")

    def end(self, log):
        out, err = self.process.communicate()
        self.timer.cancel()
        self.text += out.decode(errors="replace").replace("\r", "")
        self.errors = err.decode(errors="replace")
        log.write(self.text.encode() + b"\n--- standard error\n" + err)
        for word in SANITIZER_WORDS:
            if word in err:
                raise Fail(f"{word.decode().rstrip(':')} spoke")
        return self.process.returncode


def read_all(sock):
    data = b""
    while True:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece


def use_forward(guest, port):
    """What the guest sends back through the forwarded port."""
    guest.until("READY forward")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        s.sendall(b"line from the host\n")
        return read_all(s)


def use_port(guest, path):
    guest.until("READY port")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(path)
        s.sendall(b"from the host\n")
        got = b""
        while not got.endswith(b"\n"):
            got += s.recv(100)
    return got


def all_devices(build, log, bus, cpus, extra="", more=None, memory="512M"):
    need_qumra(build)
    limit = (600 if build.engine == "interp" else 200) * build.slow
    port1, port2, port3 = (f",root-port={i}" if "ports" in extra else "" for i in (1, 2, 3))
    with tempfile.TemporaryDirectory() as folder:
        more = more(types.SimpleNamespace(free_port=free_port), folder) if more else Plain()
        kernel, initrd, file = files(folder, more)
        server, port = serve(file), free_port()
        download = server.server_address[1], len(file)
        options = more.options()
        command = [
            *build.run, "--kernel", kernel, "--initrd", initrd, "--cpus", str(cpus), "--memory", memory,
            "--append", f"console=ttyS0 panic=-1 http={download[0]} devices={5 + len(options) // 2} {extra} {more.words}".strip(),
            "--disk", f"{folder}/disk.img,format=raw,serial=disk0serial{port1}",
            "--disk", f"{folder}/readonly.img,format=raw,readonly{port2}", "--net",
            f"user,forward=tcp:{port}:7000{more.forward},mac=52:54:00:0a:0b:0c,pcap={folder}/net.pcap{port3}",
            "--device", f"console=file:{folder}/console", "--device", f"console=unix:{folder}/port,name=org.qumra.test",
            "--device", "rng", "--stats", *bus, *options]
        guest = Guest(more.command(command, kernel), limit)
        try:
            upload = use_forward(guest, port)
            more.meet(guest)
            back = use_port(guest, f"{folder}/port")
        except Exception:
            guest.process.kill()    # it waits for what will not come
            raise
        finally:
            status = guest.end(log)
            server.shutdown()
        checks = CHECKS + more.checks + (PORTS if "ports" in extra else 0)
        judge(guest.text, status, upload, back, folder, checks)
        networks.judge_user(f"{folder}/net.pcap", download, 4 << 20)
        more.judge(download, guest.text)
        if "nomsi" not in extra:
            judge_exits(guest, 0 if "pci" in bus or "microvm,pcie=on" in bus else 2)
        judge_slots(guest.text, run_process([*command, "--dry-run"], 20 * build.slow, log).out.decode())
        used = re.search(r"^HIGH (\d+)$", guest.text, re.M)
        if memory == HIGH_MEMORY and (not used or int(used[1]) << 12 < 16 << 20):
            raise Fail(f"pages in use above 4 GiB: {used and used[1]}")
        return more.remark


KINDS = {1: "net", 2: "blk", 3: "console", 4: "rng", 5: "balloon", 8: "scsi", 9: "9p", 16: "gpu", 18: "input", 19: "vsock"}


def judge_slots(text, resolved):
    """Each device is where --dry-run said."""
    there = re.findall(r"^FEATURES \d+ (\S+) /sys/devices/pci0000:00/0000:([^/ ]+)/virtio\d+$", text, re.M)
    said = sorted(re.findall(r"^# pci (\d\S+) virtio-(\S+)$", resolved, re.M))
    if said != sorted((slot, KINDS[int(kind, 16)]) for kind, slot in there):
        raise Fail(f"found {there}, said {said}")


# What says where the devices are.
BUSES = {"mmio": ("--virtio", "mmio"), "pci": ("--virtio", "pci"), "microvm": ("--machine", "microvm"),
         "microvm-pci": ("--machine", "microvm,pcie=on", "--virtio", "pci"), "ports": ("--machine", "q35,root-ports=3")}


def judge_exits(guest, each):
    """Kicks stay in the hypervisor: those of the console's output alone are 20000. Exits are set-up, and as many as each for an
    interrupt: every device in memory of a line is asked what it is about, and told that it was heard."""
    figures = {name: int(n) for name, n in re.findall(r"^(mmio|exits_mmio) (\d+)$", guest.errors, re.M)}
    interrupts = sum(int(n) * names.count("virtio") for counts, names in re.findall(
        r"^INTERRUPTS .*?:((?: +\d+)+) (.*)", guest.text, re.M) for n in counts.split())
    if figures["exits_mmio"] - each * interrupts > 3000 or figures["mmio"] - figures["exits_mmio"] < 20000:
        raise Fail(f"exits for kicks: {figures}, {interrupts} interrupts")


def judge(text, status, upload, back, folder, checks):
    bad = re.findall(r"^CHECK BAD (.*)$", text, re.M)
    if bad:
        raise Fail("checks: " + ", ".join(bad)[:300])
    if status or not re.search("^DONE$", text, re.M):
        raise Fail(f"status {status}")
    if len(re.findall("^CHECK ok", text, re.M)) != checks:
        raise Fail(f"{len(re.findall('^CHECK ok', text, re.M))} checks, not {checks}")
    if back != b"back: from the host\n":
        raise Fail(f"the port said {back!r}")
    line, data = upload.split(b"\n", 1)
    if line != b"line from the host" or sha256(data) != re.search(r"^UPLOAD (\w+)$", text, re.M)[1]:
        raise Fail(f"upload: {line[:40]!r} and {len(data)} bytes")
    with open(f"{folder}/disk.img", "rb") as f:
        f.seek(64 << 16)
        if sha256(f.read(128 << 16)) != re.search(r"^DISK (\w+)$", text, re.M)[1]:
            raise Fail("the image holds something else than the guest wrote")
    with open(f"{folder}/console", "rb") as f:
        want = b"the console works\n" + b"".join(b"%d\n" % i for i in range(1, 20001))
        if f.read().replace(b"\r", b"") != want:
            raise Fail("the console's output is not whole")


def tests(build):
    for k, b in enumerate(build.variants()):
        if k == 0 or not build.name:
            for bus in ("mmio", "pci"):
                memory = "512M" if k else HIGH_MEMORY
                yield Test(b.test(f"virtio/{bus}"), lambda log, b=b, bus=bus, m=memory: all_devices(
                    b, log, BUSES[bus], 1, memory=m), cost=60 * b.slow)
    kit = types.SimpleNamespace(Guest=Guest, lock=lock, sha256=sha256, read_all=read_all, serve=serve,
                                free_port=free_port)
    yield from parts.tests(build, kit)
    yield from durability.tests(build, kit)
    if not build.name:
        yield Test("virtio/mmio-smp", lambda log: all_devices(build, log, BUSES["mmio"], 3), cost=60)
        yield Test("virtio/pci-smp", lambda log: all_devices(build, log, BUSES["pci"], 3, more=networks.Networks), cost=60)
        yield Test("virtio/pci-pin", lambda log: all_devices(
            build, log, BUSES["pci"], 1, extra="pci=nomsi", more=disks.Threads), cost=60)
        yield Test("virtio/ports", lambda log: all_devices(build, log, BUSES["ports"], 2, extra="ports"), cost=60)
        yield Test("virtio/ports-pin", lambda log: all_devices(build, log, BUSES["ports"], 1, extra="ports pci=nomsi"), cost=60)
        # On the i8259s: ACPI's interrupt links say which line.
        yield Test("virtio/pci-pic", lambda log: all_devices(build, log, BUSES["pci"], 1, extra="pci=nomsi noapic"), cost=60)
        yield Test("virtio/microvm", lambda log: all_devices(build, log, BUSES["microvm"], 1), cost=60)
        yield Test("virtio/microvm-smp", lambda log: all_devices(build, log, BUSES["microvm"], 4, more=disks.Disks), cost=60)
        yield Test("virtio/microvm-pci", lambda log: all_devices(build, log, BUSES["microvm-pci"], 2), cost=60)
        yield Test("virtio/microvm-pci-pin", lambda log: all_devices(build, log, BUSES["microvm-pci"], 1, extra="pci=nomsi"), cost=60)

"""Debian on a disk: its login, commands, packages, and how it ends."""
import hashlib
import os
import re
import shutil
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import disk
from harness import ROOT, Fail

sys.path.insert(0, os.path.join(ROOT, "tests", "softkvm"))
from qemu_guest import Qemu  # noqa: E402

BOOT = 240      # seconds to the login; a busy host's
END = re.compile(rb"==(\d+)==\r?\n")
NOISE = re.compile(rb"\x1b\[[?0-9;]*[a-zA-Z]|\r")


class System:
    """What one does in the guest that is the disk of disk.py, on a console."""

    def login(self, seconds=BOOT):
        self.expect(b"guest login: ", seconds)
        self.type("root")
        self.expect(b"Password: ")
        self.type("debian")
        self.expect(b"guest# ")
        self.type("stty -echo; export TERM=dumb; PS1= PS2=; echo read''y")
        self.expect(b"ready\r\n")

    def sh(self, command, seconds=60, status=0):
        """Runs it in the shell of the login; returns what it printed."""
        self.type(f"{{ {command}\n}} 2>&1; echo \"=\"=$?==")
        end = time.monotonic() + seconds
        while not (found := END.search(self.text)):
            self.more(end - time.monotonic(), command)
        out = NOISE.sub(b"", self.text[:found.start()]).decode(errors="replace")
        self.text = self.text[found.end():]
        if status is not None and int(found[1]) != status:
            raise Fail(f"{command}: status {int(found[1])}: {out.strip()[-200:]}")
        return out

    def check_log(self, bad, allowed):
        """Nothing in the kernel's log that a healthy machine never says."""
        lines = [line for line in self.sh("dmesg").splitlines() if bad.search(line)]
        lines = [line for line in lines if not any(k.search(line) for k in allowed)]
        if lines:
            raise Fail(f"{len(lines)} lines of dmesg, first: {lines[0].strip()[:160]}")

    def install(self, repository):
        """A package and what it depends on, by apt over the network."""
        self.sh("for i in $(seq 300); do ip -4 addr show eth0 | grep -q 'inet 10.0.2' && break; sleep 0.2; done")
        self.sh(f"echo 'deb [trusted=yes] {repository.url} ./' >/etc/apt/sources.list")
        self.sh("apt-get -q update", 120)
        self.sh("apt-get -q -y install qumra-hello", 180)
        self.installed()

    def installed(self):
        said = self.sh("qumra-hello; dpkg-query -W -f '${Status} ' qumra-hello qumra-words; dpkg -V qumra-words")
        if " ".join(said.split()) != "hello, configured install ok installed install ok installed":
            raise Fail(f"the package says {said.strip()!r}")

    def until_rebooted(self, cpus, repository, check_log):
        """To a login; a package; reboot; the package is there; all of the system is up."""
        self.login()
        if self.sh("nproc").strip() != str(cpus):
            raise Fail(f"not {cpus} CPUs")
        self.install(repository)
        check_log(self)
        self.type("reboot")
        self.login()
        self.installed()
        self.sh("systemctl is-system-running --wait", 120)

    def live(self, cpus, repository, check_log):
        self.until_rebooted(cpus, repository, check_log)
        self.power_off()

    def power_off(self, seconds=120):
        self.type("poweroff")
        self.drain(seconds)
        if self.process.wait(10):
            raise Fail(f"status {self.process.returncode}")


class Debian(System, Qemu):
    """In a QEMU."""


def package(folder, name, more, files):
    """A binary package out of a control file and files."""
    tree = os.path.join(folder, name)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: tests <tests@localhost>\nDescription: test\n{more}"
    for path, text in ({"DEBIAN/control": control, **files}).items():
        os.makedirs(os.path.dirname(os.path.join(tree, path)), exist_ok=True)
        with open(os.path.join(tree, path), "w", encoding="ascii") as f:
            f.write(text)
        os.chmod(os.path.join(tree, path), 0o644 if path == "DEBIAN/control" else 0o755)
    deb = f"{name}_1_all.deb"
    disk.run("dpkg-deb", "--root-owner-group", "-b", tree, os.path.join(folder, deb))
    shutil.rmtree(tree)
    with open(os.path.join(folder, deb), "rb") as f:
        data = f.read()
    return f"{control}Filename: ./{deb}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Repository:
    """Two packages, served to the guest by user networking. `with`."""

    def __init__(self, folder):
        os.makedirs(folder)
        words = os.urandom(1 << 20).hex()
        index = package(folder, "qumra-words", "", {"usr/share/qumra/words": words})
        index += package(folder, "qumra-hello", "Depends: qumra-words\n", {
            "usr/bin/qumra-hello": "#!/bin/sh\necho hello, $(cat /var/lib/qumra-hello)\n",
            "DEBIAN/postinst": "#!/bin/sh\ntest -s /usr/share/qumra/words && echo configured >/var/lib/qumra-hello\n"})
        with open(os.path.join(folder, "Packages"), "w", encoding="ascii") as f:
            f.write(index)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=folder))
        self.url = f"http://10.0.2.2:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def qcow2(folder, name="disk.qcow2"):
    """A disk of one's own on top of the common one."""
    path = os.path.join(folder, name)
    disk.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk.disk(), path)
    return path

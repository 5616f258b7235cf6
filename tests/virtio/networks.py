"""The host's side of the networks of tests/virtio/more-networks: a program behind a socket, a name server, and captures that are read."""
import os
import shutil
import socket
import struct
import subprocess
import threading
import time

from harness import Fail

NAME, ADDRESS = b"\4host\5qumra\4test\0", bytes((192, 0, 2, 77))
NOBODY = 65534


def checksum(data):
    data += bytes(len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def dns_answer(query):
    """To a question for NAME's address (RFC 1035, 4.1); nothing to others."""
    question = NAME + b"\0\1\0\1"
    if query[12:12 + len(question)] != question:
        return None
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + b"\xC0\x0C\0\1\0\1\0\0\0\x3C\0\4" + ADDRESS


class Resolver:
    """A name server on an address of the host's loopback; the port is the one that there is."""

    def __init__(self):
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        pid = os.getpid()
        self.address = f"127.{1 + (pid >> 16 & 63)}.{pid >> 8 & 255}.{1 + pid % 254}"
        self.socket.bind((self.address, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, who = self.socket.recvfrom(2048)
            answer = dns_answer(query)
            if answer:
                self.asked += 1
                self.socket.sendto(answer, who)


class Peer:
    """What listens at a socket and answers for 10.9.0.1, at any station's address: ARP, pings, and questions for names."""
    station = bytes.fromhex("5254000a0b10")

    def __init__(self, path):
        self.frames = []        # (from the guest?, frame)
        self.wrong = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        s, _ = self.listener.accept()
        with s, s.makefile("rb") as stream:
            while head := stream.read(4):
                frame = stream.read(struct.unpack(">I", head)[0])
                self.frames.append((True, frame))
                answer = self.answer(frame)
                if answer:
                    self.frames.append((False, answer))
                    s.sendall(struct.pack(">I", len(answer)) + answer)

    def answer(self, frame):
        head = frame[6:12] + self.station + frame[12:14]
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == bytes((10, 9, 0, 1)):
            return head + frame[14:20] + b"\0\2" + self.station + frame[38:42] + frame[22:32]
        if frame[12:15] != b"\x08\0\x45" or frame[30:34] != bytes((10, 9, 0, 1)):
            return None
        length = struct.unpack(">H", frame[16:18])[0]
        ip, data = frame[14:34], frame[34:14 + length]
        back = ip[12:16], ip[16:20]
        body = None
        if checksum(ip):
            self.wrong.append("IP header")
        elif ip[9] == 1:
            body = self.ping(ip, data)
        elif ip[9] == 17:
            body = self.datagram(back, data)
        if body is None:
            return None
        ip = ip[:2] + struct.pack(">H", 20 + len(body)) + ip[4:10] + b"\0\0" + back[1] + back[0]
        return head + ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:] + body

    @staticmethod
    def ping(ip, data):
        """A fragment goes back as it came; the first one has the checksum of all."""
        if struct.unpack(">H", ip[6:8])[0] & 0x1FFF:
            return data
        if data[0] != 8:
            return None
        return b"\0\0" + struct.pack(">H", (lambda c: (c & 0xFFFF) + (c >> 16))(struct.unpack(">H", data[2:4])[0] + 0x800)) + data[4:]

    def datagram(self, back, data):
        pseudo = back[0] + back[1] + b"\0\x11" + data[4:6]
        if checksum(pseudo + data) or not data[6:8].strip(b"\0"):
            self.wrong.append("UDP checksum")
        answer = dns_answer(data[8:])
        if data[2:4] != b"\0\x35" or not answer:
            return None
        udp = data[2:4] + data[:2] + struct.pack(">HH", 8 + len(answer), 0) + answer
        pseudo = back[1] + back[0] + b"\0\x11" + udp[4:6]
        return udp[:6] + struct.pack(">H", checksum(pseudo + udp) or 0xFFFF) + udp[8:]


def records(path):
    """The frames of a capture (draft-ietf-opsawg-pcap), all of which must be there."""
    with open(path, "rb") as f:
        data = f.read()
    magic, major, minor, _, _, longest, link = struct.unpack("<IHHIIII", data[:24])
    if (magic, major, minor, link) != (0xA1B23C4D, 2, 4, 1):
        raise Fail(f"{path}: the capture is none")
    frames, at, last = [], 24, 0
    while at < len(data):
        seconds, nanoseconds, captured, length = struct.unpack("<IIII", data[at:at + 16])
        if captured != length or length > longest or length < 14 or at + 16 + length > len(data) or nanoseconds >= 10**9:
            raise Fail(f"{path}: the record at {at} is not whole")
        if (seconds, nanoseconds) < (last or (time.time() - 3600, 0)) or seconds > time.time():
            raise Fail(f"{path}: the record at {at} has a time of its own: {seconds}")
        last = (seconds, nanoseconds)
        frames.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return frames


def payload(frames, protocol, source=None, target=None):
    """Bytes that these carried over TCP (6) or UDP (17), as their headers have it, ports being as told."""
    total = 0
    for f in frames:
        if f[12:14] != b"\x08\0" or f[23] != protocol:
            continue
        ports = struct.unpack(">HH", f[34:38])
        if (source or ports[0], target or ports[1]) == ports:
            total += struct.unpack(">H", f[16:18])[0] - 20 - (8 if protocol == 17 else f[46] >> 4 << 2)
    return total


def judge_user(path, download, upload):
    """What a capture of the user network holds of DHCP, a file from port `port` and an upload from 7000."""
    frames = records(path)
    port, size = download
    figures = (payload(frames, 17, 67, 68) >= 300, payload(frames, 17, 68, 67) >= 300,
               size <= payload(frames, 6, port) <= 3 * size, upload <= payload(frames, 6, 7000) <= 2 * upload)
    if not all(figures):
        raise Fail(f"{path}: {len(frames)} frames are not all that there were: {figures}")
    return frames


def judge_peer(peer, path):
    """The socket's other side and the capture saw the same frames. A capture has checksums as the driver left them."""
    peer.thread.join(10)
    if peer.wrong:
        raise Fail(f"the guest's frames have wrong sums: {peer.wrong[:5]}")

    def plain(frame):
        return frame[:40] + frame[42:] if frame[12:14] == b"\x08\0" and frame[23] == 17 else frame
    seen = [plain(f) for _, f in peer.frames]
    if sorted(plain(f) for f in records(path)) != sorted(seen) or len(seen) < 100:
        raise Fail(f"{path}: not the {len(seen)} frames of the other side")


def talk(guest, port):
    """Datagrams to a forwarded port. The first ones may be lost: the guest is about to listen."""
    guest.until("READY datagrams")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", port))
        s.settimeout(2)
        for text in (b"one", b"x" * 1400, b"y" * 9000, b"end"):
            for _ in range(15):
                s.send(text)
                try:
                    back = s.recv(65536)
                    break
                except TimeoutError:
                    continue
            else:
                raise Fail(f"no answer to a datagram of {len(text)} bytes")
            if back != b"back: " + text:
                raise Fail(f"a datagram came back as {back[:40]!r}")


class Networks:
    """More networks for a machine that an ordinary user runs, if we may become one. folder: all that the machine opens is in it."""

    def __init__(self, kit, folder):
        self.kit, self.folder, self.root = kit, folder, os.geteuid() == 0
        self.port = kit.free_port()
        self.peer = Peer(f"{folder}/peer")
        self.resolver = self.name_server()
        self.words, self.checks = ("names", 10) if self.resolver else ("", 9)
        self.remark = ", ".join(["not as another user"] * (not self.root) + ["no name server"] * (not self.resolver))

    name = "networks"
    forward = property(lambda self: f",forward=udp:{self.port}:7001")

    def name_server(self):
        """None: the machine cannot be made to ask ours, which takes a mount over the host's configuration, and its port."""
        if not self.root or not os.path.exists("/etc/resolv.conf") or \
                subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            return None
        try:
            return Resolver()
        except OSError:     # another server has all addresses
            return None

    def files(self):
        program = f"{self.folder}/datagrams"
        subprocess.run(["cc", "-static", "-O1", "-o", program, os.path.join(os.path.dirname(__file__), "datagrams.c")], check=True)
        return [f"datagrams={program}"]

    def options(self):
        return ["--net", f"socket={self.folder}/peer,pcap={self.folder}/peer.pcap,mac=52:54:00:0a:0b:0e",
                "--net", f"user,pcap={self.folder}/second.pcap"]

    def command(self, command, kernel):
        """The same as nobody, who may read neither the tree nor what root had made; names are asked of our server."""
        if not self.root:
            return command
        for file in (command[0], kernel):
            shutil.copy(file, self.folder)
        words = [f"{self.folder}/{os.path.basename(w)}" if w in (command[0], kernel) else w for w in command]
        for path, _, names in os.walk(self.folder):
            for name in (".", *names):
                os.chown(os.path.join(path, name), NOBODY, NOBODY)
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--no-new-privs"]
        if not self.resolver:
            return drop + words
        with open(f"{self.folder}/resolv.conf", "w", encoding="ascii") as f:
            f.write(f"nameserver {self.resolver.address}\n")
        return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"',
                f"{self.folder}/resolv.conf", *drop, *words]

    def meet(self, guest):
        talk(guest, self.port)
        with open(f"/proc/{guest.process.pid}/status", encoding="ascii") as f:
            status = f.read()
        if self.root and (f"Uid:\t{NOBODY}\t{NOBODY}" not in status or "CapEff:\t0000000000000000" not in status):
            raise Fail("the machine is not an ordinary user's")

    def judge(self, download, _):
        if self.resolver and not self.resolver.asked:
            raise Fail("the name server was not asked")
        judge_peer(self.peer, f"{self.folder}/peer.pcap")
        port, size = download
        if payload(records(f"{self.folder}/second.pcap"), 6, port) < size:
            raise Fail("the second router's capture lacks the file")
        frames = records(f"{self.folder}/net.pcap")
        if not payload(frames, 17, 7001) or (self.resolver and not payload(frames, 17, 53)):
            raise Fail("the capture lacks datagrams")

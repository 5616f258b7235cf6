"""Programs of others, unmodified, from Debian's packages, on softkvm: Debian under QEMU from a disk, and libguestfs.

The product of machines, firmware, CPUs and devices takes hours: a set that covers each of them runs always. With QUMRA_SLOW=1
in the environment each pair of them runs (half an hour), with QUMRA_SLOW=all the whole product.
"""
import importlib.util
import itertools
import os
import re
import shutil
import sys
import tempfile

from harness import ROOT, Missing, Test

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import disk  # noqa: E402
import features  # noqa: E402
import guestfs  # noqa: E402
from debian import Debian, Repository, qcow2  # noqa: E402

spec = importlib.util.spec_from_file_location("softkvm_suite", os.path.join(ROOT, "tests", "softkvm", "suite.py"))
softkvm_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(softkvm_suite)

SLOW = os.environ.get("QUMRA_SLOW")
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
DISKS = {"virtio": ("-device", "virtio-blk-pci,drive=d"), "ahci": ("-device", "ahci,id=sata", "-device", "ide-hd,bus=sata.0,drive=d"),
         "mmio": ("-device", "virtio-blk-device,drive=d")}
NETS = {"virtio": "virtio-net-pci", "e1000": "e1000", "mmio": "virtio-net-device"}
# The interrupts of microvm's second IOAPIC, which QEMU models, are level-triggered, and KVM tells nobody of their end where it has
# the irqchip: any KVM hangs. (By itself QEMU takes split there.)
MACHINE_MORE = {"microvm": ",rtc=on", ("microvm", "on"): ",rtc=on,ioapic2=off"}
# With 48 bits of physical addresses Debian 12's OVMF makes tables of 2 MiB pages for all of them, for hours, also on TCG: see
# command().
# machine, irqchip, CPUs, CPU, firmware, disk, network. Without an irqchip of the hypervisor's one CPU only: with more, SeaBIOS
# hangs on any KVM.
FAST = (
    ("pc", "on", 1, "qemu64", "seabios", "virtio", "virtio"),
    ("q35", "split", 4, "qemu64", "ovmf", "ahci", "e1000"),
    ("microvm", "on", 1, "host", "direct", "mmio", "mmio"),
    ("pc", "off", 1, "Skylake-Client", "seabios", "ahci", "e1000"),
)
CPUS = ("host", "host,migratable=off", "qemu64", "Skylake-Client")


def command(build, machine, irqchip, cpus, cpu, firmware, where, net, drive, folder, memory=512):
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("no QEMU")
    more = MACHINE_MORE.get((machine, irqchip), MACHINE_MORE.get(machine, ""))
    if firmware == "ovmf" and cpu.startswith("host"):
        cpu += ",host-phys-bits-limit=40"
    if irqchip == "off" and cpu.startswith("host"):
        cpu += ",kvm-asyncpf-int=off"   # needs KVM's local APIC; QEMU offers it all the same, and any KVM says #GP
    words = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", cpu, "-smp", str(cpus), "-m", str(memory), "-display", "none",
             "-nodefaults", "-no-user-config", "-machine",
             f"{machine},kernel-irqchip={irqchip}{more}",
             "-drive", f"if=none,id=d,file={drive},discard=unmap", *DISKS[where],
             "-netdev", "user,id=n", "-device", f"{NETS[net]},netdev=n"]
    if firmware == "ovmf":
        if not os.path.exists(OVMF[0]):
            raise Missing("no OVMF")
        variables = os.path.join(folder, "vars.fd")
        shutil.copy(OVMF[1], variables)
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF[0]}",
                  "-drive", f"if=pflash,format=raw,file={variables}"]
    elif firmware == "direct":
        words += ["-kernel", disk.KERNEL, "-initrd", disk.INITRD, "-append",
                  f"root=LABEL=root ro console=ttyS0 net.ifnames=0 panic=-1{' reboot=t' if machine == 'microvm' else ''}"]
    return softkvm_suite.softkvm(build, *words)


def check_log(guest):
    guest.check_log(softkvm_suite.boot_suite.BAD,
                    [*softkvm_suite.boot_suite.known(), softkvm_suite.QEMU_CPU, softkvm_suite.boot_suite.HPET_LATE,
                     softkvm_suite.boot_suite.OVMF_ROM])


def debian(build, machine, log):
    with tempfile.TemporaryDirectory() as folder, Repository(os.path.join(folder, "repository")) as repository:
        words = command(build, *machine, qcow2(folder), folder)
        with Debian(words, folder, "monitor", log) as guest:
            guest.live(machine[2], repository, check_log)


def monitor(build, machine, log):
    """Hotplug and snapshots."""
    name, cpus = machine[0], machine[2]
    features.monitor(lambda folder, drive: command(build, *machine, drive, folder), name, cpus, log, check_log)


def shell(build, accel, machine, cpu, cpus, memory=256):
    """QEMU's command for a small guest with a shell."""
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("no QEMU")
    kernel, _ = softkvm_suite.boot_suite.files("cloud-amd64")
    return softkvm_suite.softkvm(
        build, "qemu-system-x86_64", "-accel", accel, "-machine", machine, "-cpu", cpu, "-smp", str(cpus), "-m", str(memory),
        "-display", "none", "-nodefaults", "-no-user-config", "-kernel", kernel, "-initrd", softkvm_suite.shell_initramfs(),
        "-append", "console=ttyS0 panic=-1 quiet")


def debugger(build, cpus, log):
    features.debugger(shell(build, "kvm", "q35", "host", cpus), log)


def migration(build, accel, machine, cpus, log):
    return features.migration(shell(build, accel, machine, "qemu64", cpus), log)


def libguestfs(build, log):
    with tempfile.TemporaryDirectory() as folder:
        guestfs.image(softkvm_suite.softkvm(build), folder, log)


MONITOR = (     # as FAST
    ("pc", "on", 1, "qemu64", "seabios", "virtio", "virtio"),
    ("q35", "split", 2, "qemu64", "seabios", "virtio", "virtio"),
)


def product():
    """Every combination that QEMU has, but those that run always."""
    for machine, irqchip, cpus, cpu in itertools.product(("pc", "q35"), ("on", "split", "off"), (1, 4), CPUS):
        if irqchip == "off" and cpus > 1:
            continue
        for firmware, where, net in itertools.product(("seabios", "ovmf"), ("virtio", "ahci"), ("virtio", "e1000")):
            yield machine, irqchip, cpus, cpu, firmware, where, net
    for irqchip, cpus, cpu in itertools.product(("on", "split", "off"), (1, 4), CPUS):
        if irqchip != "off" or cpus == 1:
            yield "microvm", irqchip, cpus, cpu, "direct", "mmio", "mmio"


def pairs(machine):
    return set(itertools.combinations(enumerate(machine), 2))


def spread(machines, done):
    """Few of the machines, such that each pair of choices (a machine and a CPU, an irqchip and a disk ...) that any of them has is
    in one of these or of those that are done: always the one with most pairs that are still missing."""
    missing = set().union(*map(pairs, machines)).difference(*map(pairs, done))
    while missing:
        best = max(machines, key=lambda m: len(pairs(m) & missing))
        missing -= pairs(best)
        yield best


def slow():
    rest = [m for m in product() if m not in FAST]
    return rest if SLOW == "all" else spread(rest, FAST) if SLOW else ()


def tests(build):
    if build.name:
        return
    machines = [*FAST, *slow()]
    for machine in machines:
        yield Test("clients/debian-" + "-".join(map(str, machine)), lambda log, m=machine: debian(build, m, log), cost=60)
    for machine in MONITOR:
        yield Test(f"clients/monitor-{machine[0]}-{machine[1]}", lambda log, m=machine: monitor(build, m, log), cost=50)
    for cpus in (1, 2):
        yield Test(f"clients/gdb-{cpus}", lambda log, n=cpus: debugger(build, n, log), cost=10)
    for name, accel, machine, cpus in (("log", "kvm", "pc", 1), ("ring", "kvm,dirty-ring-size=4096", "q35", 2)):
        yield Test(f"clients/live-migration-{name}", lambda log, m=(accel, machine, cpus): migration(build, *m, log), cost=30)
    yield Test("clients/guestfish", lambda log: libguestfs(build, log), cost=60)

"""What leaving the guest costs (bench/exits/): our hypervisor under softkvm and the host's /dev/kvm, in alternation."""
import collections
import os
import statistics
import subprocess

from machine import ROOT, progress
from report import number, table, verdict

PROGRAM = os.path.join(ROOT, "build", "guest-tests", "exits")
OURS, HOST = "Qumra", "/dev/kvm"

# Names of bench/exits/exits.c; goal: nanoseconds.
Row = collections.namedtuple("Row", "name text goal")
ROWS = [
    Row("call", "KVM_RUN that runs nothing", None),
    Row("pio-out-user", "OUT to user space", 500),
    Row("pio-in-user", "IN from user space", 500),
    Row("mmio-write-user", "MMIO write to user space", 500),
    Row("mmio-read-user", "MMIO read from user space", 500),
    Row("pio-out-pic", "OUT to the PIC", 200),
    Row("pio-in-pic", "IN from the PIC", 200),
    Row("mmio-write-lapic", "MMIO write to the local APIC", 200),
    Row("mmio-read-lapic", "MMIO read from the local APIC", 200),
    Row("mmio-read-ioapic", "MMIO read from the IOAPIC", 200),
    Row("ioeventfd-pio", "ioeventfd by OUT", None),
    Row("ioeventfd-mmio", "ioeventfd by MMIO", None),
    Row("cpuid", "CPUID", None),
    Row("rdmsr", "RDMSR", None),
    Row("self-ipi", "IPI to itself, to the handler's end", None),
    Row("ipi", "IPI to a CPU that computes, and back", None),
    Row("ipi-halted", "IPI to a CPU in HLT, and back", None),
    Row("irqfd", "irqfd to a handler, CPU computes", None),
    Row("irqfd-halted", "irqfd to a handler, CPU in HLT", None),
]


def build():
    os.makedirs(os.path.dirname(PROGRAM), exist_ok=True)
    subprocess.run(["gcc", "-O2", "-pthread", "-o", PROGRAM, "bench/exits/exits.c", "bench/exits/guest.S"], cwd=ROOT, check=True)


def command(place, engine):
    if place == HOST:
        return [PROGRAM]
    return [os.path.join(ROOT, "build", "softkvm"), *(["--engine", engine] if engine else []), PROGRAM, "--paging"]


def measure(rounds, engine=None):
    """figures[place][name]: (least, median) in nanoseconds; the least of all rounds, the median of their medians."""
    build()
    samples = {place: collections.defaultdict(list) for place in (OURS, HOST)}
    places = [OURS] + ([HOST] if os.access(HOST, os.R_OK | os.W_OK) else [])
    for i in range(rounds):
        for place in places:
            progress(f"exits, round {i + 1} of {rounds}: {place}")
            out = subprocess.run(command(place, engine), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 check=False).stdout.decode()
            for name, *numbers in map(str.split, out.splitlines()):
                if len(numbers) == 2:
                    samples[place][name].append(tuple(map(float, numbers)))
    return {place: {name: (min(least for least, _ in s), statistics.median(m for _, m in s)) for name, s in by_name.items()}
            for place, by_name in samples.items()}


def cells(pair):
    return [number(x) for x in pair] if pair else ["", ""]


def show(figures):
    rows = []
    for r in ROWS:
        ours, host = (figures[place].get(r.name) for place in (OURS, HOST))
        rows.append((r.text, *cells(ours), *cells(host), f"under {r.goal} ns" if r.goal else "",
                     verdict(ours and ours[0] < r.goal) if r.goal else ""))
    table(("exit", "Qumra ns, least", "median", "/dev/kvm ns, least", "median", "goal", ""), rows)

"""Start-up, idle and bare loops of small guests (bench/loop.c, tests/guest/hello.c): what no Linux is needed for."""
import collections
import os
import re
import statistics
import subprocess
import time

import boot
from machine import ROOT, Guest, Process, Qumra, progress

GUESTS = os.path.join(ROOT, "build", "guest-tests")
LOOPS = ("integer", "memory", "branches")


def build_guest(source, name):
    os.makedirs(GUESTS, exist_ok=True)
    path = os.path.join(GUESTS, name + ".elf")
    subprocess.run(["tests/guest/build-guest", path, "64", source], cwd=ROOT, check=True)
    return path


def loops(machine, guest, figures):
    """Millions of instructions a second of each loop."""
    with Process(machine.command(guest)) as process:
        for _ in LOOPS:
            begin, found = process.until(r"begin (\w+) (\d+)")
            end, _ = process.until(f"end {found[1]}")
            figures[found[1]].append(int(found[2]) / (end - begin) / 1e6)


def first_output(machine, guest, figures):
    with Process(machine.command(guest)) as process:
        figures["output"].append(process.first_byte() * 1000)


def first_instruction(machine, guest, figures):
    """Qumra's own figure: from main() to the first entry into the guest."""
    r = subprocess.run(machine.command(guest, "--stats"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, check=False)
    found = re.search(rb"start_to_first_run_us (\d+)", r.stderr)
    if found:
        figures["instruction"].append(int(found[1]) / 1000)


def idle(machine, files, figures, seconds=10):
    with Process(machine.command(boot.guest(files, "bench=idle"))) as process:
        process.until("INIT reached")
        time.sleep(2)
        before, start = process.cpu(), time.monotonic()
        time.sleep(seconds)
        figures["idle"].append((process.cpu() - before) / (time.monotonic() - start) * 100)


def measure(machines, files, rounds):
    """Medians: figures[machine][what]."""
    loop, hello = (Guest(build_guest(*names), memory=64)
                   for names in (("bench/loop.c", "loop"), ("tests/guest/hello.c", "hello-64")))
    figures = {machine.name: collections.defaultdict(list) for machine in machines}
    for i in range(rounds):
        for machine in machines:
            progress(f"loops of small guests, round {i + 1} of {rounds}: {machine.name}")
            loops(machine, loop, figures[machine.name])
    for _ in range(10):
        for machine in machines:
            first_output(machine, hello, figures[machine.name])
            if isinstance(machine, Qumra):
                first_instruction(machine, hello, figures[machine.name])
    for machine in machines:
        progress(f"idle Linux: {machine.name}")
        idle(machine, files, figures[machine.name])
    return {name: {what: statistics.median(values) for what, values in by_what.items()}
            for name, by_what in figures.items()}

"""kvm-unit-tests (https://gitlab.com/kvm-unit-tests/kvm-unit-tests) under Debian's QEMU on softkvm. It is in no package:
QUMRA_KVM_UNIT_TESTS names the directories, joined by colons, in which it was configured and built, one for x86_64 and, if
wanted, one for i386. tests/kvm-unit-tests/list says what each test does: one that does anything else has failed, also if it
is something better."""
import fnmatch
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import replace

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import BUILDS, ENGINES, ROOT, Fail, Skip, Test, run_process, verdicts  # noqa: E402

LIST = os.path.join(ROOT, "tests", "kvm-unit-tests", "list")
VARIABLE = "QUMRA_KVM_UNIT_TESTS"
TRIES = 3       # of tests that compare the guest's time with the host's ("timing"): a busy host stops guests for milliseconds
LIMIT = 120     # seconds, at least; "timeout" of a test's stanza and "limit=" in the list may make it more
QEMU = "qemu-system-x86_64"
DEVICES = ("--no-reboot -nodefaults -vnc none -serial stdio -device pc-testdev -device pci-testdev "
           "-device isa-debug-exit,iobase=0xf4,iosize=0x4").split()
# QEMU's isa-debug-exit ends it with twice the guest's status and one; the guest's for a skip is 77 / 2.
PASSED, SKIPPED = 1, 77
# Ours: the counters of Intel's kind, which their own row finds on Intel hosts only; rows of trees before 2026 whose local
# APICs are the hypervisor's and whose other chips are QEMU's. One processor for the IOAPIC, as there: with more, the test
# turns the route of an interrupt in service elsewhere, whose EOI Linux 6.1 then does not tell QEMU of.
SPLIT = "-cpu qemu64,+x2apic,+tsc-deadline -machine kernel_irqchip=split"
MORE = {"pmu-intel": {"file": "pmu.flat", "qemu_params": "-cpu max,vendor=GenuineIntel"},
        "apic-split": {"file": "apic.flat", "smp": "2", "qemu_params": SPLIT, "arch": "x86_64", "timeout": "30"},
        "ioapic-split": {"file": "ioapic.flat", "qemu_params": SPLIT, "arch": "x86_64"}}


def trees():
    """{architecture: directory}"""
    found = {}
    for folder in filter(None, os.environ.get(VARIABLE, "").split(":")):
        try:
            with open(os.path.join(folder, "config.mak"), encoding="utf-8") as f:
                arch = re.search(r"^ARCH=(\S+)", f.read(), re.M)
        except OSError as e:
            raise Fail(f"{VARIABLE}: {folder} was not configured: {e.strerror}") from e
        if arch:
            found[arch[1]] = folder
    return found


def stanzas(arch, folder):
    """{name: {key: value}}: the tests for an architecture, as the tree's own list has them."""
    tests, at = {f"{arch}/{name}": dict(row) for name, row in MORE.items()}, {}
    with open(os.path.join(folder, "x86", "unittests.cfg"), encoding="utf-8") as f:
        for line in map(str.strip, f):
            if line.startswith("[") and line.endswith("]"):
                at = tests.setdefault(f"{arch}/{line[1:-1]}", {})
            elif "=" in line and not line.startswith("#"):
                key, value = line.split("=", 1)
                at[key.strip()] = value.strip()
    return {name: row for name, row in tests.items() if row.get("arch", arch) == arch}


def listed():
    """{name: (verdict, options, reason)}"""
    return verdicts(LIST)


def limit(stanza, options):
    named = [float(o[6:]) for o in options if o.startswith("limit=")]
    return max([LIMIT, float(stanza.get("timeout", 0)), *named])


def options_of(stanza):
    """QEMU's options: trees up to 2025 have all in extra_params, later ones the guest's own words in test_args."""
    def split(value):
        return shlex.split(value.replace("`date +%s`", str(int(time.time()))))
    args = split(stanza.get("test_args", ""))
    return [*split(stanza.get("qemu_params", stanza.get("extra_params", ""))), *(["-append", " ".join(args)] if args else [])]


def command(stanza, folder, accel):
    words = options_of(stanza)
    return [QEMU, *DEVICES, "-machine", f"accel={accel}", "-kernel", os.path.join(folder, "x86", stanza["file"]),
            "-smp", stanza.get("smp", "1"), *(w for w in words if w != "-enable-kvm")]


def run(build, stanza, folder, options, log, tcg=False):
    softkvm = os.path.join(build.path, "softkvm")
    if not shutil.which(QEMU):
        raise Skip(f"no {QEMU}")
    if not os.path.exists(softkvm):
        raise Fail(f"{softkvm} is not built")
    if not os.path.exists(os.path.join(folder, "x86", stanza["file"])):
        raise Skip(f"{stanza['file']} is not built")
    first = ["nice", "-n", "-15"] if "timing" in options and os.geteuid() == 0 else []
    prefix = first if tcg else [*first, softkvm, *(["--engine", build.engine] if build.engine else [])]
    with tempfile.NamedTemporaryFile("w", prefix="qumra-environment-") as env:     # the guest's getenv()
        env.write("KERNEL_VERSION=6\nKERNEL_PATCHLEVEL=1\nKERNEL_SUBLEVEL=0\n")
        env.flush()
        return run_process([*prefix, *command(stanza, folder, "tcg" if tcg else "kvm"), "-initrd", env.name],
                           limit(stanza, options), log)


def complaints(result):
    """QEMU's own failures have status 1 too, but it says something."""
    return [line for line in result.err.decode(errors="replace").splitlines() if line.strip() and "warning" not in line]


def unmet(stanza):
    """The first of the stanza's checks, PATH=VALUE, that does not hold; kvm-unit-tests then skips. They ask the host's own
    KVM, so a test that the list says passes is run all the same."""
    for check in stanza.get("check", "").split():
        path, value = check.split("=", 1)
        try:
            with open(path, encoding="utf-8") as f:
                holds = f.read().strip() == value
        except OSError:
            holds = False
        if not holds:
            return f"{path} not equal to {value}"
    return None


def mostly_skipped(result):
    """Of what it reports half was skipped, or more: that was its work, and the rest led there."""
    found = re.search(rb"^SUMMARY: (\d+) tests(?:, .*?)?, (\d+) skipped", result.out, re.M)
    return bool(found) and 2 * int(found[2]) >= int(found[1])


def verdict(result):
    """A QEMU that refuses its options, and so says nothing for the guest, is a skip of kvm-unit-tests, too."""
    if result.timed_out:
        return "fails"
    if result.status == PASSED and complaints(result):
        return "skips" if re.search(r"Property '.*' not found", complaints(result)[0]) else "fails"
    if result.status == PASSED and mostly_skipped(result):
        return "skips"
    return {PASSED: "passes", SKIPPED: "skips"}.get(result.status, "fails")


def said(result):
    """Why it skips or fails, in its own words."""
    text = result.out.decode(errors="replace").replace("\r", "")
    failures = re.findall(r"^FAIL:? *(.*)", text, re.M)
    if result.timed_out:
        return f"no end within {result.seconds:.0f} s" + (f"; {failures[0]}" if failures else "")
    if failures:
        return f"{len(failures)} failed: {failures[0]}"
    lines = complaints(result) or re.findall(r"^SKIP: *(.*)", text, re.M) or [s for s in text.splitlines() if s.strip()][-1:]
    return lines[0].strip() if lines else f"status {result.status}"


def one(build, name, row, log):
    expected, options, reason = row
    arch = name.split("/")[0]
    folder = trees().get(arch)
    if not folder:
        raise Skip(f"{VARIABLE} names no tree that was built for {arch}")
    stanza = stanzas(arch, folder).get(name)
    if not stanza:
        raise Skip("not in this version of kvm-unit-tests")
    if expected != "passes" and unmet(stanza):
        raise Skip(unmet(stanza))
    for _ in range(TRIES if "timing" in options else 1):
        result = run(build, stanza, folder, options, log)
        got = verdict(result)
        if got == expected:
            break
    else:
        raise Fail(f"{got} ({said(result)}); the list says it {expected}{': ' + reason if reason else ''}")
    if got != "passes":
        raise Skip(f"{expected}: {reason}")


def no_tree(_log):
    raise Skip(f"{VARIABLE} names no tree that was built")


def complete(log):
    """The list has every test of the trees, and a reason for each that does not pass."""
    rows = listed()
    wrong = [f"{n} {rows[n][0]} for no reason" for n in rows if rows[n][0] != "passes" and not rows[n][2]]
    for arch, folder in trees().items():
        wrong += [f"{n} is not in the list" for n in sorted(set(stanzas(arch, folder)) - set(rows))]
    for w in wrong:
        log.write(f"FAIL {w}\n".encode())
    if wrong:
        raise Fail(wrong[0])
    return f"{len(rows)} tests"


def tests(build):
    if build.name:      # a sanitizer's run time would have to be the program's
        return
    yield Test("kvm-unit-tests/list", complete)
    if not os.environ.get(VARIABLE):
        yield Test("kvm-unit-tests/run", no_tree)
        return
    for b in build.variants():
        for name, row in listed().items():
            if b.engine == ENGINES[0] or (row[0] == "passes" and "once" not in row[1]):
                yield Test(b.test(f"kvm-unit-tests/{name}"), lambda log, b=b, n=name, r=row: one(b, n, r, log),
                           alone="timing" in row[1], cost=5)


def write_row(name, got, old, result):
    with open(LIST, encoding="utf-8") as f:
        lines = f.read().splitlines()
    row = " ".join([name, got, *old[1]]) + (f": {said(result)}" if got != "passes" else "")
    at = [i for i, line in enumerate(lines) if line.split()[:1] == [name]]
    lines[at[0] if at else len(lines):at[0] + 1 if at else len(lines)] = [row]
    with open(LIST, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def update(patterns, engine="", tcg=False):
    """Writes what tests do now into the list: suite.py [--engine=NAME | --tcg] [NAME...], names with * and ?. What an engine
    that was named, or QEMU's TCG, makes of them is only said."""
    logs = os.path.join(ROOT, "build", "test-logs")
    os.makedirs(logs, exist_ok=True)
    for arch, folder in trees().items():
        for name, stanza in stanzas(arch, folder).items():
            if patterns and not any(fnmatch.fnmatch(name, p) for p in patterns):
                continue
            old = listed().get(name, ("", [], ""))
            path = os.path.join(logs, f"kvm-unit-tests-{'tcg' if tcg else engine}-{name.replace('/', '-')}.log")
            with open(path, "wb") as log:
                result = run(replace(BUILDS[0], engine=engine), stanza, folder, old[1], log, tcg)
            got = verdict(result)
            if got != "passes" and unmet(stanza):
                got = "skips"
            print(f"{name} {got}{': ' + said(result) if got != 'passes' else ''} ({result.seconds:.1f} s)", flush=True)
            if got != old[0] and not tcg and not engine:
                write_row(name, got, old, result)


if __name__ == "__main__":
    words = sys.argv[1:]
    named = [w[9:] for w in words if w.startswith("--engine=")]
    update([w for w in words if not w.startswith("--")], (named or [""])[0], "--tcg" in words)

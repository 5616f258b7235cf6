"""The rules of the house, checked on the sources and on the objects made of them. See docs/architecture.md."""
import os
import re
import statistics
import subprocess

from harness import ROOT, Fail, Test, run_process

LAYERS = {      # a layer, and what its files may include with quotes
    "lib": ("lib",),
    "hypervisor": ("lib", "hypervisor"),
    "vmm": ("lib", "vmm"),
    "cli": ("lib", "vmm", "cli"),
}
# The vmm's one door into the hypervisor, and who may open it.
DOOR, DOOR_KEEPER = "hypervisor/api/qkvm.h", "vmm/kvm/"
HOSTED = ("hypervisor/os/", "hypervisor/preload/")    # ordinary C with the C library
FREESTANDING_HEADERS = re.compile(r"^(std(int|bool|def|arg)\.h|linux/.*)$")
LONG_FILES = {  # a file of 1000 lines or more: tables only
}
LINES_MAX = 1000
FUNCTION_MAX = 150
COLUMNS_MAX = 110       # the style says 100; a row of a table may hang over
# Mutable data in hypervisor/, with the reason why it is no state of a VM.
MUTABLE = {
}
EXITS = {
    "cli/main.c": "the program's end",
    "vmm/chardev/terminal.c": "the end of the child that restores the terminal",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.M)


def sources(*folders, ends=(".c", ".h", ".S")):
    listed = subprocess.run(["git", "ls-files", "-z", "--", *folders], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 and listed.stdout else walk(folders)
    return sorted(n for n in names if n.endswith(ends) and os.path.exists(os.path.join(ROOT, n)))


def walk(folders):
    for folder in folders:
        for base, _, files in os.walk(os.path.join(ROOT, folder)):
            for f in files:
                yield os.path.relpath(os.path.join(base, f), ROOT)


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def report(log, problems, fine):
    for p in problems:
        log.write(f"FAIL {p}\n".encode())
    if problems:
        raise Fail(f"{len(problems)}, first: {problems[0]}")
    return fine


def includes(log):
    problems = []
    files = sources(*LAYERS)
    for name in files:
        layer = name.split("/")[0]
        for quoted, system in INCLUDE.findall(read(name)):
            if quoted:
                target = quoted.split("/")[0]
                door = quoted == DOOR and name.startswith(DOOR_KEEPER)
                if "/" not in quoted:
                    problems.append(f'{name}: "{quoted}" is not written from the root')
                elif target not in LAYERS[layer] and not door:
                    problems.append(f"{name} includes {quoted}")
            elif layer == "hypervisor" and not name.startswith(HOSTED) and not FREESTANDING_HEADERS.match(system):
                problems.append(f"{name} includes <{system}>")
    return report(log, problems, f"{len(files)} files")


def seam_symbols():
    """Names that os.h declares, and those that its asm labels give them."""
    text = re.sub(r"/\*.*?\*/", "", read("hypervisor/os/os.h"), flags=re.S)
    labels = set(re.findall(r'__asm__\("(\w+)"\)', text))
    return labels | set(re.findall(r"\b(os_\w+)\s*\(", text))


def objects(build):
    """The objects of hypervisor/ outside os/, by meson's naming."""
    base = os.path.join(build.path, "hypervisor", "libhypervisor.a.p")
    if not os.path.isdir(base):
        raise Fail(f"{base} is not there: build first")
    return [os.path.join(base, f) for f in sorted(os.listdir(base)) if f.endswith(".o")]


def symbols(files):
    """(kind, name, object) of each symbol."""
    out = subprocess.run(["nm", "-A", *files], stdout=subprocess.PIPE, check=True).stdout.decode()
    for line in out.splitlines():
        where, rest = line.split(":", 1)
        words = rest.split()
        yield words[-2], words[-1], os.path.basename(where)


def seam(build, log):
    all_symbols = list(symbols(objects(build)))
    defined = {name for kind, name, _ in all_symbols if kind not in "Uwv"}
    allowed = seam_symbols() | {"_GLOBAL_OFFSET_TABLE_"}
    problems = [f"{obj} needs {name}" for kind, name, obj in all_symbols
                if kind in "Uwv" and name not in defined and name not in allowed]
    return report(log, sorted(set(problems)), f"{len(allowed) - 1} functions of the seam")


def globals_(build, log):
    problems = []
    for name in objects(build):
        out = subprocess.run(["objdump", "-t", name], stdout=subprocess.PIPE, check=True).stdout.decode()
        for line in out.splitlines():
            match = re.match(r"^\w+ .{7} (\S+)\t\w+ (?:\.hidden )?(\S+)$", line)
            # .data.rel.ro is constant data with addresses in it.
            if match and re.match(r"\.(data(?!\.rel\.ro)|bss)|\*COM\*", match[1]) \
                    and not match[2].startswith(".") and match[2] not in MUTABLE:
                problems.append(f"{os.path.basename(name)}: {match[2]} is mutable data")
    return report(log, problems, "none")


def lengths(log):
    problems = []
    for name in sources(*LAYERS):
        n = read(name).count("\n")
        if n >= LINES_MAX and name not in LONG_FILES:
            problems.append(f"{name}: {n} lines")
    return report(log, problems, f"under {LINES_MAX} lines")


def functions(text):
    """(name, lines) of each function: the kernel's style has its braces in column 0."""
    lines = text.splitlines()
    start = None
    for i, line in enumerate(lines):
        if line == "{" and i and (lines[i - 1].endswith(")") or lines[i - 1].endswith("*/")):
            start = i
        elif line.startswith("}") and start is not None:
            head = " ".join(lines[max(0, start - 4):start])
            names = re.findall(r"\b(\w+)\s*\(", head)
            yield (names[-1] if names else "?"), i - start - 1
            start = None


def function_lengths(log):
    problems, all_lengths = [], []
    for name in sources(*LAYERS, ends=(".c", ".h")):
        for function, n in functions(read(name)):
            all_lengths.append(n)
            if n > FUNCTION_MAX:
                problems.append(f"{name}: {function} has {n} lines")
    all_lengths.sort()
    share = f"{len(all_lengths)} functions, median {statistics.median(all_lengths):.0f} lines, " \
            f"p90 {all_lengths[len(all_lengths) * 90 // 100]}, p99 {all_lengths[len(all_lengths) * 99 // 100]}, " \
            f"longest {all_lengths[-1]}"
    return report(log, problems, share)


def no_exit(log):
    problems = []
    for name in sources(*LAYERS, ends=(".c", ".h")):
        text = re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', "", read(name), flags=re.S)
        for call in re.findall(r"(?<![\w.>])(_?exit|_Exit|quick_exit)\s*\(", text):
            if name not in EXITS:
                problems.append(f"{name} calls {call}()")
    return report(log, problems, ", ".join(sorted(EXITS)))


def looks(log):
    problems = []
    for name in sources(*LAYERS, "tests", "bench"):
        text = read(name)
        if name.split("/")[0] in LAYERS and not text.lstrip().startswith(("/*", "#!")):
            problems.append(f"{name}: no comment at its beginning")
        if name.endswith(".h") and "#ifndef" not in text:
            problems.append(f"{name}: no include guard")
        if re.match(r"(misc|common|utils?|helpers?)\.", os.path.basename(name)):
            problems.append(f"{name}: a name that says nothing")
        for number, line in enumerate(text.splitlines(), 1):
            if len(line.expandtabs(8)) > COLUMNS_MAX and name.split("/")[0] in LAYERS:
                problems.append(f"{name}:{number}: {len(line.expandtabs(8))} columns")
            if line != line.rstrip():
                problems.append(f"{name}:{number}: space at the end")
    return report(log, problems, None)


def kvm_api(build, log):
    """docs/kvm-api.md says what the API's tables say, and why the rest is left out."""
    made = run_process([os.path.join(ROOT, "scripts/kvm-api"), "--check", build.path], 60, log)
    if made.status == 77:
        raise Skip(made.out.decode(errors="replace").strip().splitlines()[-1])
    if made.status:
        raise Fail((made.out or made.err).decode(errors="replace").strip().splitlines()[-1])


def tests(build):
    if build.name:      # the sanitizers add symbols of their own
        return
    yield Test("house/includes", includes)
    yield Test("house/seam", lambda log: seam(build, log))
    yield Test("house/globals", lambda log: globals_(build, log))
    yield Test("house/file-length", lengths)
    yield Test("house/function-length", function_lengths)
    yield Test("house/exit", no_exit)
    yield Test("house/looks", looks)
    yield Test("house/kvm-api", lambda log: kvm_api(build, log))

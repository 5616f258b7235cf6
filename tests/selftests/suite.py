"""The kernel's own KVM selftests, as Debian ships their source, on softkvm. tests/selftests/list says what each does:
a test that does anything else has failed, also if it is something better."""
import fnmatch
import os
import re
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import ROOT, Fail, Skip, Test, run_process, script_output, verdicts  # noqa: E402

LIST = os.path.join(ROOT, "tests", "selftests", "list")
SKIPPED = 4     # KSFT_SKIP of the kernel's kselftest.h
LIMIT = 300     # seconds; "limit=" in the list for those that are known not to end
fetch_lock = threading.Lock()


def programs():
    with fetch_lock:
        return script_output("scripts/fetch-selftests")


def listed():
    """{name: (verdict, arguments, reason)}"""
    return verdicts(LIST)


def verdict(result):
    if result.timed_out:
        return "fails"
    return {0: "passes", SKIPPED: "skips"}.get(result.status, "fails")


def said(result):
    """Why it skips or fails, in its own words."""
    text = (result.out + b"\n" + result.err).decode(errors="replace")
    skip = re.search(r"SKIP\s*-?\s*(?:Requirement not met:\s*)?(.+)", text)
    if skip:
        return skip[1].strip()
    if result.timed_out:
        return f"no end within {result.seconds:.0f} s"
    lines = [line.strip() for line in text.splitlines() if line.startswith("  ") and not re.match(r"\s+\d+\s", line)
             and "pid=" not in line and ".c:" not in line]
    return lines[0] if lines else f"status {result.status}"


def run(build, name, arguments, log):
    softkvm = os.path.join(build.path, "softkvm")
    if not os.path.exists(softkvm):
        raise Fail(f"{softkvm} is not built")
    limits = [int(a[6:]) for a in arguments if a.startswith("limit=")]
    words = [a for a in arguments if not a.startswith("limit=")]
    return run_process([softkvm, os.path.join(programs(), name), *words], (limits or [LIMIT])[0], log, cwd=programs())


def one(build, name, row, log):
    expected, arguments, reason = row
    result = run(build, name, arguments, log)
    got = verdict(result)
    if got != expected and not (expected == "either" and got != "fails"):
        raise Fail(f"{got} ({said(result)}); the list says it {expected}{': ' + reason if reason else ''}")
    if got != "passes":
        raise Skip(f"{expected}: {reason}")


def complete(log):
    """The list has every test that was built, and no other."""
    base = programs()
    built = {os.path.relpath(os.path.join(folder, f), base) for folder, _, files in os.walk(base) for f in files
             if os.access(os.path.join(folder, f), os.X_OK)}
    rows = listed()
    wrong = [f"{n} is not in the list" for n in sorted(built - set(rows))] + \
            [f"{n} is in the list, and not built" for n in sorted(set(rows) - built)]
    wrong += [f"{n} {rows[n][0]} for no reason" for n in rows if rows[n][0] != "passes" and not rows[n][2]]
    for w in wrong:
        log.write(f"FAIL {w}\n".encode())
    if wrong:
        raise Fail(wrong[0])
    return f"{len(built)} tests"


def tests(build):
    if build.name:      # a sanitizer's run time would have to be the program's
        return
    rows = listed()
    yield Test("selftests/list", complete, cost=60)
    for name, row in rows.items():
        yield Test(f"selftests/{name}", lambda log, n=name, r=row: one(build, n, r, log), cost=20)


def update(patterns):
    """Writes what tests do now into the list: suite.py [NAME...], names with * and ?."""
    from harness import BUILDS
    base, rows = programs(), listed()
    names = sorted(os.path.relpath(os.path.join(folder, f), base) for folder, _, files in os.walk(base) for f in files
                   if os.access(os.path.join(folder, f), os.X_OK))
    with open(LIST, encoding="utf-8") as f:
        lines = f.read().splitlines()
    for name in names:
        if patterns and not any(fnmatch.fnmatch(name, p) for p in patterns):
            continue
        old = rows.get(name, ("", [], ""))
        with open(os.devnull, "wb") as log:
            result = run(BUILDS[0], name, old[1], log)
        got = verdict(result)
        print(f"{name} {got}", flush=True)
        if got == old[0]:
            continue
        row = " ".join([f"{name} {got}", *old[1]]) + (f": {said(result)}" if got != "passes" else "")
        at = [i for i, line in enumerate(lines) if line.split()[:1] == [name]]
        if at:
            lines[at[0]] = row
        else:
            lines.append(row)
    with open(LIST, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    update(sys.argv[1:])

"""Test suites of Debian's programs on the full root file system: what each case gives on Linnet,
compared with what it gave on Debian's kernel.

usage: python3 tests/suites.py [--linux|--accept|--compare] [--again] [--debug] [--smp N] [--limit SECONDS] SUITE...

  SUITE      a module of CPython's suite (test_os); `stress-ng` (the stressors below) or stress-ng:NAME,NAME;
             `busybox`; `cpython` for all the modules that are stored
  (none)     runs on Linnet and compares with tests/suites/linux.tsv
  --linux    runs on Debian's kernel instead, and compares that
  --accept   as --linux, and what it gave becomes the suite's part of tests/suites/linux.tsv
  --compare  runs nothing: compares what ran last
  --again    runs what has run before with the same packages and the same kernel, too

One boot a suite: what is interrupted goes on with the suites that are missing. The outcomes of a case
are pass, fail, error, skip, xfail and hang; a suite that does not end within the limit keeps what it
had. They are in target/linnet/suites/{linux,linnet}/SUITE.tsv with the suite's output beside them.

Cases of tests/suites/later.tsv need what Linnet does not have yet: they are counted apart. Those of
tests/suites/unsteady.tsv do not give the same on Linux each time, for the reason given there."""
import argparse
import hashlib
import os
import re
import sys

import debian
from console import Console, Failure
from machine import OUT, ROOT, Machine

HERE = os.path.join(ROOT, 'tests', 'suites')
STRESSORS = ('fork vfork clone exec zombie wait kill signal sigfd sigpending sigq sigrt sigsegv sigtrap futex pthread pidfd '
             'personality prctl ptrace get set sigsuspend yield session daemon forkheavy exit-group sock sockpair sockfd '
             'epoll eventfd').split()
OUTCOMES = ('pass', 'fail', 'error', 'skip', 'xfail', 'hang', 'absent')


def runner(suite):
    """(the program that runs a suite in the guest, the command that starts it)."""
    name, _, selection = suite.partition(':')
    if name == 'stress-ng':
        return 'stress-ng.sh', f'bash /tmp/stress-ng.sh {" ".join(selection.split(",") if selection else STRESSORS)}'
    if name == 'busybox':
        return 'busybox.sh', 'bash /tmp/busybox.sh'
    return 'cpython.py', f'python3 /tmp/cpython.py {name}'


def place(kernel, suite):
    directory = os.path.join(OUT, 'suites', kernel)
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, f'{suite}.tsv')


def run(kernel, suite, machine, key, limit):
    """Boots, runs the suite, keeps its outcomes."""
    program, command = runner(suite)
    with open(os.path.join(HERE, program)) as file:
        text = file.read()
    with Console(machine.command(), place(kernel, suite)[:-4] + '.log', 600) as console:
        console.expect(rb'# ')
        console.send("stty -echo\n")
        console.send(f"cat > /tmp/{program} <<'END-OF-RUNNER'\n{text}END-OF-RUNNER\n")
        # The limit of processes follows the memory that is free at boot, which differs a little.
        console.run('ulimit -c 0; ulimit -p 8192; export PATH LANG=C.UTF-8 HOME=/root; cd /tmp')
        console.deadline += limit
        hung = False
        try:
            console.run(f'setsid -w {command} < /dev/null > /tmp/output 2>&1', limit)
        except Failure as failure:
            print(f'{kernel} {suite}: {failure}', flush=True)
            hung = True
            console.send(b'\x03')
        console.run('pkill -9 python3; pkill -9 stress-ng' if hung else 'true', 60)
        outcomes, _ = console.run('cat /tmp/outcomes', 300)
        report, _ = console.run('tail -c 400000 /tmp/output', 600)
    with open(place(kernel, suite)[:-4] + '.output', 'w') as file:
        file.write(report)
    keep(kernel, suite, key, parse(suite, outcomes))


def parse(suite, text):
    """{case: outcome} of the lines of a runner; a case that has begun and not ended is a hang."""
    outcomes, started = {}, None
    for line in text.splitlines():
        kind, _, case = line.partition('\t')
        case = re.sub(r' at 0x[0-9a-f]+', '', case).removeprefix(f'test.{suite}.')
        if kind == 'start':
            started = case
        elif kind == 'end':
            started = None
        elif kind in OUTCOMES:
            outcomes[case] = kind
            started = None
    if started:
        outcomes[started] = 'hang'
    return outcomes


def keep(kernel, suite, key, outcomes):
    with open(place(kernel, suite), 'w') as file:
        file.write(f'# {key}\n' + ''.join(f'{case}\t{outcome}\n' for case, outcome in sorted(outcomes.items())))


def load(kernel, suite):
    """(key, {case: outcome}) of what ran last."""
    try:
        with open(place(kernel, suite)) as file:
            key = file.readline()[2:].strip()
            return key, dict(line.rstrip('\n').split('\t') for line in file)
    except FileNotFoundError:
        return None, {}


def table(name):
    """{suite: {case: text}} of a table in tests/suites."""
    rows = {}
    with open(os.path.join(HERE, name)) as file:
        for line in file:
            if line.strip() and not line.startswith('#'):
                suite, case, text = line.rstrip('\n').split('\t')
                rows.setdefault(suite, {})[case] = text
    return rows


def packages(machine):
    """The versions that a stored outcome is of."""
    wanted = ('libpython3.11-testsuite_', 'libc6_', 'busybox_', 'stress-ng_', 'strace_', 'gdb_')
    with open(debian.rootfs('debian').replace('.cpio', '.list')) as file:
        names = [line.strip().replace('_', ' ').replace('%3a', ':') for line in file if line.startswith(wanted)]
    kernel = os.path.basename(os.path.realpath(machine.image()))
    return [*sorted(names), kernel, f'{machine.smp} CPUs, {machine.mem}']


def accept(suites, machine):
    """What the suites gave on Linux becomes the reference."""
    stored = table('linux.tsv')
    for suite in suites:
        stored[suite] = load('linux', suite)[1]
    with open(os.path.join(HERE, 'linux.tsv'), 'w') as file:
        file.write("# What each case of Debian's test suites gives on Debian's kernel (tests/suites.py --accept):\n"
                   f"# suite, case, outcome. Of {', '.join(packages(machine))}.\n")
        for suite, cases in sorted(stored.items()):
            for case, outcome in sorted(cases.items()):
                file.write(f'{suite}\t{case}\t{outcome}\n')


def count(outcomes):
    """Passed/skipped/failed."""
    values = list(outcomes.values())
    skipped = values.count('skip') + values.count('absent')
    passed = values.count('pass') + values.count('xfail')
    return f'{passed}/{skipped}/{len(values) - passed - skipped}'


def compare(kernel, suites):
    """Prints how the outcomes differ from the stored ones; the number of cases that differ unaccounted for."""
    stored, later, unsteady = table('linux.tsv'), table('later.tsv'), table('unsteady.tsv')
    total = 0
    for suite in suites:
        _, linnet = load(kernel, suite)
        if suite not in stored:
            print(f'{suite}: passed/skipped/failed {count(linnet)} on {kernel}; nothing is stored to compare it with')
            total += 1
            continue
        linux = stored[suite]
        differ = {case for case in set(linux) | set(linnet) if linux.get(case) != linnet.get(case)}
        accounted = {case for case in differ if case in later.get(suite, {}) or case in unsteady.get(suite, {})}
        done = {case for case in later.get(suite, {}) if case not in differ}
        print(f'{suite}: passed/skipped/failed {count(linux)} stored, {count(linnet)} on {kernel}; '
              f'{len(differ - accounted)} differ, {len(accounted)} known')
        for case in sorted(differ - accounted):
            print(f'    {case}: stored {linux.get(case)}, {kernel} {linnet.get(case)}')
        for case in sorted(done if kernel == 'linnet' else ()):
            print(f'    {case}: is in later.tsv, and equal')
        total += len(differ - accounted)
    return total


def digest(path):
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--linux', action='store_true')
    parser.add_argument('--accept', action='store_true')
    parser.add_argument('--compare', action='store_true')
    parser.add_argument('--again', action='store_true')
    parser.add_argument('--debug', action='store_true')
    parser.add_argument('--smp', type=int, default=2)
    parser.add_argument('--limit', type=float, default=3000)
    parser.add_argument('suites', nargs='+')
    options = parser.parse_args()
    kernel = 'linux' if options.linux or options.accept else 'linnet'
    suites = [name for suite in options.suites
              for name in (sorted(name for name in table('linux.tsv') if name.startswith('test_')) if suite == 'cpython' else [suite])]
    if options.compare:
        return min(compare(kernel, suites), 1)
    archive = debian.rootfs('debian')
    machine = Machine(linux=kernel == 'linux', smp=options.smp, mem='3G', initrd=archive, append='single',
                      profile='debug' if options.debug else 'release')
    for suite in suites:
        key = f'{digest(archive.replace(".cpio", ".list"))} {digest(machine.image())} {digest(os.path.join(HERE, runner(suite)[0]))}'
        if options.again or load(kernel, suite)[0] != key:
            smp = 4 if suite.startswith('stress-ng') else options.smp
            run(kernel, suite, machine.with_(smp=smp), key, options.limit)
    if options.accept:
        accept(suites, machine)
    return min(compare(kernel, suites), 1)


if __name__ == '__main__':
    sys.exit(main())

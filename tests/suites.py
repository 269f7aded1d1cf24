"""Test suites of Debian's programs on the full root file system, on Linux and on Linnet: one module a
boot, resumable, and the sets of passed cases compared.

usage: python3 tests/suites.py [--linux|--linnet|--compare] [--again] [--smp N] [--limit SECONDS] MODULE...

A MODULE is one of CPython's (test_os). Without a kernel's name both run, then are compared. What ran
with the same packages (and, for Linnet, the same kernel) is not run again unless --again says so.
Outcomes are in target/linnet/suites/{linux,linnet}/MODULE.tsv: case, tab, outcome. A module that does
not end within the limit (default 1800 s) keeps what it had, and its present case is a 'hang'."""
import argparse
import hashlib
import os
import re
import sys

import debian
from console import Console, Failure
from machine import OUT, Machine

# Runs a module's cases and writes a line for each, before it starts and when it has ended, so that a
# case that takes the machine with it is known. Standard input and output are left to the cases.
RUNNER = r'''
import os, sys, tempfile, unittest
name = sys.argv[1]
log = open('/tmp/outcomes', 'w', buffering=1)
class Result(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.bad = None
        log.write(f'start\t{test.id()}\n')
    def stopTest(self, test):
        log.write(f'{self.bad or "pass"}\t{test.id()}\n')
        super().stopTest(test)
    def note(self, test, err, kind):
        self.bad = kind
        sys.stdout.write(f'---- {kind} {test.id()}\n')
        sys.stdout.write(self._exc_info_to_string(err, test))
        sys.stdout.flush()
        if not hasattr(test, '_testMethodName'):
            log.write(f'{kind}\t{test.id()}\n')
    def addError(self, test, err):
        self.note(test, err, 'error')
    def addFailure(self, test, err):
        self.note(test, err, 'fail')
    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.note(subtest, err, 'fail')
    def addSkip(self, test, reason):
        self.bad = 'skip'
        log.write(f'why\t{reason}\n'.replace('\r', ' '))
    def addExpectedFailure(self, test, err):
        self.bad = 'xfail'
    def addUnexpectedSuccess(self, test):
        self.bad = 'fail'
from test import support
support.use_resources = ['subprocess']
os.chdir(tempfile.mkdtemp())
suite = unittest.defaultTestLoader.loadTestsFromName('test.' + name)
result = Result()
suite.run(result)
log.write('end\t\n')
log.close()
os._exit(0)
'''


def digest(*paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as file:
            total.update(file.read())
    return total.hexdigest()[:16]


def place(kernel, module):
    directory = os.path.join(OUT, 'suites', kernel)
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, f'{module}.tsv')


def run(kernel, module, machine, key, limit):
    """Boots, runs the module, keeps its outcomes."""
    with Console(machine.command(), place(kernel, module)[:-4] + '.log', 600) as console:
        console.expect(rb'# ')
        console.send("stty -echo\n")
        console.send("cat > /tmp/run.py <<'END-OF-RUNNER'\n" + RUNNER + 'END-OF-RUNNER\n')
        console.run('ulimit -c 0; export PATH LANG=C.UTF-8 HOME=/root; cd /tmp')
        console.deadline += limit
        hung = False
        try:
            console.run(f'setsid -w python3 /tmp/run.py {module} < /dev/null > /tmp/output 2>&1', limit)
        except Failure as failure:
            print(f'{kernel} {module}: {failure}', flush=True)
            hung = True
            console.send(b'\x03')
        console.run('pkill -9 python3' if hung else 'true', 60)
        output, _ = console.run('cat /tmp/outcomes', 300)
        report, _ = console.run('tail -c 20000 /tmp/output', 300)
        with open(place(kernel, module)[:-4] + '.output', 'w') as file:
            file.write(report)
    outcomes, started = {}, None
    for line in output.splitlines():
        kind, _, case = line.partition('\t')
        if kind == 'start':
            started = case
        elif kind == 'end':
            started = None
        elif kind in ('pass', 'fail', 'error', 'skip', 'xfail'):
            outcomes[re.sub(r' at 0x[0-9a-f]+', '', case)] = kind
            started = None
    if started:
        outcomes[started] = 'hang'
    with open(place(kernel, module), 'w') as file:
        file.write(f'# {key}\n' + ''.join(f'{case}\t{outcome}\n' for case, outcome in sorted(outcomes.items())))


def load(kernel, module):
    """(key, {case: outcome}) of an earlier run."""
    try:
        with open(place(kernel, module)) as file:
            key = file.readline()[2:].strip()
            return key, dict(line.rstrip('\n').split('\t') for line in file)
    except FileNotFoundError:
        return None, {}


def compare(modules):
    """Prints how the two differ; the number of cases that passed on Linux alone."""
    worse = 0
    for module in modules:
        _, linux = load('linux', module)
        _, linnet = load('linnet', module)
        passed = [{case for case, outcome in side.items() if outcome == 'pass'} for side in (linux, linnet)]
        print(f'{module}: {len(passed[0])} passed on Linux, {len(passed[1])} on Linnet, {len(passed[0] & passed[1])} on both')
        for case in sorted(set(linux) | set(linnet)):
            if linux.get(case) != linnet.get(case):
                print(f'    {case}: Linux {linux.get(case)}, Linnet {linnet.get(case)}')
        worse += len(passed[0] - passed[1])
    return worse


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--linux', action='store_true')
    parser.add_argument('--linnet', action='store_true')
    parser.add_argument('--compare', action='store_true')
    parser.add_argument('--again', action='store_true')
    parser.add_argument('--debug', action='store_true')
    parser.add_argument('--smp', type=int, default=1)
    parser.add_argument('--limit', type=float, default=1800)
    parser.add_argument('modules', nargs='+')
    options = parser.parse_args()
    archive = debian.rootfs('debian')
    packages = digest(archive.replace('.cpio', '.list'))
    both = not (options.linux or options.linnet)
    for kernel in ('linux', 'linnet') if not options.compare else ():
        if not (both or getattr(options, kernel)):
            continue
        machine = Machine(linux=kernel == 'linux', smp=options.smp, mem='3G', initrd=archive, append='single',
                          profile='debug' if options.debug else 'release')
        key = packages + (' ' + digest(machine.image()) if kernel == 'linnet' else '')
        for module in options.modules:
            if options.again or load(kernel, module)[0] != key:
                run(kernel, module, machine, key, options.limit)
                print(f'{kernel} {module}: {len(load(kernel, module)[1])} cases', flush=True)
    return min(compare(options.modules), 1) if both or options.compare else 0


if __name__ == '__main__':
    sys.exit(main())

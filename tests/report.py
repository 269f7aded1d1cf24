"""One line for each check, and the last line of the whole run."""
import os
import sys
import threading
import time

GAPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'known-gaps.txt')


def known_gaps():
    """{test: why it cannot pass yet}. A line of tests/known-gaps.txt is the test as tests/coverage.tsv
    names it, optionally ` on ` and words that the machine's name has, a tab, and the reason."""
    gaps = {}
    with open(GAPS) as file:
        for line in file:
            if line.strip() and not line.startswith('#'):
                test, _, why = line.rstrip('\n').partition('\t')
                gaps[test] = why
    return gaps


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.gaps = known_gaps()
        self.lock = threading.Lock()
        self.results = {}  # test as tests/coverage.tsv names it: whether it passed wherever it ran
        self.start = time.monotonic()

    def line(self, good, name, why=''):
        with self.lock:
            if good:
                self.passed += 1
            else:
                self.failed += 1
            print(f'{"ok" if good else "not ok"} {name}' + (f': {why}' if why else ''), flush=True)
        return good

    def gap(self, test, machine=''):
        """Why this test is known not to pass on this machine; None for most tests."""
        return dict(self.gaps_of(machine)).get(test)

    def gaps_of(self, machine):
        """(test, why) of all that is known not to pass on this machine."""
        for name, why in self.gaps.items() if 'linux' not in machine.split() else ():
            test, _, where = name.partition(' on ')
            if set(where.split()) <= set(machine.split()):
                yield test, why

    def skip(self, name, why):
        with self.lock:
            self.skipped += 1
            print(f'skip {name}: known gap: {why}', flush=True)

    def record(self, test, good):
        """Keeps the outcome of a test under its name in tests/coverage.tsv."""
        with self.lock:
            self.results[test] = self.results.get(test, True) and good

    def save(self, path, title):
        """Writes what was recorded; `scripts/coverage` shows it."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as file:
            file.write(f'# {title}\n')
            for test, good in sorted(self.results.items()):
                file.write(f'{test}\t{"passed" if good else "failed"}\n')

    def note(self, text):
        with self.lock:
            print(f'# {text}', flush=True)

    def close(self):
        """Prints the last line; returns the status of the run."""
        self.note(f'{time.monotonic() - self.start:.0f} s; {self.skipped} skipped as known gaps (tests/known-gaps.txt)')
        print(f'{self.passed} passed, {self.failed} failed', flush=True)
        return 0 if self.failed == 0 and self.passed else 1


class Group:
    """The checks of one machine: their lines carry its name, and stop at the first hang."""

    def __init__(self, report, name):
        self.report, self.name, self.good = report, name, True
        self.lines = []

    def line(self, good, what, why=''):
        test = 'boot:' + what.replace(' ', '_')
        if not good and (gap := self.report.gap(test, self.name)) is not None:
            self.report.skip(f'[{self.name}] {what}', gap)
            return
        self.good &= good
        self.lines.append((good, what, why))
        self.report.record(test, good)
        self.report.line(good, f'[{self.name}] {what}', why)


if __name__ == '__main__':
    sys.exit('run scripts/test')

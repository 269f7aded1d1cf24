"""One line for each check, and the last line of the whole run."""
import os
import sys
import threading
import time


class Report:
    def __init__(self):
        self.passed = self.failed = 0
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
        self.note(f'{time.monotonic() - self.start:.0f} s')
        print(f'{self.passed} passed, {self.failed} failed', flush=True)
        return 0 if self.failed == 0 and self.passed else 1


class Group:
    """The checks of one machine: their lines carry its name, and stop at the first hang."""

    def __init__(self, report, name):
        self.report, self.name, self.good = report, name, True
        self.lines = []

    def line(self, good, what, why=''):
        self.good &= good
        self.lines.append((good, what, why))
        self.report.record('boot:' + what.replace(' ', '_'), good)
        self.report.line(good, f'[{self.name}] {what}', why)


if __name__ == '__main__':
    sys.exit('run scripts/test')

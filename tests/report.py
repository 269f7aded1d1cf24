"""One line for each check, and the last line of the whole run."""
import sys
import threading
import time


class Report:
    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()
        self.start = time.monotonic()

    def line(self, good, name, why=''):
        with self.lock:
            if good:
                self.passed += 1
            else:
                self.failed += 1
            print(f'{"ok" if good else "not ok"} {name}' + (f': {why}' if why else ''), flush=True)
        return good

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
        self.report.line(good, f'[{self.name}] {what}', why)


if __name__ == '__main__':
    sys.exit('run scripts/test')

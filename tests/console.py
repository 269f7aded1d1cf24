"""The serial console of a machine in QEMU: what it says, and what is typed to it.

Nothing here sleeps: each wait ends with the text that was waited for, with the end of QEMU, or
with a generous limit that only a hang reaches."""
import os
import re
import select
import subprocess
import time

BEGIN, END = b'@@begin\r\n', rb'@@(\d+)@@\r\n'
PROMPT = rb'[/~] # '
WHOLE = 1200.0  # seconds for a machine with all its checks


class Failure(Exception):
    """A check did not hold; the text says which and how."""


class Hang(Failure):
    """What was waited for did not come: nobody knows what the console is at."""


class Console:
    def __init__(self, command, log_path, limit=180.0):
        self.limit = limit
        self.deadline = time.monotonic() + WHOLE  # nothing is waited for behind it
        self.log = open(log_path, 'wb')
        self.log_path = log_path
        self.seen = b''      # everything so far
        self.at = 0          # where the next expect starts
        self.record = lambda test, good: None  # is told of the user-space tests that run here
        self.leave_out = []  # user-space tests that are known not to pass here
        self.qemu = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.qemu.stdin.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.log.close()

    def kill(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
        self.qemu.wait()

    def tail(self, lines=25):
        """The last lines of the log, for a failure's report."""
        text = self.seen.decode('utf-8', 'replace').replace('\r', '').splitlines()
        return '\n'.join('    | ' + line for line in text[-lines:])

    def _more(self, until):
        """Takes in what the console says next; False when QEMU has ended."""
        left = min(until, self.deadline) - time.monotonic()
        if left <= 0 and until > self.deadline:
            raise Hang(f'the machine has had its {WHOLE:.0f} s')
        if left <= 0:
            raise Hang(f'nothing more within {self.limit:.0f} s')
        if not select.select([self.qemu.stdout], [], [], left)[0]:
            raise Hang(f'nothing more within {self.limit:.0f} s')
        data = os.read(self.qemu.stdout.fileno(), 65536)
        self.seen += data
        self.log.write(data)
        self.log.flush()
        return bool(data)

    def expect(self, pattern, limit=None):
        """Waits for a pattern; returns its match, and goes on behind it."""
        if isinstance(pattern, str):
            pattern = pattern.encode()
        until = time.monotonic() + (limit or self.limit)
        while True:
            match = re.search(pattern, self.seen[self.at:])
            if match:
                self.at += match.end()
                return match
            try:
                going = self._more(until)
            except Hang as failure:
                raise Hang(f'waiting for {pattern.decode()!r}: {failure}') from None
            if not going:
                raise Hang(f'QEMU ended while waiting for {pattern.decode()!r}')

    def send(self, text):
        """Types text. The serial port takes 16 bytes at once: QEMU buffers the rest."""
        data = text.encode() if isinstance(text, str) else text
        until = time.monotonic() + self.limit
        while data:
            if select.select([], [self.qemu.stdin], [], 1)[1]:
                data = data[os.write(self.qemu.stdin.fileno(), data):]
            if time.monotonic() > until:
                raise Hang('the console takes no input')

    def send_until(self, key, pattern, limit=None):
        """Types a key again and again until the pattern comes: for a key that is lost while the
        terminal changes hands."""
        until = time.monotonic() + (limit or self.limit)
        if isinstance(pattern, str):
            pattern = pattern.encode()
        while time.monotonic() < until:
            self.send(key)
            try:
                return self.expect(pattern, 2)
            except Hang:
                if self.qemu.poll() is not None:
                    break
        raise Hang(f'{key!r} has no effect: {pattern.decode()!r} does not come')

    def run(self, command, limit=None):
        """Types a shell command; returns (its output, its status). The markers around it are not
        in the echo of what is typed."""
        join = '' if command.endswith('&') else ';'
        self.send(f'echo "@""@begin"; {command}{join} echo "@@$?""@@"\n')
        self.expect(re.escape(BEGIN), limit)
        start = self.at
        match = self.expect(END, limit)
        output = self.seen[start:self.at - len(match.group(0))]
        return output.decode('utf-8', 'replace').replace('\r', ''), int(match.group(1))

    def prompt(self, limit=None):
        self.expect(PROMPT, limit)

    def end(self, limit=None):
        """Waits for QEMU to end by itself; returns its status."""
        until = time.monotonic() + (limit or self.limit)
        while self._more(until):
            pass
        return self.qemu.wait(timeout=30)


def want(condition, text):
    if not condition:
        raise Failure(text)


def good(console, command, pattern=None, limit=None):
    """Runs a command that must end with status 0, and whose output must match."""
    output, status = console.run(command, limit)
    want(status == 0, f'{command!r} has status {status}: {output[-300:]!r}')
    if pattern is not None:
        want(re.search(pattern, output), f'{command!r} prints {output[-300:]!r}, without {pattern!r}')
    return output

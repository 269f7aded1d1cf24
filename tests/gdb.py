"""A machine's CPUs seen through QEMU's gdb stub: stop them, look at registers, change one, go on."""
import re
import socket
import time

SP, PC, PSTATE = 31, 32, 33


class Stub:
    def __init__(self, path, limit=30.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(limit)
        until = time.monotonic() + limit
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > until:
                    raise
        self.data = b''
        # The machine stops when somebody connects.
        self.ask('?')
        self.ask('Hg1')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @staticmethod
    def option(path):
        """The words of the QEMU command that open the stub."""
        return ['-chardev', f'socket,id=gdb,path={path},server=on,wait=off', '-gdb', 'chardev:gdb']

    def _send(self, text):
        data = text.encode()
        self.socket.sendall(b'$' + data + b'#%02x' % (sum(data) % 256))

    def _answer(self):
        """The next packet, acknowledged."""
        while b'#' not in self.data or len(self.data.split(b'#', 1)[1]) < 2:
            more = self.socket.recv(65536)
            if not more:
                raise OSError('the gdb stub is gone')
            self.data += more
        packet, rest = self.data.split(b'#', 1)
        self.data = rest[2:]
        self.socket.sendall(b'+')
        return packet.split(b'$', 1)[1].decode()

    def ask(self, text):
        self._send(text)
        return self._answer()

    def stop(self):
        """Stops all CPUs after `go`; the registers are those of the first one then."""
        self.socket.sendall(b'\x03')
        self._answer()
        self.ask('Hg1')

    def go(self):
        self._send('c')

    def read(self, register):
        return int.from_bytes(bytes.fromhex(self.ask(f'p{register:x}')), 'little')

    def write(self, register, value):
        if self.ask(f'P{register:x}={value.to_bytes(8, "little").hex()}') != 'OK':
            raise OSError(f'the gdb stub does not write register {register}')

    def cpu(self, number):
        """Whose registers are read from here on: 1 is the first."""
        self.ask(f'Hg{number:x}')

    def memory(self, address, length, physical=False):
        """Bytes at an address; None where nothing is mapped."""
        self.ask(f'Qqemu.PhyMemMode:{int(physical)}')
        answer = self.ask(f'm{address:x},{length:x}')
        self.ask('Qqemu.PhyMemMode:0')
        return None if answer.startswith('E') else bytes.fromhex(answer)

    def poke(self, address, data):
        if self.ask(f'M{address:x},{len(data):x}:{data.hex()}') != 'OK':
            raise OSError(f'the gdb stub does not write to {address:#x}')

    def system_register(self, name):
        """A register that has no number of its own: QEMU's description says which it gave it."""
        self.ask('qXfer:features:read:target.xml:0,ffb')
        text, more = '', 'm'
        while more == 'm':
            answer = self.ask(f'qXfer:features:read:system-registers.xml:{len(text):x},ff0')
            more, text = answer[:1], text + answer[1:]
        for line in re.findall(r'<reg [^>]*>', text):
            if re.search(rf'name=["\']{name}(_EL1)?["\']', line):
                return self.read(int(re.search(r'regnum=["\'](\d+)', line).group(1)))
        raise OSError(f'the gdb stub has no {name}')

"""Which machine a test boots: the QEMU command line for it."""
import os
from dataclasses import dataclass, replace

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get('CARGO_TARGET_DIR') or os.path.join(ROOT, 'target')
OUT = os.path.join(TARGET, 'linnet')
CACHE = os.environ.get('LINNET_CACHE') or os.path.join(
    os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'linnet')
INITRD = os.path.join(OUT, 'initrd.cpio.gz')


@dataclass(frozen=True)
class Machine:
    gic: int = 3
    level: str = 'el1'
    smp: int = 4
    mem: str = '512M'
    cpu: str = 'cortex-a72'
    profile: str = 'release'
    board: str = 'virt'
    linux: bool = False
    append: str = ''
    initrd: str = INITRD
    image_path: str = ''

    def name(self):
        if self.board != 'virt':
            return f'{self.board} {self.profile}'
        cpu = self.cpu.removeprefix('cortex-')
        return f'gic{self.gic} {self.level} smp{self.smp} {self.mem} {cpu} {"linux" if self.linux else self.profile}'

    def megabytes(self):
        if self.board == 'raspi4b':
            return 2048
        return int(self.mem[:-1]) * (1024 if self.mem.endswith('G') else 1)

    def cpus(self):
        return 4 if self.board == 'raspi4b' else self.smp

    def image(self):
        if self.image_path:
            return self.image_path
        if self.linux:
            return os.path.join(CACHE, 'vmlinuz')
        return os.path.join(OUT, *(['debug'] if self.profile == 'debug' else []), 'Image')

    def with_(self, **changes):
        return replace(self, **changes)

    def command(self):
        """The words of the QEMU command. An empty `initrd` gives none."""
        words = ['qemu-system-aarch64', '-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot',
                 '-kernel', self.image()]
        append = 'console=ttyAMA0'
        if self.board == 'raspi4b':
            words += ['-M', 'raspi4b', '-dtb', os.path.join(CACHE, 'bcm2711-rpi-4-b.dtb')]
            append = 'earlycon=pl011,mmio32,0xfe201000 console=ttyAMA0,115200'
        else:
            more = ',virtualization=on' if self.level == 'el2' else ''
            words += ['-M', f'virt,gic-version={self.gic}{more}', '-cpu', self.cpu, '-smp', str(self.smp), '-m', self.mem]
        if self.initrd:
            words += ['-initrd', self.initrd]
        if self.linux:
            # Its crypto self-tests would run beside the first commands.
            append += ' quiet cryptomgr.notests panic=-1'
        return words + ['-append', f'{append} {self.append}'.strip()]

"""Checks at the prompt of single requirements of the boot and the entry code (tests/coverage.tsv
names them)."""
import os
import re
import struct

from console import Failure, good, want


def command_line(console, machine):
    append = machine.command()[machine.command().index('-append') + 1]
    output = good(console, 'cat /proc/cmdline')
    want(output == append + '\n', f'/proc/cmdline is {output!r}, not {append!r}')


def entry_level(console, machine):
    if machine.linux:
        pattern = {'el1': r'CPU\(s\) started at EL1', 'el2': r'CPU\(s\) started at EL2'}[machine.level]
    else:
        pattern = {'el1': r'boot at EL1', 'el2': r'boot at EL2'}[machine.level]
    good(console, 'dmesg', pattern)


def boot_order(console, machine):
    """Each stage tells of itself once, and in this order."""
    output = good(console, 'dmesg')
    stages = [r'Linux version', r'Machine model:', r'Memory: .*K', r'irq: GIC\w+: \d+ interrupts', r'smp: Brought up',
              r'(?i)unpack\w* .*initramfs', r'Run /init as init']
    if machine.linux:
        # Linux tells of the memory before the command line, but of all the others in this order.
        stages.remove(r'Memory: .*K')
        stages.remove(r'irq: GIC\w+: \d+ interrupts')
    at = 0
    for stage in stages:
        found = [match.start() for match in re.finditer(stage, output)]
        want(len(found) == 1, f'{stage!r} appears {len(found)} times in the log')
        want(found[0] >= at, f'{stage!r} comes too early in the log')
        at = found[0]
    want('violation of boot protocol' not in output, 'a proper boot loader is complained about')


def image_header(console, machine):
    """Documentation/arch/arm64/booting.rst, "Call the kernel image"."""
    with open(machine.image(), 'rb') as file:
        head, size = file.read(64), os.fstat(file.fileno()).st_size
    code0, code1, offset, image_size, flags, zero2, zero3, zero4, magic, other = struct.unpack('<IIQQQQQQ4sI', head)
    want(head[:2] == b'MZ' and code0 == 0xfa405a4d, f'the first instruction is {code0:#x}')
    want(code1 >> 26 == 5 and 64 <= (code1 & 0x3ffffff) * 4 + 4 < size, f'the second instruction is {code1:#x}')
    want(offset % 4096 == 0, f'the text offset is {offset:#x}')
    if not machine.linux:
        want(other == 0, f'there is no header of another kind at {other:#x}')
        with open(elf_path(machine), 'rb') as file:
            table = symbols(file.read())
        want(image_size >= max(table['__bss_end'], table['__boot_stack_top']) - table['linnet_header'], 'the image is larger than it says')
    want(magic == b'ARM\x64', f'the magic number is {magic!r}')
    want(image_size >= size, f'the image takes {image_size} bytes, its file has {size}')
    want(flags & 1 == 0 and flags >> 1 & 3 in (0, 1), f'flags {flags:#x}: not little-endian with 4 KiB pages')
    want(zero2 == zero3 == zero4 == 0, 'reserved fields are not zero')


def vector_table(console, machine):
    """2 KiB-aligned, sixteen entries of 128 bytes, each with code (Arm ARM D1.3.6)."""
    if machine.linux:
        return
    with open(elf_path(machine), 'rb') as file:
        elf = file.read()
    names = symbols(elf)
    address = names['linnet_vectors']
    want(address % 2048 == 0, f'the vectors are at {address:#x}')
    table = struct.unpack('<512I', loaded(elf, address, 2048))
    handlers = (['el1_sp0'] * 4 + ['el1_sync', 'el1_irq', 'el1_irq', 'el1_serror']
                + ['el0_sync', 'el0_irq', 'el0_irq', 'el0_serror', 'el0_aarch32', 'el0_irq', 'el0_irq', 'el0_serror'])
    for entry, handler in enumerate(handlers):
        targets = set()
        for index in range(entry * 32, entry * 32 + 32):
            if table[index] >> 26 == 5:  # B
                distance = (table[index] & 0x3ffffff) - (table[index] & 0x2000000) * 2
                targets.add(address + (index + distance) * 4)
        wanted = {names[handler]} | ({names['el1_overflow']} if entry < 8 else set())
        want(targets == wanted, f'vector {entry} goes to {[hex(target) for target in targets]}, not to {handler}')


def idle_cpus_sleep(console, machine):
    """A machine with nothing to do leaves its host alone."""
    def used():
        with open(f'/proc/{console.qemu.pid}/stat') as file:
            return sum(map(int, file.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')
    good(console, 'sleep 1')
    least = 2.0
    for _ in range(3):
        before = used()
        good(console, 'sleep 2')
        least = min(least, used() - before)
        if least < 0.7:
            return
    raise Failure(f'{least:.1f} s of the host\'s CPUs for 2 s of sleep')


def elf_path(machine):
    """The image with its symbols."""
    return os.path.join(os.path.dirname(machine.image()), 'linnet.elf')


def sections(elf):
    """Section headers as (type, address, offset, size, link)."""
    start, size, count = struct.unpack_from('<Q', elf, 40)[0], *struct.unpack_from('<HH', elf, 58)
    for index in range(count):
        _, kind, _, address, offset, length, link = struct.unpack_from('<IIQQQQI', elf, start + index * size)
        yield kind, address, offset, length, link


def symbols(elf):
    every = list(sections(elf))
    found = {}
    for kind, _, offset, length, link in every:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = every[link][2]
        for at in range(offset, offset + length, 24):
            name, _, _, _, value = struct.unpack_from('<IBBHQ', elf, at)
            end = elf.index(b'\0', names + name)
            found[elf[names + name:end].decode('utf-8', 'replace')] = value
    return found


def loaded(elf, address, length):
    """Bytes at an address of the linked image."""
    start, size, count = struct.unpack_from('<Q', elf, 32)[0], *struct.unpack_from('<HH', elf, 54)
    for index in range(count):
        kind, _, offset, virtual, _, in_file = struct.unpack_from('<IIQQQQ', elf, start + index * size)
        if kind == 1 and virtual <= address and address + length <= virtual + in_file:
            return elf[offset + address - virtual:][:length]
    raise Failure(f'{address:#x} is in no segment')


CHECKS = [command_line, entry_level, boot_order, image_header, vector_table, idle_cpus_sleep]
RASPI_CHECKS = [command_line, boot_order]

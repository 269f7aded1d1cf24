"""Boots that a single requirement needs (tests/coverage.tsv names them): images, initrds and
registers that are changed on purpose.

usage: python3 tests/boots.py [--linux] [NAME...]   these, or all, and the checks of rows.py"""
import os
import struct
import sys
import tempfile

import boot
import rows
import shell
from console import Console, Failure, Hang, good, want
from gdb import PC, PSTATE, SP, Stub
from machine import CACHE, Machine
from report import Group, Report


def nonzero_boot_arguments(group, machine):
    """A boot loader that leaves something in x1 or x3 is reported, and the boot goes on."""
    with open(machine.image(), 'rb') as file:
        image = bytearray(file.read())
    pattern = r'x1-x3 nonzero in violation of boot protocol'
    with tempfile.TemporaryDirectory(prefix='linnet-rows.') as directory:
        # In place of the first instruction, which does nothing: mov x3, #1 and mov x1, #1.
        for name, code in ('x3', 0xd2800023), ('x1', 0xd2800021):
            struct.pack_into('<I', image, 0, code)
            path = boot.write(directory, 'Image', image)
            if not expect_log(group, 'nonzero_boot_arguments', machine.with_(image_path=path), pattern, tell=name == 'x1'):
                return


def expect_log(group, what, machine, *patterns, tell=True):
    """Boots to the prompt, where the log must match; then powers off."""
    with Console(machine.command(), boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
        try:
            console.prompt()
            for pattern in patterns:
                good(console, 'dmesg', pattern)
            shell.power_off(console, machine)
            if tell:
                group.line(True, what)
            return True
        except Failure as failure:
            group.line(False, what, f'{failure}\n{console.tail()}')
            return False


def quiet_console(group, machine):
    """`quiet` keeps the console free of what the log has all the same."""
    what = 'quiet_console'
    with Console(machine.with_(append='quiet').command(), boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
        try:
            console.prompt()
            text = console.seen.decode('utf-8', 'replace')
            want('Machine model' not in text, 'the console shows informational lines')
            good(console, 'dmesg', r'Machine model')
            shell.power_off(console, machine)
            group.line(True, what)
        except Failure as failure:
            group.line(False, what, f'{failure}\n{console.tail()}')


def on_first_cpu(group, what, machine, change, *patterns):
    """Stops the machine at its prompt with its first CPU in the kernel, changes registers there, and
    waits for what the kernel says."""
    with tempfile.TemporaryDirectory(prefix='linnet-gdb.') as directory:
        path = os.path.join(directory, 'gdb')
        with Console(machine.command() + Stub.option(path), boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
            try:
                console.prompt()
                with Stub(path) as stub:
                    for _ in range(1000):
                        if stub.read(PSTATE) & 0xf == 5:
                            break
                        stub.go()
                        stub.stop()
                    else:
                        raise Hang('the CPU is never seen in the kernel')
                    change(stub)
                    stub.go()
                    # Whatever the CPU waits for comes.
                    console.send('\n')
                    for pattern in patterns:
                        console.expect(pattern)
                group.line(True, what)
            except (Failure, OSError) as failure:
                group.line(False, what, f'{failure}\n{console.tail()}')


def cpu_errata(group, machine):
    """The errors that the CPU's design has are in the log, with what is done about them."""
    pattern = r'CPU features: detected: .*(erratum|errata|Spectre)' if machine.linux else r'CPU errata: 1319367 on 2 CPUs: no virtual machines'
    expect_log(group, 'cpu_errata', machine.with_(cpu='cortex-a72', smp=2), pattern)


def alternatives(group, machine):
    """Instructions are replaced by what the CPUs can do: atomics (LSE) and user access (PAN)."""
    pattern = r'detected: LSE atomic instructions' if machine.linux else r'alternatives: 5 instructions patched'
    expect_log(group, 'alternatives', machine.with_(cpu='max', smp=2), pattern)


def kernel_stack_overflow(group, machine):
    """A CPU whose stack pointer is below its stack says so, with a backtrace, on another stack."""
    def change(stub):
        # Stacks of 16 KiB are aligned to 32 KiB.
        stub.write(SP, (stub.read(SP) & ~0x7fff) - 64)
    patterns = [r'Comm: (?!\?)\S+', r'(?i)Insufficient stack space|stack overflow', r'(?i)esr', r'(?i)call trace|backtrace']
    if machine.linux:
        patterns = [r'(?i)Insufficient stack space|stack overflow', r'Comm:', r'(?i)call trace|backtrace']
    on_first_cpu(group, 'kernel_stack_overflow', machine.with_(smp=1), change, *patterns)


def kernel_stack_end(group, machine):
    """A thread that has written over the last word of its stack does not run again."""
    def change(stub):
        # The stack's lowest address: 16 KiB, aligned to 32 KiB.
        stub.poke(stub.read(SP) & ~0x7fff, bytes(8))
    patterns = [r'Comm: (?!\?)\S+', r'(?i)stack overflow.*end of the stack', r'(?i)call trace']
    if machine.linux:
        patterns = [r'(?i)corrupted stack end']
    on_first_cpu(group, 'kernel_stack_end', machine.with_(smp=1), change, *patterns)


def kernel_wrong_stack(group, machine):
    """An exception at one of the vectors for SP_EL0, on which the kernel never runs, is reported."""
    def change(stub):
        stub.write(PC, stub.system_register('VBAR'))
    patterns = [r'SP_EL0|Bad mode|Unhandled|Synchronous Abort|not supported', r'(?i)esr|code', r'(?i)x29|x28']
    on_first_cpu(group, 'kernel_wrong_stack', machine.with_(smp=1), change, *patterns)


def branch_targets(group, machine):
    """Programs that are marked for it are guarded on a CPU that can."""
    what = 'branch_targets'
    with Console(machine.with_(cpu='max', smp=1).command(), boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
        try:
            console.prompt()
            good(console, 'grep -c bti /proc/cpuinfo', r'^1$')
            good(console, '/bin/linnet-tests places::branch_targets_are_checked', r'1 passed, 0 failed')
            group.line(True, what)
        except Failure as failure:
            group.line(False, what, f'{failure}\n{console.tail()}')


def in_kernel(machine, name):
    """Address of a symbol where the image was linked, and of the vectors there."""
    with open(rows.elf_path(machine), 'rb') as file:
        table = rows.symbols(file.read())
    return table[name] - table['linnet_vectors']


def kernel_map(group, machine):
    """What the boot set up, on each CPU: the vectors; the kernel's code is not writable, its data not
    executable; nothing of the kernel is mapped where its image stands in memory."""
    what = 'kernel_map'
    if machine.linux:
        group.line(True, what)
        return
    with tempfile.TemporaryDirectory(prefix='linnet-gdb.') as directory:
        path = os.path.join(directory, 'gdb')
        with Console(machine.with_(smp=2).command() + Stub.option(path), boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
            try:
                console.prompt()
                with Stub(path) as stub:
                    bases = set()
                    for cpu in 1, 2:
                        stub.cpu(cpu)
                        bases.add(stub.system_register('VBAR'))
                        map_of(stub, machine)
                    want(len(bases) == 1, f'the CPUs have their vectors at {bases}')
                group.line(True, what)
            except (Failure, OSError) as failure:
                group.line(False, what, f'{failure}\n{console.tail()}')


def map_of(stub, machine):
    """The checks of kernel_map on one CPU (Arm ARM D8.3: descriptors)."""
    vectors = stub.system_register('VBAR')

    def page(address, register):
        """Physical address and descriptor's attributes, or None."""
        table = stub.system_register(register) & 0xffff_ffff_f000
        for shift in 39, 30, 21, 12:
            entry = int.from_bytes(stub.memory(table + (address >> shift & 511) * 8, 8, physical=True), 'little')
            if entry & 1 == 0:
                return None
            if shift == 12 or entry & 2 == 0:
                return (entry & 0xffff_ffff_f000 & -1 << shift) + (address & (1 << shift) - 1), entry
            table = entry & 0xffff_ffff_f000

    def at(name):
        found = page(vectors + in_kernel(machine, name), 'TTBR1')
        want(found, f'{name} is not mapped')
        return found

    writable, executable = lambda entry: entry >> 7 & 1 == 0, lambda entry: entry >> 53 & 1 == 0
    for name in 'linnet_vectors', 'linnet_main':
        entry = at(name)[1]
        want(executable(entry) and not writable(entry) and entry >> 54 & 1, f'{name} has {entry:#x}')
        want(entry >> 6 & 1 == 0, f'programs may use {name}: {entry:#x}')
    for name, may_change in ('__ex_table_start', False), ('__bss_start', True):
        entry = at(name)[1]
        want(not executable(entry) and writable(entry) == may_change, f'{name} has {entry:#x}')
    physical = at('linnet_vectors')[0]
    for name in 'linnet_header', 'linnet_vectors':
        where = physical + in_kernel(machine, name)
        want(page(where, 'TTBR0') is None, f'{name} is still mapped at {where:#x}')
    control = stub.system_register('SCTLR')
    want(control & 0x1005 == 0x1005, f'SCTLR_EL1 is {control:#x}: MMU and caches are not all on')
    want(control & 0x18 == 0x18, f'SCTLR_EL1 is {control:#x}: stack pointers are not checked')


def kernel_wild_jump(group, machine):
    """A jump into nothing in the kernel is reported with syndrome, registers and backtrace."""
    def change(stub):
        stub.write(PC, 0x7fff_dead_0000)
    patterns = [r'(?i)unable to handle|instruction abort', r'(?i)ESR', r'(?i)x29|x28']
    on_first_cpu(group, 'kernel_wild_jump', machine.with_(smp=1), change, *patterns)


def kernel_early_fault(group, machine):
    """A fault behind the first line of the log, before the scheduler and user space, is reported too."""
    what = 'kernel_early_fault'
    with tempfile.TemporaryDirectory(prefix='linnet-gdb.') as directory:
        path = os.path.join(directory, 'gdb')
        command = machine.with_(smp=1, append='earlycon ignore_loglevel').command() + Stub.option(path) + ['-S']
        with Console(command, boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
            try:
                with Stub(path) as stub:
                    stub.go()
                    console.expect(r'Linux version')
                    stub.stop()
                    want(stub.read(PSTATE) & 0xf == 5, 'the CPU is not in the kernel')
                    stub.write(PC, 0x7fff_dead_0000)
                    stub.go()
                    for pattern in [r'(?i)unable to handle|instruction abort', r'(?i)ESR', r'(?i)x29|x28']:
                        console.expect(pattern)
                group.line(True, what)
            except (Failure, OSError) as failure:
                group.line(False, what, f'{failure}\n{console.tail()}')


def kernel_serror(group, machine):
    """An SError of the kernel, at its vector, is reported with the syndrome."""
    def change(stub):
        stub.write(PC, stub.system_register('VBAR') + 0x380)
    # ESR_EL1 is still that of the exception before: anything but 0.
    patterns = [r'SError', r'(?i)(esr|code) 0x0*[1-9a-f]', r'(?i)x29|x28']
    on_first_cpu(group, 'kernel_serror', machine.with_(smp=1), change, *patterns)


SCRIPT = b'''#!/bin/busybox sh
echo "this is $0 with $#: $*, HOME=$HOME TERM=$TERM NAME=$NAME"
/bin/busybox poweroff -f
'''


def init_search(group, machine):
    """Each candidate is found when those before it cannot run; with none there is a clear message."""
    busybox = os.environ.get('LINNET_BUSYBOX') or os.path.join(CACHE, 'busybox', 'bin', 'busybox')
    with tempfile.TemporaryDirectory(prefix='linnet-init.') as directory:
        # /init exists but cannot run: a root file system in memory stays the root.
        bad = boot.write(directory, 'bad', b'no program\n')
        script = boot.write(directory, 'script', SCRIPT)
        base = ['dir,dev,755', 'char,dev/console,600,5,1', 'dir,bin,755', 'dir,sbin,755', 'dir,etc,755', f'file,bin/busybox,755,{busybox}',
                f'file,init,755,{bad}']

        def expect(name, append, pattern, *entries):
            what = f'init_search_{name}'
            archive = boot.archive(directory, f'{what}.cpio', *base, *entries)
            given = machine.with_(initrd=archive, append=append)
            with Console(given.command(), boot.log_path(f'{group.name} {what}'), boot.LIMIT) as console:
                try:
                    console.expect(pattern)
                    return True
                except Failure as failure:
                    group.line(False, 'init_search', f'{name}: {failure}\n{console.tail()}')
                    return False

        files = ['sbin/init', 'etc/init', 'bin/init', 'bin/sh']
        every = [f'file,{path},755,{script}' for path in files]
        done = all(expect(path.replace('/', '_'), '', rf'this is /{path} with 0', *every[index:]) for index, path in enumerate(files))
        done = done and expect('named', 'init=/etc/own', r'this is /etc/own with 0', f'file,etc/own,755,{script}', *every)
        # One that was asked for and cannot run is no end.
        done = done and expect('rd_bad', 'rdinit=/init', r'this is /sbin/init with 0', *every)
        done = done and expect('rd_named', 'rdinit=/etc/own', r'this is /etc/own with 0', f'file,etc/own,755,{script}', *every)
        done = done and expect('words', 'strange NAME=value', r'this is /sbin/init with 1: strange, HOME=/ TERM=linux NAME=value', *every)
        # Who asks for a program does not get another one.
        done = done and expect('missing', 'init=/missing', r'Requested init /missing failed', *every)
        done = done and expect('none', '', r'(?i)no working init')
        if done:
            group.line(True, 'init_search')


BOOTS = [nonzero_boot_arguments, quiet_console, cpu_errata, alternatives, kernel_map, branch_targets,
         kernel_stack_overflow, kernel_stack_end, kernel_wild_jump, kernel_wrong_stack, kernel_early_fault, kernel_serror,
         init_search]


def own_boots(group, machine):
    """All boots of this file."""
    for each in BOOTS:
        gap = group.report.gap(f'boot:{each.__name__}', group.name)
        if gap is None:
            each(group, machine)
        else:
            group.report.skip(f'[{group.name}] {each.__name__}', gap)


def main():
    words = sys.argv[1:]
    linux = '--linux' in words
    names = [word for word in words if not word.startswith('-')]
    report = Report()
    machine = Machine(linux=linux, smp=2)
    group = Group(report, 'rows linux' if linux else 'rows')
    for each in BOOTS:
        if not names or each.__name__ in names:
            each(group, machine)
    chosen = [check for check in rows.CHECKS if not names or check.__name__ in names]
    if chosen:
        with Console(machine.command(), boot.log_path(group.name), boot.LIMIT) as console:
            console.prompt()
            for check in chosen:
                try:
                    check(console, machine)
                    group.line(True, check.__name__)
                except Failure as failure:
                    group.line(False, check.__name__, f'{failure}\n{console.tail()}')
    return report.close()


if __name__ == '__main__':
    sys.exit(main())

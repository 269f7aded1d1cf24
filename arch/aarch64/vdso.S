// The vDSO: an ELF shared object that every program finds in its memory (vdso(7)). It is laid out
// here byte by byte, so that no linker for user programs is needed to build a kernel: the assembler
// fills in all differences of labels. The kernel maps it behind the page of data that
// `struct VdsoData` in src/process/exec/vdso.rs describes, so the data stand at `linnet_vdso - 4096`.
//
// The functions follow AAPCS64, use x0-x17 alone, and no stack.

.equ VDSO_SEQ, 0            // u32: odd while the kernel writes
.equ VDSO_TICKS, 8          // counter at which the clocks stood at their bases
.equ VDSO_MULT, 16          // nanoseconds are ((ticks << LEFT) * MULT >> 64) >> RIGHT
.equ VDSO_LEFT, 24
.equ VDSO_RIGHT, 32
.equ VDSO_STEP, 40          // step of the coarse clocks, in nanoseconds
.equ VDSO_MAGIC, 48         // 2^84 / 10^9 / 2^9, rounded up: divides by 10^9
.equ VDSO_SECOND, 56        // 10^9
.equ VDSO_BASES, 64         // for each clock id its base; for the coarse ones what they are ahead

.equ VDSO_FINE, 0x893            // clocks 0 REALTIME, 1 MONOTONIC, 4 RAW, 7 BOOTTIME, 11 TAI
.equ VDSO_COARSE, 0x60           // clocks 5 REALTIME_COARSE, 6 MONOTONIC_COARSE

.equ VDSO_NR_rt_sigreturn, 139
.equ VDSO_NR_clock_gettime, 113
.equ VDSO_NR_clock_getres, 114

    .pushsection .rodata.linnet_vdso, "a"
    .balign 4096
    .globl  linnet_vdso
linnet_vdso:
Lv_start:
    // ELF header (elf(5))
    .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
    .quad   0
    .hword  3, 183                                  // ET_DYN, EM_AARCH64
    .word   1
    .quad   Lv_text - Lv_start                      // entry: none, but tools like one in the text
    .quad   Lv_phdrs - Lv_start
    .quad   Lv_shdrs - Lv_start
    .word   0
    .hword  64, 56, 3, 64, 11, 10

Lv_phdrs:
    .macro  vdso_phdr type, flags, from, to, align
    .word   \type, \flags
    .quad   \from - Lv_start, \from - Lv_start, \from - Lv_start
    .quad   \to - \from, \to - \from, \align
    .endm
    vdso_phdr    1, 5, Lv_start, Lv_end, 4096            // PT_LOAD, R and X
    vdso_phdr    2, 4, Lv_dynamic, Lv_dynamic_end, 8     // PT_DYNAMIC
    vdso_phdr    0x6474e550, 4, Lv_ehhdr, Lv_ehhdr_end, 4 // PT_GNU_EH_FRAME

    .balign 8
Lv_hash:                                            // one bucket, a chain of all symbols
    .word   1, 5, 1
    .word   0, 2, 3, 4, 0
Lv_hash_end:

    .balign 8
Lv_dynsym:
    .zero   24
    .macro  vdso_sym name, from, to
    .word   \name - Lv_dynstr
    .byte   0x12, 0                                 // global function
    .hword  9                                       // in section 9, .text
    .quad   \from - Lv_start, \to - \from
    .endm
    vdso_sym     Ls_rt_sigreturn, Lv_rt_sigreturn, Lv_rt_sigreturn_end
    vdso_sym     Ls_gettimeofday, Lv_gettimeofday, Lv_gettimeofday_end
    vdso_sym     Ls_clock_gettime, Lv_clock_gettime, Lv_clock_gettime_end
    vdso_sym     Ls_clock_getres, Lv_clock_getres, Lv_clock_getres_end
Lv_dynsym_end:

Lv_dynstr:
    .byte   0
Ls_rt_sigreturn:
    .asciz  "__kernel_rt_sigreturn"
Ls_gettimeofday:
    .asciz  "__kernel_gettimeofday"
Ls_clock_gettime:
    .asciz  "__kernel_clock_gettime"
Ls_clock_getres:
    .asciz  "__kernel_clock_getres"
Ls_soname:
    .asciz  "linux-vdso.so.1"
Ls_version:
    .asciz  "LINUX_2.6.39"
Lv_dynstr_end:

    .balign 2
Lv_versym:
    .hword  0, 2, 2, 2, 2
Lv_versym_end:

    .balign 8
Lv_verdef:                                          // the object itself, then the one version
    .hword  1, 1, 1, 1
    .word   0x0deebfa1, 20, 28                      // hash of "linux-vdso.so.1"
    .word   Ls_soname - Lv_dynstr, 0
    .hword  1, 0, 2, 1
    .word   0x075fcb89, 20, 0                       // hash of "LINUX_2.6.39"
    .word   Ls_version - Lv_dynstr, 0
Lv_verdef_end:

    .balign 8
Lv_dynamic:
    .quad   14, Ls_soname - Lv_dynstr               // DT_SONAME
    .quad   4, Lv_hash - Lv_start                   // DT_HASH
    .quad   5, Lv_dynstr - Lv_start                 // DT_STRTAB
    .quad   6, Lv_dynsym - Lv_start                 // DT_SYMTAB
    .quad   10, Lv_dynstr_end - Lv_dynstr           // DT_STRSZ
    .quad   11, 24                                  // DT_SYMENT
    .quad   0x6ffffffc, Lv_verdef - Lv_start        // DT_VERDEF
    .quad   0x6ffffffd, 2                           // DT_VERDEFNUM
    .quad   0x6ffffff0, Lv_versym - Lv_start        // DT_VERSYM
    .quad   0, 0
Lv_dynamic_end:

    // Where unwinders find the descriptions below, sorted by address (LSB, ".eh_frame_hdr").
    .balign 4
Lv_ehhdr:
    .byte   1, 0x1b, 0x03, 0x3b
    .word   Lv_eh - .
    .word   4
    .word   Lv_rt_sigreturn_nop - Lv_ehhdr, Lv_fde_sigreturn - Lv_ehhdr
    .word   Lv_clock_gettime - Lv_ehhdr, Lv_fde_clock_gettime - Lv_ehhdr
    .word   Lv_gettimeofday - Lv_ehhdr, Lv_fde_gettimeofday - Lv_ehhdr
    .word   Lv_clock_getres - Lv_ehhdr, Lv_fde_clock_getres - Lv_ehhdr
Lv_ehhdr_end:

    // DWARF call frame information. Code in units of 4, data of -8, return address in x30.
    .balign 8
Lv_eh:
Lv_cie_signal:                                      // "S": the frame was not called but interrupted
    .word   Lv_cie_signal_end - . - 4, 0
    .byte   1, 'z', 'R', 'S', 0, 4, 0x78, 30, 1, 0x1b
    .byte   0x0c, 29, 0                             // CFA = x29: the frame record of the signal frame
    .byte   0x80 + 29, 0                            // x29 at the CFA
    .byte   0x11, 30, 0x7f                          // x30 8 bytes above it
    .balign 8, 0
Lv_cie_signal_end:
Lv_fde_sigreturn:
    .word   Lv_fde_sigreturn_end - . - 4
    .word   . - Lv_cie_signal
    .word   Lv_rt_sigreturn_nop - ., Lv_rt_sigreturn_end - Lv_rt_sigreturn_nop
    .byte   0
    .balign 8, 0
Lv_fde_sigreturn_end:
Lv_cie:                                             // functions that leave the stack alone
    .word   Lv_cie_end - . - 4, 0
    .byte   1, 'z', 'R', 0, 4, 0x78, 30, 1, 0x1b
    .byte   0x0c, 31, 0
    .balign 8, 0
Lv_cie_end:
    .macro  vdso_fde label, from, to
\label:
    .word   \label\()_end - . - 4
    .word   . - Lv_cie
    .word   \from - ., \to - \from
    .byte   0
    .balign 8, 0
\label\()_end:
    .endm
    vdso_fde     Lv_fde_clock_gettime, Lv_clock_gettime, Lv_clock_gettime_end
    vdso_fde     Lv_fde_gettimeofday, Lv_gettimeofday, Lv_gettimeofday_end
    vdso_fde     Lv_fde_clock_getres, Lv_clock_getres, Lv_clock_getres_end
    .word   0
Lv_eh_end:

    .balign 16
Lv_text:
Lv_rt_sigreturn_nop:
    nop                                             // unwinders look at the address before the return
Lv_rt_sigreturn:
    mov     x8, #VDSO_NR_rt_sigreturn
    svc     #0
Lv_rt_sigreturn_end:

    // Reads counter and parameters of one moment. In: x9 = data, x0 = clock id (0 to 11).
    // Out: x12 = nanoseconds since the base, x13 = the clock's base, x14 = MONOTONIC's base.
    // Changes x9 to x17; x9 stays the data's address.
    .macro  vdso_read_clock
1:  ldr     w11, [x9, #VDSO_SEQ]
    tbnz    w11, #0, 1b                             // the kernel is at it
    dmb     ishld                                   // parameters after the count (pairs with the writer's)
    isb                                             // the counter is not read early (Arm ARM D12.2.2)
    mrs     x12, cntvct_el0
    eor     x13, x12, x12                           // ... and the loads below depend on it
    add     x13, x13, x9
    ldp     x14, x15, [x13, #VDSO_TICKS]
    ldp     x16, x17, [x13, #VDSO_LEFT]
    add     x10, x13, #VDSO_BASES
    ldr     x13, [x10, w0, uxtw #3]
    ldr     x10, [x10, #8]                          // CLOCK_MONOTONIC's
    dmb     ishld                                   // the count after the parameters
    subs    x12, x12, x14
    csel    x12, xzr, x12, lo                       // a counter that is a tick behind the base
    mov     x14, x10
    ldr     w10, [x9, #VDSO_SEQ]
    cmp     w10, w11
    b.ne    1b
    lsl     x12, x12, x16
    umulh   x12, x12, x15
    lsr     x12, x12, x17
    .endm

    // Splits x12 into seconds x13 and nanoseconds x12. Changes x14, x15.
    .macro  vdso_split
    ldp     x14, x15, [x9, #VDSO_MAGIC]
    lsr     x13, x12, #9
    umulh   x13, x13, x14
    lsr     x13, x13, #11
    msub    x12, x13, x15, x12
    .endm

    .balign 16
Lv_clock_gettime:                                   // int (clockid_t w0, struct timespec *x1)
    cmp     w0, #11
    b.hi    4f
    mov     w10, #VDSO_FINE
    lsr     w10, w10, w0
    adr     x9, Lv_start - 4096
    tbz     w10, #0, 3f
    vdso_read_clock
    add     x12, x12, x13
2:  vdso_split
    stp     x13, x12, [x1]
    mov     w0, #0
    ret
3:  mov     w10, #VDSO_COARSE
    lsr     w10, w10, w0
    tbz     w10, #0, 4f
    vdso_read_clock
    add     x12, x12, x14                           // the whole steps of the monotonic clock
    ldr     x14, [x9, #VDSO_STEP]
    udiv    x15, x12, x14
    mul     x12, x15, x14
    add     x12, x12, x13                           // and what this clock is ahead of it
    b       2b
4:  mov     x8, #VDSO_NR_clock_gettime
    svc     #0
    ret
Lv_clock_gettime_end:

    .balign 16
Lv_gettimeofday:                                    // int (struct timeval *x0, struct timezone *x1)
    mov     x2, x0
    cbz     x2, 2f
    mov     w0, #0                                  // CLOCK_REALTIME
    adr     x9, Lv_start - 4096
    vdso_read_clock
    add     x12, x12, x13
    vdso_split
    mov     w14, #1000
    udiv    x12, x12, x14
    stp     x13, x12, [x2]
2:  cbz     x1, 3f
    str     xzr, [x1]                               // the kernel's time zone: none
3:  mov     w0, #0
    ret
Lv_gettimeofday_end:

    .balign 16
Lv_clock_getres:                                    // int (clockid_t w0, struct timespec *x1)
    cmp     w0, #11
    b.hi    4f
    mov     w10, #VDSO_FINE
    lsr     w10, w10, w0
    mov     x12, #1
    tbnz    w10, #0, 2f
    mov     w10, #VDSO_COARSE
    lsr     w10, w10, w0
    tbz     w10, #0, 4f
    adr     x9, Lv_start - 4096
    ldr     x12, [x9, #VDSO_STEP]
2:  cbz     x1, 3f
    stp     xzr, x12, [x1]
3:  mov     w0, #0
    ret
4:  mov     x8, #VDSO_NR_clock_getres
    svc     #0
    ret
Lv_clock_getres_end:
Lv_text_end:

Lv_shstrtab:
    .byte   0
Ln_hash:
    .asciz  ".hash"
Ln_dynsym:
    .asciz  ".dynsym"
Ln_dynstr:
    .asciz  ".dynstr"
Ln_versym:
    .asciz  ".gnu.version"
Ln_verdef:
    .asciz  ".gnu.version_d"
Ln_dynamic:
    .asciz  ".dynamic"
Ln_ehhdr:
    .asciz  ".eh_frame_hdr"
Ln_eh:
    .asciz  ".eh_frame"
Ln_text:
    .asciz  ".text"
Ln_shstrtab:
    .asciz  ".shstrtab"
Lv_shstrtab_end:

    .balign 8
Lv_shdrs:                                           // debuggers find their way by sections
    .zero   64
    .macro  vdso_shdr name, type, flags, from, to, link, info, align, entry
    .word   \name - Lv_shstrtab, \type
    .quad   \flags, \from - Lv_start, \from - Lv_start, \to - \from
    .word   \link, \info
    .quad   \align, \entry
    .endm
    vdso_shdr    Ln_hash, 5, 2, Lv_hash, Lv_hash_end, 2, 0, 8, 4
    vdso_shdr    Ln_dynsym, 11, 2, Lv_dynsym, Lv_dynsym_end, 3, 1, 8, 24
    vdso_shdr    Ln_dynstr, 3, 2, Lv_dynstr, Lv_dynstr_end, 0, 0, 1, 0
    vdso_shdr    Ln_versym, 0x6fffffff, 2, Lv_versym, Lv_versym_end, 2, 0, 2, 2
    vdso_shdr    Ln_verdef, 0x6ffffffd, 2, Lv_verdef, Lv_verdef_end, 3, 2, 8, 0
    vdso_shdr    Ln_dynamic, 6, 2, Lv_dynamic, Lv_dynamic_end, 3, 0, 8, 16
    vdso_shdr    Ln_ehhdr, 1, 2, Lv_ehhdr, Lv_ehhdr_end, 0, 0, 4, 0
    vdso_shdr    Ln_eh, 1, 2, Lv_eh, Lv_eh_end, 0, 0, 8, 0
    vdso_shdr    Ln_text, 1, 6, Lv_text, Lv_text_end, 0, 0, 16, 0
    vdso_shdr    Ln_shstrtab, 3, 0, Lv_shstrtab, Lv_shstrtab_end, 0, 0, 1, 0
Lv_end:
    .globl  linnet_vdso_end
linnet_vdso_end:
    .globl  linnet_vdso_sigreturn
    .set    linnet_vdso_sigreturn, Lv_rt_sigreturn
    .popsection

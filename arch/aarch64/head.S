// How a CPU gets from the boot loader to Rust: the arm64 Image header, the boot CPU's path, the
// secondary CPUs' path.
//
// Sources: Documentation/arch/arm64/booting.rst (the boot protocol); Arm ARM D8 (translation),
// D7.5 (caches). Contract at entry: MMU off, D-cache off, image clean to the point of coherency,
// x0 = physical address of the device tree, EL2 or EL1, interrupts masked. Any 4 KiB-aligned load
// address serves, because the image is mapped by pages.
//
// Registers kept through the boot CPU's path:
//   x19 physical base of the image     x20 random offset of the image
//   x21..x24 x0..x3 at entry           x25 1 if entered at EL2

.equ IMAGE_LINK_BASE, 0xffffc00000000000         // IMAGE_BASE of linker.ld
.equ MPIDR_AFFINITY, 0xff00ffffff               // Aff3, Aff2, Aff1, Aff0
// RES1 bits of Armv8.0; MMU, caches and alignment check off, little-endian (Arm ARM D24.2.175).
.equ SCTLR_OFF, 0x30d00980
// M C SA SA0 ITD SED EOS I DZE UCT nTWI nTWE TSCXT EIS UCI nTLSMD LSMAOE: user space may use
// DC ZVA, cache maintenance, CTR_EL0, WFI and WFE.
.equ SCTLR_ON, ((1<<0)|(1<<2)|(1<<3)|(1<<4)|(1<<7)|(1<<8)|(1<<11)|(1<<12)|(1<<14)|(1<<15)|(1<<16)|(1<<18)|(1<<20)|(1<<22)|(1<<26)|(1<<28)|(1<<29))
// 0: normal write-back, 1: device nGnRE, 2: normal not cacheable (mmu::pte::ATTR_*).
.equ MAIR_VALUE, 0x4404ff
// Both halves: 48 bits, 4 KiB, walks inner-shareable and write-back; TBI0: tags in user pointers.
.equ TCR_VALUE, (16|(1<<8)|(1<<10)|(3<<12)|(16<<16)|(1<<24)|(1<<26)|(3<<28)|(2<<30)|(1<<37))

.section .head.text, "ax"
linnet_header:
    ccmp    x18, #0, #0xd, pl       // code0: does nothing, and reads "MZ" as EFI wants it
    b       primary_entry           // code1
    .quad   0                       // text_offset: none
    .quad   __image_size            // with BSS, boot tables and boot stack
    .quad   0xa                     // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0
    .balign 8

// The image's parts as offsets, for `early_map` (struct ImageLayout).
image_layout:
    .quad   __image_size
    .quad   __off_idmap
    .quad   __off_rodata
    .quad   __off_data
    .quad   __off_guard
    .quad   __off_tables

.globl primary_entry
.type primary_entry, %function
primary_entry:
    msr     daifset, #0xf
    mov     x21, x0
    mov     x22, x1
    mov     x23, x2
    mov     x24, x3
    adr     x19, linnet_header
    bl      el_setup
    mov     x25, x0

    // Nobody has cleaned what lies behind the image's file: a dirty line of it that is written back
    // later would overwrite what is written here past the caches.
    adrp    x0, __boot_stack
    adrp    x1, __boot_stack_top
    bl      drop_lines
    adrp    x0, __boot_tables
    adrp    x1, __boot_tables_end
    bl      drop_lines

    // Clear the boot tables. Written past the caches; stale clean lines are dropped below.
    adrp    x0, __boot_tables
    adrp    x1, __boot_tables_end
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b

    // Build the identity, image and fixmap tables, in Rust that needs no relocation.
    adrp    x0, __boot_stack_top
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    adr     x0, image_layout
    mov     x1, x19
    mov     x2, x21
    bl      linnet_early_map
    mov     x20, x0

    // What secondaries read with their MMU off.
    ldr     x0, =IMAGE_LINK_BASE
    add     x0, x0, x20
    adrp    x1, boot_image_virt
    add     x1, x1, :lo12:boot_image_virt
    str     x0, [x1]
    dmb     sy
    dc      ivac, x1

    // Drop lines of the tables that may have been cached before we wrote (Arm ARM B2.8,
    // mismatched attributes): memory has the newer content.
    adrp    x0, __boot_tables
    adrp    x1, __boot_tables_end
    bl      drop_lines

    adrp    x0, __boot_tables                   // page 0: kernel root
    add     x1, x0, #0x2000                     // page 2: identity root
    ldr     x2, =IMAGE_LINK_BASE
    add     x2, x2, x20
    adrp    x3, primary_at_virtual
    add     x3, x3, :lo12:primary_at_virtual
    sub     x3, x3, x19
    add     x2, x2, x3
    b       enable_mmu                          // continues at primary_at_virtual

// Drops the cache lines of [x0, x1). Clobbers x2, x3.
.type drop_lines, %function
drop_lines:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4                     // DminLine: log2 of words
    mov     x3, #4
    lsl     x2, x3, x2
    dmb     sy
1:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    1b
    dsb     sy
    ret
    .ltorg

// The boot CPU at its final address, MMU on.
.section .text.boot, "ax"
.globl primary_at_virtual
.type primary_at_virtual, %function
primary_at_virtual:
    // Apply the relocations: all are R_AARCH64_RELATIVE (1027), *(offset + slide) = addend + slide.
    adrp    x0, __rela_start
    add     x0, x0, :lo12:__rela_start
    adrp    x1, __rela_end
    add     x1, x1, :lo12:__rela_end
1:  cmp     x0, x1
    b.hs    3f
    ldp     x2, x3, [x0], #16
    ldr     x4, [x0], #8
    cmp     w3, #1027
    b.ne    1b
    add     x4, x4, x20
    str     x4, [x2, x20]
    b       1b

3:  // Clear BSS.
    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
4:  cmp     x0, x1
    b.hs    5f
    stp     xzr, xzr, [x0], #16
    b       4b

5:  adrp    x0, __boot_stack_top
    mov     sp, x0
    adrp    x0, linnet_vectors
    add     x0, x0, :lo12:linnet_vectors
    msr     vbar_el1, x0
    adrp    x0, {CPU_BLOCKS}
    add     x0, x0, :lo12:{CPU_BLOCKS}
    msr     tpidr_el1, x0
    adrp    x1, {BOOT_HEAD}
    add     x1, x1, :lo12:{BOOT_HEAD}
    msr     sp_el0, x1
    str     x1, [x0, #{CURRENT}]
    isb

    // struct Handover on the stack.
    sub     sp, sp, #64
    stp     x19, x20, [sp]
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    str     x25, [sp, #48]
    mov     x0, sp
    mov     x29, xzr
    mov     x30, xzr
    bl      linnet_boot_cpu
    b       .

// What runs with the MMU off or while it is switched on: one page, mapped at its own address.
.section .idmap.text, "ax"

// Brings the CPU to EL1 with a known SCTLR_EL1. Returns x0 = 1 if it came from EL2.
// Clobbers x1 to x3.
.globl el_setup
.type el_setup, %function
el_setup:
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.eq    1f
    ldr     x0, =SCTLR_OFF
    msr     sctlr_el1, x0
    isb
    mov     x0, #0
    ret

1:  // At EL2. HCR_EL2 = RW, API, APK: EL1 is AArch64, pointer authentication is not trapped, E2H off.
    ldr     x0, =0x30c50830                     // SCTLR_EL2: RES1 bits, MMU and caches off
    msr     sctlr_el2, x0
    ldr     x0, =((1 << 31) | (1 << 40) | (1 << 41))
    msr     hcr_el2, x0
    isb
    mrs     x0, hcr_el2
    mov     x1, #3                              // CNTHCTL_EL2: EL1 may use counter and timer
    ldr     x2, =0x33ff                         // CPTR_EL2: RES1, floating point not trapped
    tbz     x0, #34, 2f
    lsl     x1, x1, #10                         // E2H stuck at 1: the other register layouts
    mov     x2, #(3 << 20)
2:  msr     cnthctl_el2, x1
    msr     cptr_el2, x2
    msr     cntvoff_el2, xzr
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr
    mrs     x0, midr_el1
    msr     vpidr_el2, x0
    mrs     x0, mpidr_el1
    msr     vmpidr_el2, x0

    mov     x2, xzr                             // MDCR_EL2: no traps, all event counters to EL1
    mrs     x0, id_aa64dfr0_el1
    ubfx    x0, x0, #8, #4                      // PMUVer
    cbz     x0, 3f
    cmp     x0, #0xf
    b.eq    3f
    mrs     x2, pmcr_el0
    ubfx    x2, x2, #11, #5                     // N
3:  msr     mdcr_el2, x2

    mrs     x0, id_aa64pfr0_el1
    ubfx    x0, x0, #24, #4                     // GIC system registers
    cbz     x0, 4f
    mrs     x0, S3_4_C12_C9_5                   // ICC_SRE_EL2
    orr     x0, x0, #1                          // SRE
    orr     x0, x0, #8                          // Enable: EL1 may use its own
    msr     S3_4_C12_C9_5, x0
    isb
    mrs     x0, S3_4_C12_C9_5
    tbz     x0, #0, 4f                          // the controller is used in its memory-mapped mode
    msr     S3_4_C12_C11_0, xzr                 // ICH_HCR_EL2

4:  mrs     x0, id_aa64mmfr0_el1
    ubfx    x0, x0, #56, #4                     // FGT
    cbz     x0, 5f
    msr     S3_4_C1_C1_4, xzr                   // HFGRTR_EL2
    msr     S3_4_C1_C1_5, xzr                   // HFGWTR_EL2
    msr     S3_4_C1_C1_6, xzr                   // HFGITR_EL2
    msr     S3_4_C3_C1_4, xzr                   // HDFGRTR_EL2
    msr     S3_4_C3_C1_5, xzr                   // HDFGWTR_EL2
5:  mrs     x0, id_aa64mmfr1_el1
    ubfx    x0, x0, #40, #4                     // HCX
    cbz     x0, 6f
    msr     S3_4_C1_C2_2, xzr                   // HCRX_EL2
6:  ldr     x0, =SCTLR_OFF
    msr     sctlr_el1, x0
    mov     x0, #0x3c5                          // EL1h, DAIF masked
    msr     spsr_el2, x0
    msr     elr_el2, x30
    mov     x0, #1
    isb
    eret

// Switches the MMU on and goes to x2. x0 = TTBR1, x1 = TTBR0 (identity), x2 = virtual address.
// Clobbers x3 to x7.
.globl enable_mmu
.type enable_mmu, %function
enable_mmu:
    tlbi    vmalle1
    dsb     nsh
    mov     x3, #(3 << 20)                      // CPACR_EL1: floating point for EL0 and EL1
    msr     cpacr_el1, x3
    mov     x3, #(1 << 12)                      // MDSCR_EL1.TDCC: no debug channel for EL0
    msr     mdscr_el1, x3
    msr     osdlr_el1, xzr                      // neither lock of the debug registers is shut:
    msr     oslar_el1, xzr                      // debug exceptions are not locked out (Arm ARM D2.5)
    mov     x3, #2                              // CNTKCTL_EL1: EL0 reads the virtual counter
    msr     cntkctl_el1, x3
    mrs     x3, id_aa64dfr0_el1
    ubfx    x3, x3, #8, #4
    cbz     x3, 1f
    cmp     x3, #0xf
    b.eq    1f
    msr     pmuserenr_el0, xzr                  // no event counters for EL0
1:  mrs     x3, id_aa64pfr0_el1
    ubfx    x3, x3, #44, #4                     // AMU
    cbz     x3, 3f
    msr     S3_3_C13_C2_3, xzr                  // AMUSERENR_EL0: no activity monitors either
3:  ldr     x3, =MAIR_VALUE
    msr     mair_el1, x3

    // TCR_EL1 by what this CPU can do.
    ldr     x3, =TCR_VALUE
    mrs     x4, id_aa64mmfr0_el1
    ubfx    x5, x4, #28, #4                     // TGran4
    cmp     x5, #0xf
    b.eq    park                                // no 4 KiB pages
    and     x5, x4, #0xf                        // PARange
    mov     x6, #5
    cmp     x5, x6
    csel    x5, x5, x6, lo                      // 48 bits are what the descriptors hold
    orr     x3, x3, x5, lsl #32                 // IPS
    ubfx    x5, x4, #4, #4                      // ASIDBits
    cmp     x5, #2
    cset    x5, eq
    orr     x3, x3, x5, lsl #36                 // AS
    mrs     x4, id_aa64mmfr1_el1
    ubfx    x5, x4, #0, #4                      // HAFDBS
    cmp     x5, #1
    cset    x6, hs
    orr     x3, x3, x6, lsl #39                 // HA
    cmp     x5, #2
    cset    x6, hs
    orr     x3, x3, x6, lsl #40                 // HD
    msr     tcr_el1, x3

    msr     ttbr0_el1, x1
    msr     ttbr1_el1, x0
    isb
    ldr     x3, =SCTLR_ON
    ubfx    x5, x4, #20, #4                     // PAN
    cmp     x5, #0
    cset    x6, eq
    orr     x3, x3, x6, lsl #23                 // SPAN is RES1 without PAN, else 0: set PAN at entry
    cmp     x5, #3
    cset    x6, hs
    orr     x3, x3, x6, lsl #57                 // EPAN
    msr     sctlr_el1, x3
    isb
    ic      iallu
    dsb     nsh
    isb
    cbz     x5, 2f
    .inst   0xd500419f                          // MSR PAN, #1
2:  br      x2

// A secondary CPU, MMU off: from PSCI (x0 = context) or from the spin table (x0 = 0).
.globl secondary_entry
.type secondary_entry, %function
secondary_entry:
    msr     daifset, #0xf
    bl      el_setup
    adrp    x0, __boot_tables
    add     x1, x0, #0x2000
    adrp    x3, boot_image_virt
    ldr     x2, [x3, :lo12:boot_image_virt]
    adrp    x4, linnet_header
    adrp    x3, secondary_at_virtual
    add     x3, x3, :lo12:secondary_at_virtual
    sub     x3, x3, x4
    add     x2, x2, x3
    b       enable_mmu

.globl park
.type park, %function
park:
    wfe
    b       park
    .ltorg

// A secondary at its final address. It waits until the boot CPU calls it by its affinity.
.section .text.boot, "ax"
.type secondary_at_virtual, %function
secondary_at_virtual:
    adrp    x0, linnet_vectors
    add     x0, x0, :lo12:linnet_vectors
    msr     vbar_el1, x0
    adrp    x0, __boot_tables
    add     x0, x0, #0x1000                     // page 1: the empty user table
    adrp    x1, boot_image_phys
    ldr     x1, [x1, :lo12:boot_image_phys]
    adrp    x2, linnet_header
    sub     x0, x0, x2
    add     x0, x0, x1
    msr     ttbr0_el1, x0
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    mrs     x1, mpidr_el1
    ldr     x2, =MPIDR_AFFINITY
    and     x1, x1, x2
    adrp    x0, {BOOT_SLOT}
    add     x0, x0, :lo12:{BOOT_SLOT}
1:  ldar    x2, [x0]                            // SecondarySlot.affinity; pairs with the release in smp::start
    cmp     x1, x2
    b.eq    2f
    wfe
    b       1b
2:  ldp     x3, x4, [x0, #8]                    // stack top, thread head
    ldr     x5, [x0, #24]                       // CPU block
    mov     sp, x3
    msr     sp_el0, x4
    msr     tpidr_el1, x5
    str     x4, [x5, #{CURRENT}]
    isb
    mov     x29, xzr
    mov     x30, xzr
    bl      linnet_secondary_cpu
    b       .
    .ltorg

// Written by the boot CPU with its MMU off, read by secondaries with theirs off.
.section .data.boot, "aw"
.balign 128
.globl boot_image_virt
boot_image_virt:
    .quad   0
.globl boot_image_phys
boot_image_phys:
    .quad   0
.balign 128

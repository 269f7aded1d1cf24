// The exception vectors, and the ways in and out of the kernel.
//
// Sources: Arm ARM D1.3 (exceptions), D24.2.158 (VBAR_EL1). In the kernel SP_EL0 holds the current
// ThreadHead and SP is SP_EL1; in user mode SP_EL1 is the top of the thread's kernel stack.
// The frame is `UserRegs`: x0..x30, sp, pc, pstate, orig_x0, syscallno. A frame of the kernel has
// a frame record (x29, pc) in the last two words, so that backtraces pass through.

.equ FRAME, 288
.equ FRAME_LR, 240
.equ FRAME_PC, 256
.equ FRAME_TAIL, 272

.macro save_x0_to_x29
    stp     x0, x1, [sp, #16 * 0]
    stp     x2, x3, [sp, #16 * 1]
    stp     x4, x5, [sp, #16 * 2]
    stp     x6, x7, [sp, #16 * 3]
    stp     x8, x9, [sp, #16 * 4]
    stp     x10, x11, [sp, #16 * 5]
    stp     x12, x13, [sp, #16 * 6]
    stp     x14, x15, [sp, #16 * 7]
    stp     x16, x17, [sp, #16 * 8]
    stp     x18, x19, [sp, #16 * 9]
    stp     x20, x21, [sp, #16 * 10]
    stp     x22, x23, [sp, #16 * 11]
    stp     x24, x25, [sp, #16 * 12]
    stp     x26, x27, [sp, #16 * 13]
    stp     x28, x29, [sp, #16 * 14]
.endm

.macro load_x0_to_x29
    ldp     x0, x1, [sp, #16 * 0]
    ldp     x2, x3, [sp, #16 * 1]
    ldp     x4, x5, [sp, #16 * 2]
    ldp     x6, x7, [sp, #16 * 3]
    ldp     x8, x9, [sp, #16 * 4]
    ldp     x10, x11, [sp, #16 * 5]
    ldp     x12, x13, [sp, #16 * 6]
    ldp     x14, x15, [sp, #16 * 7]
    ldp     x16, x17, [sp, #16 * 8]
    ldp     x18, x19, [sp, #16 * 9]
    ldp     x20, x21, [sp, #16 * 10]
    ldp     x22, x23, [sp, #16 * 11]
    ldp     x24, x25, [sp, #16 * 12]
    ldp     x26, x27, [sp, #16 * 13]
    ldp     x28, x29, [sp, #16 * 14]
.endm

// From EL0: everything into the frame. Afterwards x20 = current ThreadHead, x24 = ESR_EL1.
.macro enter_from_el0
    save_x0_to_x29
    mrs     x21, sp_el0
    stp     x30, x21, [sp, #FRAME_LR]
    mrs     x22, elr_el1
    mrs     x23, spsr_el1
    stp     x22, x23, [sp, #FRAME_PC]
    mrs     x19, tpidr_el1
    ldr     x20, [x19, #{CURRENT}]
    msr     sp_el0, x20
    mov     x29, xzr                            // backtraces end here
    mrs     x24, esr_el1
.endm

// From EL1, SP good: everything into the frame, with a frame record.
.macro enter_from_el1
    save_x0_to_x29
    add     x21, sp, #FRAME
    stp     x30, x21, [sp, #FRAME_LR]
    mrs     x22, elr_el1
    mrs     x23, spsr_el1
    stp     x22, x23, [sp, #FRAME_PC]
    stp     x29, x22, [sp, #FRAME_TAIL]
    add     x29, sp, #FRAME_TAIL
.endm

.macro vector_el0 handler
    .balign 128
    sub     sp, sp, #FRAME
    b       \handler
.endm

// Bit 14 of a good SP is clear, because stacks of 16 KiB are aligned to 32 KiB. The test has no
// register to spare: it mixes SP with x0 and takes them apart again.
.macro vector_el1 handler
    .balign 128
    sub     sp, sp, #FRAME
    add     sp, sp, x0                          // sp' = sp + x0
    sub     x0, sp, x0                          // x0' = sp
    tbnz    x0, #14, 1f
    sub     x0, sp, x0                          // x0 again
    sub     sp, sp, x0                          // sp again
    b       \handler
1:  msr     tpidrro_el0, x0                     // fatal from here on: the bad SP is kept here
    sub     x0, sp, x0
    msr     tpidr_el0, x0                       // x0 is kept here
    mrs     x0, tpidr_el1
    ldr     x0, [x0, #{OVERFLOW_TOP}]
    sub     sp, x0, #FRAME
    mrs     x0, tpidr_el0
    b       el1_overflow
.endm

.section .vectors, "ax"
.balign 2048
.globl linnet_vectors
linnet_vectors:
    // Current EL with SP_EL0: the kernel never runs so.
    vector_el1 el1_sp0
    vector_el1 el1_sp0
    vector_el1 el1_sp0
    vector_el1 el1_sp0
    // Current EL with SP_EL1.
    vector_el1 el1_sync
    vector_el1 el1_irq
    vector_el1 el1_irq                          // FIQ: served like an IRQ
    vector_el1 el1_serror
    // EL0, AArch64.
    vector_el0 el0_sync
    vector_el0 el0_irq
    vector_el0 el0_irq
    vector_el0 el0_serror
    // EL0, AArch32: no thread is ever started so; the program is told, interrupts are served.
    vector_el0 el0_aarch32
    vector_el0 el0_irq
    vector_el0 el0_irq
    vector_el0 el0_serror
    .balign 128

.section .entry.text, "ax"
.type el0_sync, %function
el0_sync:
    enter_from_el0
    lsr     x25, x24, #26                       // exception class
    cmp     x25, #0x15                          // SVC from AArch64
    b.ne    el0_exception
    sxtw    x26, w8
    stp     x0, x26, [sp, #FRAME_TAIL]
    mov     x0, sp
    // The call's frames start at a random distance: 0 to 496 bytes, by the next number of the CPU's
    // generator (xorshift; of zero, which is "off", it stays zero).
    mov     x21, sp
    ldr     x27, [x19, #{STACK_SEED}]
    eor     x27, x27, x27, lsl #13
    eor     x27, x27, x27, lsr #7
    eor     x27, x27, x27, lsl #17
    str     x27, [x19, #{STACK_SEED}]
    and     x27, x27, #0x1f0
    sub     sp, sp, x27
    msr     daifclr, #7
    bl      {EL0_SVC}
    mov     sp, x21

// Back to EL0. x20 = current ThreadHead (callee-saved: the handlers kept it).
.globl ret_to_user
.type ret_to_user, %function
ret_to_user:
    msr     daifset, #0xf
    ldr     w1, [x20, #{FLAGS}]
    cbnz    w1, 2f
1:  ldp     x22, x23, [sp, #FRAME_PC]
    msr     elr_el1, x22
    msr     spsr_el1, x23
    ldp     x30, x21, [sp, #FRAME_LR]
    msr     sp_el0, x21
    load_x0_to_x29
    add     sp, sp, #FRAME
    eret
    dsb     nsh                                 // no speculation past ERET
    isb
2:  mov     x0, sp
    bl      {EXIT_SLOW}                         // returns with interrupts masked
    b       1b
.size el0_sync, . - el0_sync

.type el0_exception, %function
el0_exception:
    mov     x26, #-1
    stp     x0, x26, [sp, #FRAME_TAIL]
    mov     x0, sp
    mov     x1, x24
    mrs     x2, far_el1
    bl      {EL0_EXCEPTION}
    b       ret_to_user
.size el0_exception, . - el0_exception

.type el0_irq, %function
el0_irq:
    enter_from_el0
    mov     x26, #-1
    stp     x0, x26, [sp, #FRAME_TAIL]
    bl      {EL0_IRQ}
    b       ret_to_user
.size el0_irq, . - el0_irq

.type el0_serror, %function
el0_serror:
    enter_from_el0
    mov     x26, #-1
    stp     x0, x26, [sp, #FRAME_TAIL]
    mov     x0, sp
    mov     x1, x24
    bl      {EL0_SERROR}
    b       ret_to_user
.size el0_serror, . - el0_serror

.type el0_aarch32, %function
el0_aarch32:
    enter_from_el0
    mov     x26, #-1
    stp     x0, x26, [sp, #FRAME_TAIL]
    mov     x0, sp
    mov     x1, x24
    bl      {EL0_AARCH32}
    b       ret_to_user
.size el0_aarch32, . - el0_aarch32

.type el1_sync, %function
el1_sync:
    enter_from_el1
    mov     x0, sp
    mrs     x1, esr_el1
    mrs     x2, far_el1
    bl      {EL1_SYNC}
    b       el1_return
.size el1_sync, . - el1_sync

.type el1_irq, %function
el1_irq:
    enter_from_el1
    // The handlers run on the CPU's own stack: of the thread's they need the frame above only.
    mrs     x19, tpidr_el1
    ldr     x20, [x19, #{IRQ_TOP}]
    mov     x21, sp
    cbz     x20, 1f                             // not set up yet
    mov     sp, x20
1:  bl      {EL1_IRQ}
    mov     sp, x21
    bl      {EL1_PREEMPT}                       // on the thread's stack: another thread may run
.globl el1_return
el1_return:
    msr     daifset, #0xf
    ldp     x22, x23, [sp, #FRAME_PC]
    msr     elr_el1, x22
    msr     spsr_el1, x23
    ldr     x30, [sp, #FRAME_LR]
    load_x0_to_x29
    add     sp, sp, #FRAME
    eret
    dsb     nsh
    isb
.size el1_irq, . - el1_irq

.type el1_serror, %function
el1_serror:
    enter_from_el1
    mov     x0, sp
    mrs     x1, esr_el1
    bl      {EL1_SERROR}
    b       .
.size el1_serror, . - el1_serror

.type el1_sp0, %function
el1_sp0:
    enter_from_el1
    mrs     x19, tpidr_el1
    ldr     x20, [x19, #{CURRENT}]
    msr     sp_el0, x20
    mov     x0, sp
    mrs     x1, esr_el1
    mrs     x2, far_el1
    bl      {EL1_SP0}
    b       .
.size el1_sp0, . - el1_sp0

// SP is in the overflow stack; the bad one is in TPIDRRO_EL0.
.type el1_overflow, %function
el1_overflow:
    enter_from_el1
    mrs     x21, tpidrro_el0
    add     x21, x21, #FRAME
    str     x21, [sp, #FRAME_LR + 8]
    mov     x0, sp
    mrs     x1, esr_el1
    mrs     x2, far_el1
    bl      {EL1_OVERFLOW}
    b       .
.size el1_overflow, . - el1_overflow

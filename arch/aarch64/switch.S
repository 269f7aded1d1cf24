// Switching from one thread's kernel stack to another's, and how a new thread starts.

.section .entry.text, "ax"

// x0 = ThreadHead that stops, x1 = ThreadHead that continues; interrupts masked. Saves what a
// function call must preserve (AAPCS64: x19..x29, SP, and LR as the place to continue).
.globl linnet_switch
.type linnet_switch, %function
linnet_switch:
    add     x2, x0, #{CTX}
    stp     x19, x20, [x2], #16
    stp     x21, x22, [x2], #16
    stp     x23, x24, [x2], #16
    stp     x25, x26, [x2], #16
    stp     x27, x28, [x2], #16
    mov     x3, sp
    stp     x29, x30, [x2], #16
    str     x3, [x2]
    add     x2, x1, #{CTX}
    ldp     x19, x20, [x2], #16
    ldp     x21, x22, [x2], #16
    ldp     x23, x24, [x2], #16
    ldp     x25, x26, [x2], #16
    ldp     x27, x28, [x2], #16
    ldp     x29, x30, [x2], #16
    ldr     x3, [x2]
    mov     sp, x3
    msr     sp_el0, x1
    mrs     x4, tpidr_el1
    str     x1, [x4, #{CURRENT}]
    ret
.size linnet_switch, . - linnet_switch

// A thread's first instructions: x19 = entry or 0, x20 = its argument. SP is below the UserRegs.
.globl linnet_thread_start
.type linnet_thread_start, %function
linnet_thread_start:
    bl      {THREAD_STARTED}                    // completes the switch, unmasks interrupts
    cbz     x19, 1f
    mov     x0, x20
    blr     x19
1:  bl      {ENTER_USER}
    mrs     x20, sp_el0
    b       ret_to_user
.size linnet_thread_start, . - linnet_thread_start

// Copies between the kernel and a program's memory, checked as EL0: LDTR and STTR.
//
// Each instruction that may fault has an entry in __ex_table: two words relative to themselves,
// the instruction and where to continue when the fault was not resolved. A block that faults
// falls back to single bytes, so that the count is exact. The callers have checked the range.

.macro fixup from, to
    .pushsection __ex_table, "a"
    .balign 4
    .long   \from - .
    .long   \to - .
    .popsection
.endm

// A user access with a fix-up: user label, instruction
.macro user to, insn:vararg
9999:
    \insn
    fixup   9999b, \to
.endm

.section .text.usercopy, "ax"

// x0 = to (kernel), x1 = from (user), x2 = n; returns bytes left undone in x0.
.balign 64
.globl linnet_copy_from_user
.type linnet_copy_from_user, %function
linnet_copy_from_user:
    subs    x2, x2, #64
    b.lo    2f
1:  user    .Lfrom_bytes64, ldtr x3, [x1]
    user    .Lfrom_bytes64, ldtr x4, [x1, #8]
    user    .Lfrom_bytes64, ldtr x5, [x1, #16]
    user    .Lfrom_bytes64, ldtr x6, [x1, #24]
    user    .Lfrom_bytes64, ldtr x7, [x1, #32]
    user    .Lfrom_bytes64, ldtr x8, [x1, #40]
    user    .Lfrom_bytes64, ldtr x9, [x1, #48]
    user    .Lfrom_bytes64, ldtr x10, [x1, #56]
    add     x1, x1, #64
    stp     x3, x4, [x0], #16
    stp     x5, x6, [x0], #16
    stp     x7, x8, [x0], #16
    stp     x9, x10, [x0], #16
    subs    x2, x2, #64
    b.hs    1b
2:  add     x2, x2, #64                         // 0 to 63 left
    cmp     x2, #8
    b.lo    4f
3:  user    .Lfrom_bytes, ldtr x3, [x1]
    add     x1, x1, #8
    sub     x2, x2, #8
    str     x3, [x0], #8
    cmp     x2, #8
    b.hs    3b
4:  tbz     x2, #2, 5f
    user    .Lfrom_bytes, ldtr w3, [x1]
    add     x1, x1, #4
    sub     x2, x2, #4
    str     w3, [x0], #4
5:  cbz     x2, 7f
6:  user    .Lleft, ldtrb w3, [x1]
    add     x1, x1, #1
    strb    w3, [x0], #1
    subs    x2, x2, #1
    b.ne    6b
7:  mov     x0, #0
    ret
.Lfrom_bytes64:
    add     x2, x2, #64
.Lfrom_bytes:
    b       6b
.size linnet_copy_from_user, . - linnet_copy_from_user

.Lleft:
    mov     x0, x2
    ret

// x0 = to (user), x1 = from (kernel), x2 = n; returns bytes left undone in x0.
.balign 64
.globl linnet_copy_to_user
.type linnet_copy_to_user, %function
linnet_copy_to_user:
    subs    x2, x2, #64
    b.lo    2f
1:  ldp     x3, x4, [x1]
    ldp     x5, x6, [x1, #16]
    ldp     x7, x8, [x1, #32]
    ldp     x9, x10, [x1, #48]
    user    .Lto_bytes64, sttr x3, [x0]
    user    .Lto_bytes64, sttr x4, [x0, #8]
    user    .Lto_bytes64, sttr x5, [x0, #16]
    user    .Lto_bytes64, sttr x6, [x0, #24]
    user    .Lto_bytes64, sttr x7, [x0, #32]
    user    .Lto_bytes64, sttr x8, [x0, #40]
    user    .Lto_bytes64, sttr x9, [x0, #48]
    user    .Lto_bytes64, sttr x10, [x0, #56]
    add     x1, x1, #64
    add     x0, x0, #64
    subs    x2, x2, #64
    b.hs    1b
2:  add     x2, x2, #64
    cmp     x2, #8
    b.lo    4f
3:  ldr     x3, [x1]
    user    .Lto_bytes, sttr x3, [x0]
    add     x0, x0, #8
    add     x1, x1, #8
    sub     x2, x2, #8
    cmp     x2, #8
    b.hs    3b
4:  tbz     x2, #2, 5f
    ldr     w3, [x1]
    user    .Lto_bytes, sttr w3, [x0]
    add     x0, x0, #4
    add     x1, x1, #4
    sub     x2, x2, #4
5:  cbz     x2, 7f
6:  ldrb    w3, [x1], #1
    user    .Lleft, sttrb w3, [x0]
    add     x0, x0, #1
    subs    x2, x2, #1
    b.ne    6b
7:  mov     x0, #0
    ret
.Lto_bytes64:
    add     x2, x2, #64
.Lto_bytes:
    b       6b
.size linnet_copy_to_user, . - linnet_copy_to_user

// x0 = to (user), x1 = n; returns bytes left undone in x0.
.balign 64
.globl linnet_clear_user
.type linnet_clear_user, %function
linnet_clear_user:
    mov     x2, x1
    cmp     x2, #8
    b.lo    2f
1:  user    .Lclear_bytes, sttr xzr, [x0]
    add     x0, x0, #8
    sub     x2, x2, #8
    cmp     x2, #8
    b.hs    1b
2:  cbz     x2, 4f
3:  user    .Lleft, sttrb wzr, [x0]
    add     x0, x0, #1
    subs    x2, x2, #1
    b.ne    3b
4:  mov     x0, #0
    ret
.Lclear_bytes:
    b       3b
.size linnet_clear_user, . - linnet_clear_user

// x0 = to (kernel), x1 = from (user), x2 = room. Copies up to and with the NUL. Returns in x0 the
// bytes that were not reached: 0 after a NUL or a full buffer, and in x1 the length without NUL
// (or the room).
.balign 64
.globl linnet_copy_str
.type linnet_copy_str, %function
linnet_copy_str:
    mov     x4, x2                              // the room
    mov     x6, #0x0101010101010101
    cbz     x2, 5f
1:  tst     x1, #7                              // an aligned word lies in one page
    b.eq    3f
2:  user    .Lleft, ldtrb w3, [x1]
    add     x1, x1, #1
    strb    w3, [x0], #1
    cbz     w3, 6f
    subs    x2, x2, #1
    b.ne    1b
    b       5f
3:  cmp     x2, #8
    b.lo    2b
    user    2b, ldtr x3, [x1]
    sub     x5, x3, x6                          // a zero byte turns its top bit on ...
    bic     x5, x5, x3                          // ... that was off
    tst     x5, #0x8080808080808080
    b.ne    2b                                  // the NUL is in this word
    add     x1, x1, #8
    str     x3, [x0], #8
    subs    x2, x2, #8
    b.ne    3b
5:  mov     x0, #0
    mov     x1, x4
    ret
6:  sub     x1, x4, x2
    mov     x0, #0
    ret
.size linnet_copy_str, . - linnet_copy_str

// x0 = address of an aligned word; returns the word in x0, x1 = 0, or x1 = 1 after a fault.
.globl linnet_load_user_u32
.type linnet_load_user_u32, %function
linnet_load_user_u32:
    user    .Lword_fault, ldtr w0, [x0]
    mov     x1, #0
    ret
.Lword_fault:
    mov     x1, #1
    ret
.size linnet_load_user_u32, . - linnet_load_user_u32

// x0 = address, w1 = old, w2 = new; returns the word found in x0, x1 = 0, or x1 = 1 after a fault.
// Exclusives have no unprivileged form: PAN is off around them. The caller has checked that the
// address is in the user half and aligned; EL1 may write there only what EL0 may (AP[2]).
.globl linnet_cmpxchg_user_u32
.type linnet_cmpxchg_user_u32, %function
linnet_cmpxchg_user_u32:
.Lpan_off:
    nop                                         // MSR PAN, #0
1:  user    .Lcas_fault, ldaxr w3, [x0]
    cmp     w3, w1
    b.ne    2f
    user    .Lcas_fault, stlxr w4, w2, [x0]
    cbnz    w4, 1b
    dmb     ish
    b       .Lpan_on
2:  clrex
.Lpan_on:
    nop                                         // MSR PAN, #1
    mov     w0, w3
    mov     x1, #0
    ret
.Lcas_fault:
    nop                                         // MSR PAN, #1
    mov     x1, #1
    ret
.size linnet_cmpxchg_user_u32, . - linnet_cmpxchg_user_u32

    alternative .Lpan_off, 0xd500409f, {PAN}
    alternative .Lpan_on, 0xd500419f, {PAN}
    alternative .Lcas_fault, 0xd500419f, {PAN}

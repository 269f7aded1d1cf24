// memcpy, memmove, memset, memcmp, bcmp, and whole pages. Normal memory only: unaligned accesses
// are used. General registers only: the kernel does not touch floating point.

.section .text.memory, "ax"

// memcpy(x0 to, x1 from, x2 n); memmove shares it up to 64 bytes, because every short path loads
// all before it stores.
.balign 64
.globl memcpy
.type memcpy, %function
memcpy:
    cmp     x2, #64
    b.hi    .Lcopy_long
.Lcopy_short:
    add     x4, x1, x2                          // ends
    add     x5, x0, x2
    cmp     x2, #16
    b.lo    2f
    ldp     x6, x7, [x1]                        // 16 to 64: from both ends, overlapping
    ldp     x8, x9, [x4, #-16]
    cmp     x2, #32
    b.ls    1f
    ldp     x10, x11, [x1, #16]
    ldp     x12, x13, [x4, #-32]
    stp     x10, x11, [x0, #16]
    stp     x12, x13, [x5, #-32]
1:  stp     x6, x7, [x0]
    stp     x8, x9, [x5, #-16]
    ret
2:  tbz     x2, #3, 3f                          // 8 to 15
    ldr     x6, [x1]
    ldr     x7, [x4, #-8]
    str     x6, [x0]
    str     x7, [x5, #-8]
    ret
3:  tbz     x2, #2, 4f                          // 4 to 7
    ldr     w6, [x1]
    ldr     w7, [x4, #-4]
    str     w6, [x0]
    str     w7, [x5, #-4]
    ret
4:  cbz     x2, 5f                              // 1 to 3: first, middle, last
    lsr     x3, x2, #1
    ldrb    w6, [x1]
    ldrb    w7, [x1, x3]
    ldrb    w8, [x4, #-1]
    strb    w6, [x0]
    strb    w7, [x0, x3]
    strb    w8, [x5, #-1]
5:  ret

// More than 64 bytes, no overlap that matters for ascending order: align the destination to 16,
// then 64 a step, then the last 64 from the end.
.Lcopy_long:
    add     x4, x1, x2
    add     x5, x0, x2
    ldp     x6, x7, [x1]
    neg     x3, x0
    and     x3, x3, #15
    stp     x6, x7, [x0]
    add     x1, x1, x3
    add     x3, x0, x3
    sub     x2, x5, #64                         // the last step starts here
    cmp     x3, x2
    b.hs    7f
6:  ldp     x6, x7, [x1]
    ldp     x8, x9, [x1, #16]
    ldp     x10, x11, [x1, #32]
    ldp     x12, x13, [x1, #48]
    add     x1, x1, #64
    stp     x6, x7, [x3]
    stp     x8, x9, [x3, #16]
    stp     x10, x11, [x3, #32]
    stp     x12, x13, [x3, #48]
    add     x3, x3, #64
    cmp     x3, x2
    b.lo    6b
7:  ldp     x6, x7, [x4, #-64]
    ldp     x8, x9, [x4, #-48]
    ldp     x10, x11, [x4, #-32]
    ldp     x12, x13, [x4, #-16]
    stp     x6, x7, [x5, #-64]
    stp     x8, x9, [x5, #-48]
    stp     x10, x11, [x5, #-32]
    stp     x12, x13, [x5, #-16]
    ret
.size memcpy, . - memcpy

// memmove(x0 to, x1 from, x2 n)
.balign 64
.globl memmove
.type memmove, %function
memmove:
    cmp     x2, #64
    b.ls    .Lcopy_short
    sub     x3, x0, x1
    cmp     x3, x2
    b.lo    3f                                  // the destination starts inside the source
    add     x4, x1, x2                          // ascending; each step loads before it stores
    add     x5, x0, x2
    ldp     x14, x15, [x4, #-16]                // the tail, before it may be overwritten
    ldp     x16, x17, [x4, #-32]
    mov     x3, x0
1:  sub     x2, x2, #32
    ldp     x6, x7, [x1], #16
    ldp     x8, x9, [x1], #16
    stp     x6, x7, [x3], #16
    stp     x8, x9, [x3], #16
    cmp     x2, #32
    b.hi    1b
    stp     x16, x17, [x5, #-32]
    stp     x14, x15, [x5, #-16]
    ret
3:  cbz     x3, 5f
    add     x4, x1, x2                          // descending
    add     x5, x0, x2
    ldp     x14, x15, [x1]                      // the head, before it may be overwritten
    ldp     x16, x17, [x1, #16]
4:  sub     x2, x2, #32
    ldp     x6, x7, [x4, #-16]!
    ldp     x8, x9, [x4, #-16]!
    stp     x6, x7, [x5, #-16]!
    stp     x8, x9, [x5, #-16]!
    cmp     x2, #32
    b.hi    4b
    stp     x14, x15, [x0]
    stp     x16, x17, [x0, #16]
5:  ret
.size memmove, . - memmove

// memset(x0 to, w1 byte, x2 n)
.balign 64
.globl memset
.type memset, %function
memset:
    and     w1, w1, #0xff
    mov     x3, #0x0101010101010101
    mul     x1, x1, x3
    add     x5, x0, x2
    cmp     x2, #16
    b.lo    3f
    cmp     x2, #64
    b.hi    1f
    stp     x1, x1, [x0]
    stp     x1, x1, [x5, #-16]
    cmp     x2, #32
    b.ls    2f
    stp     x1, x1, [x0, #16]
    stp     x1, x1, [x5, #-32]
2:  ret
1:  stp     x1, x1, [x0]
    add     x3, x0, #16
    and     x3, x3, #~15
    cbnz    x1, 5f
    cmp     x2, #512
    b.hs    .Lzero_blocks
5:  sub     x4, x5, #64
    cmp     x3, x4
    b.hs    7f
6:  stp     x1, x1, [x3]
    stp     x1, x1, [x3, #16]
    stp     x1, x1, [x3, #32]
    stp     x1, x1, [x3, #48]
    add     x3, x3, #64
    cmp     x3, x4
    b.lo    6b
7:  stp     x1, x1, [x5, #-64]
    stp     x1, x1, [x5, #-48]
    stp     x1, x1, [x5, #-32]
    stp     x1, x1, [x5, #-16]
    ret
3:  tbz     x2, #3, 4f
    str     x1, [x0]
    str     x1, [x5, #-8]
    ret
4:  tbz     x2, #2, 4f
    str     w1, [x0]
    str     w1, [x5, #-4]
    ret
4:  cbz     x2, 8f
    strb    w1, [x0]
    strb    w1, [x5, #-1]
    lsr     x3, x2, #1
    strb    w1, [x0, x3]
8:  ret

// At least 512 zero bytes: whole blocks by DC ZVA. x3 = next, 16-aligned; x5 = end.
.Lzero_blocks:
    mrs     x6, dczid_el0
    tbnz    w6, #4, 5b                          // DZP: prohibited
    mov     x7, #4
    lsl     x7, x7, x6                          // block bytes (bit 4 is clear)
    cmp     x7, #128
    b.hi    5b
    sub     x8, x7, #1
9:  tst     x3, x8
    b.eq    10f
    stp     xzr, xzr, [x3], #16
    b       9b
10: sub     x4, x5, x7
11: dc      zva, x3
    add     x3, x3, x7
    cmp     x3, x4
    b.ls    11b
    b       5b
.size memset, . - memset

// memcmp(x0, x1, x2 n), bcmp: the sign of the first difference as unsigned bytes.
.balign 64
.globl memcmp
.globl bcmp
.type memcmp, %function
.type bcmp, %function
memcmp:
bcmp:
    cmp     x2, #8
    b.lo    3f
    sub     x2, x2, #8
1:  ldr     x3, [x0], #8
    ldr     x4, [x1], #8
    cmp     x3, x4
    b.ne    2f
    subs    x2, x2, #8
    b.hs    1b
    add     x0, x0, x2                          // the last 8 bytes, overlapping (x2 is -8 to -1)
    add     x1, x1, x2
    ldr     x3, [x0]
    ldr     x4, [x1]
    cmp     x3, x4
    b.ne    2f
    mov     w0, #0
    ret
2:  rev     x3, x3
    rev     x4, x4
    cmp     x3, x4
    cset    w0, hi
    csinv   w0, w0, wzr, hs
    ret
3:  cbz     x2, 5f
4:  ldrb    w3, [x0], #1
    ldrb    w4, [x1], #1
    subs    w3, w3, w4
    b.ne    6f
    subs    x2, x2, #1
    b.ne    4b
5:  mov     w0, #0
    ret
6:  mov     w0, w3
    ret
.size memcmp, . - memcmp

// linnet_clear_page(x0): 4096 bytes, aligned.
.balign 64
.globl linnet_clear_page
.type linnet_clear_page, %function
linnet_clear_page:
    mrs     x1, dczid_el0
    tbnz    w1, #4, 2f
    mov     x2, #4
    lsl     x2, x2, x1                          // block bytes: at most 2048
    add     x3, x0, #4096
1:  dc      zva, x0
    add     x0, x0, x2
    cmp     x0, x3
    b.lo    1b
    ret
2:  add     x3, x0, #4096
3:  stp     xzr, xzr, [x0]
    stp     xzr, xzr, [x0, #16]
    stp     xzr, xzr, [x0, #32]
    stp     xzr, xzr, [x0, #48]
    add     x0, x0, #64
    cmp     x0, x3
    b.lo    3b
    ret
.size linnet_clear_page, . - linnet_clear_page

// linnet_copy_page(x0 to, x1 from): 4096 bytes, aligned.
.balign 64
.globl linnet_copy_page
.type linnet_copy_page, %function
linnet_copy_page:
    add     x2, x0, #4096
1:  ldp     x4, x5, [x1]
    ldp     x6, x7, [x1, #16]
    ldp     x8, x9, [x1, #32]
    ldp     x10, x11, [x1, #48]
    ldp     x12, x13, [x1, #64]
    ldp     x14, x15, [x1, #80]
    ldp     x16, x17, [x1, #96]
    stnp    x4, x5, [x0]
    stnp    x6, x7, [x0, #16]
    ldp     x4, x5, [x1, #112]
    add     x1, x1, #128
    stnp    x8, x9, [x0, #32]
    stnp    x10, x11, [x0, #48]
    stnp    x12, x13, [x0, #64]
    stnp    x14, x15, [x0, #80]
    stnp    x16, x17, [x0, #96]
    stnp    x4, x5, [x0, #112]
    add     x0, x0, #128
    cmp     x0, x2
    b.lo    1b
    ret
.size linnet_copy_page, . - linnet_copy_page

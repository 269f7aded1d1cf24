// Exchanges for words that several CPUs want at once: one instruction where the CPUs have the Large
// System Extensions, whose loser does not retry; a loop otherwise. Acquire and release.

.section .text.atomic, "ax"

// w0 = linnet_swap_u8(x0 = place, w1 = new)
.balign 32
.globl linnet_swap_u8
.type linnet_swap_u8, %function
linnet_swap_u8:
.Lswap_u8:
    b       1f                                  // SWPALB W1, W2, [X0]
    mov     w0, w2
    ret
1:  ldaxrb  w2, [x0]
    stlxrb  w3, w1, [x0]
    cbnz    w3, 1b
    mov     w0, w2
    ret
.size linnet_swap_u8, . - linnet_swap_u8
    alternative .Lswap_u8, 0x38e18002, {LSE}

// w0 = linnet_swap_u16(x0 = place, w1 = new)
.balign 32
.globl linnet_swap_u16
.type linnet_swap_u16, %function
linnet_swap_u16:
.Lswap_u16:
    b       1f                                  // SWPALH W1, W2, [X0]
    mov     w0, w2
    ret
1:  ldaxrh  w2, [x0]
    stlxrh  w3, w1, [x0]
    cbnz    w3, 1b
    mov     w0, w2
    ret
.size linnet_swap_u16, . - linnet_swap_u16
    alternative .Lswap_u16, 0x78e18002, {LSE}

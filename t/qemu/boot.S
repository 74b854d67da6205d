/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
/*
 * A boot sector that says on COM1 that the firmware has read it, then has the
 * firmware read more of the disk: 16 times 64 sectors, 16384 sectors apart.
 * It prints a sum of those, which t/qemu/guest.c makes too, and leaves QEMU
 * through isa-debug-exit (status 33), or halts where there is none.
 *
 * Real mode, 512 bytes, loaded at 0x7c00; linked as a flat binary.
 */
	.code16
	.globl	_start
	.text

	.equ	COM1, 0x3f8
	.equ	BUFFER, 0x1000		/* segment: page aligned, clear of us */
	.equ	CHUNK, 64		/* sectors */
	.equ	STRIDE, 16384		/* sectors */
	.equ	CHUNKS, 16

_start:
	ljmp	$0, $1f
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7c00, %sp
	cld
	sti
	movb	%dl, drive

	movw	$hello, %si
	call	puts

	xorl	%ebx, %ebx		/* the sum */
	movw	$CHUNKS, %bp
read:
	movw	$packet, %si
	movb	drive, %dl
	movb	$0x42, %ah		/* extended read */
	pushl	%ebx
	pushw	%bp
	int	$0x13
	popw	%bp
	popl	%ebx
	jc	failed
	movw	$BUFFER, %ax
	movw	%ax, %es
	xorw	%di, %di
	movw	$(CHUNK * 512 / 4), %cx
sum:
	roll	$1, %ebx
	addl	%es:(%di), %ebx
	addw	$4, %di
	loop	sum
	addl	$STRIDE, lba
	decw	%bp
	jnz	read

	movw	$8, %cx			/* print the sum, high digit first */
digit:
	roll	$4, %ebx
	movb	%bl, %al
	andb	$0x0f, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	1f
	addb	$('a' - '0' - 10), %al
1:	call	putc
	loop	digit
	movw	$newline, %si
	jmp	quit
failed:
	movw	$error, %si
quit:
	call	puts
	/* The line must be out before the machine is gone. */
	movw	$(COM1 + 5), %dx
1:	inb	%dx, %al
	testb	$0x40, %al
	jz	1b
	movb	$0x10, %al
	outb	%al, $0xf4
	cli
2:	hlt
	jmp	2b

/* Print the string at %si. */
puts:
	lodsb
	testb	%al, %al
	jz	1f
	call	putc
	jmp	puts
1:	ret

/* Print %al; keeps all but %dx. */
putc:
	pushw	%ax
	movw	$(COM1 + 5), %dx
1:	inb	%dx, %al
	testb	$0x20, %al
	jz	1b
	popw	%ax
	movw	$COM1, %dx
	outb	%al, %dx
	ret

hello:	.asciz	"boot sector: running\r\nboot sector: sum "
error:	.asciz	"read error"
newline: .asciz	"\r\n"
drive:	.byte	0

	.balign	4
packet:					/* what int 13h wants to know */
	.byte	16, 0
	.word	CHUNK
	.word	0, BUFFER
lba:	.long	0, 0

	.org	510
	.byte	0x55, 0xaa

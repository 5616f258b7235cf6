/*
 * long enter_guarded(int fd, unsigned long request, unsigned long arg, struct enter_regs *out, fn):
 * calls fn(fd, request, arg) with known values in all registers that a function keeps; out gets what
 * they and the stack pointer and the flags were when it came back.
 */
	.text
	.globl	enter_guarded
	.type	enter_guarded, @function
enter_guarded:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rcx
	movabs	$0xc0ffee0000000b1c, %rbx
	movabs	$0xc0ffee0000000b2c, %rbp
	movabs	$0xc0ffee0000000b3c, %r12
	movabs	$0xc0ffee0000000b4c, %r13
	movabs	$0xc0ffee0000000b5c, %r14
	movabs	$0xc0ffee0000000b6c, %r15
	mov	%rsp, 0(%rcx)
	call	*%r8
	mov	(%rsp), %rcx
	mov	%rsp, 8(%rcx)
	mov	%rbx, 16(%rcx)
	mov	%rbp, 24(%rcx)
	mov	%r12, 32(%rcx)
	mov	%r13, 40(%rcx)
	mov	%r14, 48(%rcx)
	mov	%r15, 56(%rcx)
	pushf
	pop	64(%rcx)
	push	$2
	popf
	pop	%rcx
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.size	enter_guarded, . - enter_guarded
	.section .note.GNU-stack, "", @progbits

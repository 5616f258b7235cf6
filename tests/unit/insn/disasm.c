/*
 * Instructions as text (insn/disasm.h) against fixed lines. The bytes are those that NASM makes of
 * each line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hypervisor/insn/disasm.h"

struct line {
	const char *bytes, *text;
};

/* At 10000000h. */
static const struct line lines64[] = {
	{ "4889d8", "mov rax, rbx" },
	{ "8b448b10", "mov eax, dword [rbx+rcx*4+0x10]" },
	{ "4c897c24f8", "mov qword [rsp-0x8], r15" },
	{ "41883424", "mov byte [r12], sil" },
	{ "448a4d00", "mov r9b, byte [rbp]" },
	{ "88dc", "mov ah, bl" },
	{ "66418b8dff7f0000", "mov cx, word [r13+0x7fff]" },
	{ "48c74718ffffffff", "mov qword [rdi+0x18], -0x1" },
	{ "c70778563412", "mov dword [rdi], 0x12345678" },
	{ "b8efbeadde", "mov eax, 0xdeadbeef" },
	{ "48b8f0debc9a78563412", "mov rax, 0x123456789abcdef0" },
	{ "48c7c1ffffffff", "mov rcx, -0x1" },
	{ "8a052e120000", "mov al, byte [rel 0x10001234]" },
	{ "64488b042528000000", "mov rax, qword [fs:0x28]" },
	{ "65488b4310", "mov rax, qword [gs:rbx+0x10]" },
	{ "678b0473", "mov eax, dword [ebx+esi*2]" },
	{ "0f22d8", "mov cr3, rax" },
	{ "0f20c0", "mov rax, cr0" },
	{ "0f21fa", "mov rdx, dr7" },
	{ "8ed8", "mov ds, ax" },
	{ "8cd8", "mov eax, ds" },
	{ "488d05f9ffffff", "lea rax, [rel 0x10000000]" },
	{ "488d74ff80", "lea rsi, [rdi+rdi*8-0x80]" },
	{ "458d4101", "lea r8d, [r9+0x1]" },
	{ "55", "push rbp" },
	{ "4154", "push r12" },
	{ "6a7f", "push 0x7f" },
	{ "6aff", "push -0x1" },
	{ "ff7008", "push qword [rax+0x8]" },
	{ "5d", "pop rbp" },
	{ "8f442408", "pop qword [rsp+0x8]" },
	{ "4990", "xchg r8, rax" },
	{ "8707", "xchg dword [rdi], eax" },
	{ "f08707", "lock xchg dword [rdi], eax" },
	{ "f0480fb17740", "lock cmpxchg qword [rdi+0x40], rsi" },
	{ "f00fc108", "lock xadd dword [rax], ecx" },
	{ "f0ff05f91f0000", "lock inc dword [rel 0x10002000]" },
	{ "f0830c2400", "lock or dword [rsp], 0x0" },
	{ "f0480fc70e", "lock cmpxchg16b oword [rsi]" },
	{ "0fc70e", "cmpxchg8b qword [rsi]" },
	{ "4883c480", "add rsp, -0x80" },
	{ "480578563412", "add rax, 0x12345678" },
	{ "8345ec01", "add dword [rbp-0x14], 0x1" },
	{ "0405", "add al, 0x5" },
	{ "664501da", "add r10w, r11w" },
	{ "83d200", "adc edx, 0x0" },
	{ "4883ec28", "sub rsp, 0x28" },
	{ "19c0", "sbb eax, eax" },
	{ "4883e4f0", "and rsp, -0x10" },
	{ "25ffff0000", "and eax, 0xffff" },
	{ "80480320", "or byte [rax+0x3], 0x20" },
	{ "31c0", "xor eax, eax" },
	{ "4d3384c100010000", "xor r8, qword [r9+rax*8+0x100]" },
	{ "803800", "cmp byte [rax], 0x0" },
	{ "4839f7", "cmp rdi, rsi" },
	{ "83f8ff", "cmp eax, -0x1" },
	{ "84c0", "test al, al" },
	{ "f70700000080", "test dword [rdi], 0x80000000" },
	{ "4885c0", "test rax, rax" },
	{ "48ffc1", "inc rcx" },
	{ "fe0a", "dec byte [rdx]" },
	{ "41f7de", "neg r14d" },
	{ "48f710", "not qword [rax]" },
	{ "48f7e1", "mul rcx" },
	{ "f7e8", "imul eax" },
	{ "480fafc3", "imul rax, rbx" },
	{ "6b0664", "imul eax, dword [rsi], 0x64" },
	{ "486bd1e8", "imul rdx, rcx, -0x18" },
	{ "49f7f0", "div r8" },
	{ "f77c2404", "idiv dword [rsp+0x4]" },
	{ "6698", "cbw" },
	{ "98", "cwde" },
	{ "4898", "cdqe" },
	{ "6699", "cwd" },
	{ "99", "cdq" },
	{ "4899", "cqo" },
	{ "48c1e004", "shl rax, 0x4" },
	{ "d1e0", "shl eax, 0x1" },
	{ "d3e2", "shl edx, cl" },
	{ "48c12f3f", "shr qword [rdi], 0x3f" },
	{ "41c1f91f", "sar r9d, 0x1f" },
	{ "66c1c008", "rol ax, 0x8" },
	{ "d20e", "ror byte [rsi], cl" },
	{ "d1d0", "rcl eax, 0x1" },
	{ "48d1da", "rcr rdx, 0x1" },
	{ "480fa4d005", "shld rax, rdx, 0x5" },
	{ "0fad0b", "shrd dword [rbx], ecx, cl" },
	{ "0fbae005", "bt eax, 0x5" },
	{ "480fab37", "bts qword [rdi], rsi" },
	{ "f00fba3703", "lock btr dword [rdi], 0x3" },
	{ "0fbbd1", "btc ecx, edx" },
	{ "480fbcc3", "bsf rax, rbx" },
	{ "0fbd01", "bsr eax, dword [rcx]" },
	{ "f30fbcc3", "tzcnt eax, ebx" },
	{ "f3480fbd07", "lzcnt rax, qword [rdi]" },
	{ "f3480fb8ca", "popcnt rcx, rdx" },
	{ "490fcb", "bswap r11" },
	{ "0fc8", "bswap eax" },
	{ "c4e260f201", "andn eax, ebx, dword [rcx]" },
	{ "c4e2f0f7c3", "bextr rax, rbx, rcx" },
	{ "c4e278f3cb", "blsr eax, ebx" },
	{ "c4e2f0f31f", "blsi rcx, qword [rdi]" },
	{ "c4e2e3f506", "pdep rax, rbx, qword [rsi]" },
	{ "c4e262f5c1", "pext eax, ebx, ecx" },
	{ "c4e3fbf0c307", "rorx rax, rbx, 0x7" },
	{ "c4e271f707", "shlx eax, dword [rdi], ecx" },
	{ "c4e2f2f7c3", "sarx rax, rbx, rcx" },
	{ "c4e2e3f6c1", "mulx rax, rbx, rcx" },
	{ "660f38f6c3", "adcx eax, ebx" },
	{ "f3480f38f607", "adox rax, qword [rdi]" },
	{ "0f38f006", "movbe eax, dword [rsi]" },
	{ "f20f38f0c3", "crc32 eax, bl" },
	{ "f2480f38f107", "crc32 rax, qword [rdi]" },
	{ "0fb6c0", "movzx eax, al" },
	{ "0fb60c07", "movzx ecx, byte [rdi+rax]" },
	{ "450fb701", "movzx r8d, word [r9]" },
	{ "480fbec3", "movsx rax, bl" },
	{ "0fbf06", "movsx eax, word [rsi]" },
	{ "4863c7", "movsxd rax, edi" },
	{ "48634a04", "movsxd rcx, dword [rdx+0x4]" },
	{ "480f44c3", "cmovz rax, rbx" },
	{ "0f4d0e", "cmovnl ecx, dword [rsi]" },
	{ "0f94c0", "setz al" },
	{ "0f9707", "setnbe byte [rdi]" },
	{ "0f840a000000", "jz 0x10000010" },
	{ "0f85faffffff", "jnz 0x10000000" },
	{ "e9fb0f0000", "jmp 0x10001000" },
	{ "e31e", "jrcxz 0x10000020" },
	{ "67e31d", "jecxz 0x10000020" },
	{ "e2fe", "loop 0x10000000" },
	{ "e873563402", "call 0x12345678" },
	{ "ffd0", "call rax" },
	{ "ff14c500100000", "call qword [rax*8+0x1000]" },
	{ "ff25fa2f0000", "jmp qword [rel 0x10003000]" },
	{ "41ffe3", "jmp r11" },
	{ "ff28", "jmp dword far [rax]" },
	{ "48ff1b", "call qword far [rbx]" },
	{ "c3", "ret" },
	{ "c21000", "ret 0x10" },
	{ "48cb", "retfq" },
	{ "cb", "retfd" },
	{ "c9", "leave" },
	{ "c8200000", "enter 0x20, 0x0" },
	{ "cd80", "int 0x80" },
	{ "cc", "int3" },
	{ "f1", "int1" },
	{ "0f05", "syscall" },
	{ "480f07", "o64 sysret" },
	{ "0f07", "sysret" },
	{ "48cf", "iretq" },
	{ "cf", "iretd" },
	{ "f4", "hlt" },
	{ "fa", "cli" },
	{ "fb", "sti" },
	{ "fc", "cld" },
	{ "fd", "std" },
	{ "f8", "clc" },
	{ "f9", "stc" },
	{ "f5", "cmc" },
	{ "90", "nop" },
	{ "f390", "pause" },
	{ "0f0b", "ud2" },
	{ "0fa2", "cpuid" },
	{ "0f31", "rdtsc" },
	{ "0f01f9", "rdtscp" },
	{ "0f32", "rdmsr" },
	{ "0f30", "wrmsr" },
	{ "0f33", "rdpmc" },
	{ "0f01f8", "swapgs" },
	{ "0f09", "wbinvd" },
	{ "0f013f", "invlpg [rdi]" },
	{ "0f011424", "lgdt [rsp]" },
	{ "0f0108", "sidt [rax]" },
	{ "0f00d8", "ltr ax" },
	{ "0f0010", "lldt word [rax]" },
	{ "0f00c8", "str eax" },
	{ "0f01f0", "lmsw ax" },
	{ "0f06", "clts" },
	{ "0f01d0", "xgetbv" },
	{ "0f01d1", "xsetbv" },
	{ "0f01ca", "clac" },
	{ "0f01cb", "stac" },
	{ "0f01c8", "monitor" },
	{ "0f01c9", "mwait" },
	{ "f3480faec0", "rdfsbase rax" },
	{ "f30faed9", "wrgsbase ecx" },
	{ "66480f388207", "invpcid rax, oword [rdi]" },
	{ "e460", "in al, 0x60" },
	{ "ed", "in eax, dx" },
	{ "ee", "out dx, al" },
	{ "e680", "out 0x80, al" },
	{ "f3a4", "rep movsb" },
	{ "f348a5", "rep movsq" },
	{ "f3ab", "rep stosd" },
	{ "f3a6", "repe cmpsb" },
	{ "f2ae", "repne scasb" },
	{ "66a5", "movsw" },
	{ "48ad", "lodsq" },
	{ "aa", "stosb" },
	{ "64ac", "fs lodsb" },
	{ "6c", "insb" },
	{ "f36e", "rep outsb" },
	{ "d7", "xlatb" },
	{ "9e", "sahf" },
	{ "9f", "lahf" },
	{ "9c", "pushfq" },
	{ "9d", "popfq" },
	{ "0faee8", "lfence" },
	{ "0faef0", "mfence" },
	{ "0faef8", "sfence" },
	{ "0fae3f", "clflush byte [rdi]" },
	{ "0f1808", "prefetcht0 [rax]" },
	{ "0f0d0f", "prefetchw [rdi]" },
	{ "0fc7f0", "rdrand eax" },
	{ "480fc7f9", "rdseed rcx" },
	{ "0f1000", "movups xmm0, oword [rax]" },
	{ "440f28c1", "movaps xmm8, xmm1" },
	{ "f30f1005f83f0000", "movss xmm0, dword [rel 0x10004000]" },
	{ "f2440f117c2408", "movsd qword [rsp+0x8], xmm15" },
	{ "660f6ec0", "movd xmm0, eax" },
	{ "66480f6ec0", "movq xmm0, rax" },
	{ "66480f7ec9", "movq rcx, xmm1" },
	{ "f30f7e07", "movq xmm0, qword [rdi]" },
	{ "660fd607", "movq qword [rdi], xmm0" },
	{ "f30f7f140f", "movdqu oword [rdi+rcx], xmm2" },
	{ "660f6fdc", "movdqa xmm3, xmm4" },
	{ "0f1200", "movlps xmm0, qword [rax]" },
	{ "0f12c1", "movhlps xmm0, xmm1" },
	{ "0f16d3", "movlhps xmm2, xmm3" },
	{ "0f1708", "movhps qword [rax], xmm1" },
	{ "660fe707", "movntdq oword [rdi], xmm0" },
	{ "0fc307", "movnti dword [rdi], eax" },
	{ "f30f584004", "addss xmm0, dword [rax+0x4]" },
	{ "f20f58ca", "addsd xmm1, xmm2" },
	{ "0f5906", "mulps xmm0, oword [rsi]" },
	{ "f20f5107", "sqrtsd xmm0, qword [rdi]" },
	{ "660f2ec1", "ucomisd xmm0, xmm1" },
	{ "0f2f00", "comiss xmm0, dword [rax]" },
	{ "f2480f2ac0", "cvtsi2sd xmm0, rax" },
	{ "f30f2a07", "cvtsi2ss xmm0, dword [rdi]" },
	{ "f20f2cc0", "cvttsd2si eax, xmm0" },
	{ "f3480f2c07", "cvttss2si rax, dword [rdi]" },
	{ "f30f5ac1", "cvtss2sd xmm0, xmm1" },
	{ "0f5bc1", "cvtdq2ps xmm0, xmm1" },
	{ "660fefc0", "pxor xmm0, xmm0" },
	{ "660ffe0f", "paddd xmm1, oword [rdi]" },
	{ "660f7400", "pcmpeqb xmm0, oword [rax]" },
	{ "660fd7c0", "pmovmskb eax, xmm0" },
	{ "660f3800c1", "pshufb xmm0, xmm1" },
	{ "660f70c11b", "pshufd xmm0, xmm1, 0x1b" },
	{ "660f7000e4", "pshufd xmm0, oword [rax], 0xe4" },
	{ "660f73d808", "psrldq xmm0, 0x8" },
	{ "660f72f305", "pslld xmm3, 0x5" },
	{ "660fc4c003", "pinsrw xmm0, eax, 0x3" },
	{ "66480f3a22c001", "pinsrq xmm0, rax, 0x1" },
	{ "660f3a160702", "pextrd dword [rdi], xmm0, 0x2" },
	{ "660f3a14c803", "pextrb eax, xmm1, 0x3" },
	{ "660f3810ca", "pblendvb xmm1, xmm2, xmm0" },
	{ "660f3a44c111", "pclmulqdq xmm0, xmm1, 0x11" },
	{ "660f38dc07", "aesenc xmm0, oword [rdi]" },
	{ "660f3adfca01", "aeskeygenassist xmm1, xmm2, 0x1" },
	{ "0f38cbca", "sha256rnds2 xmm1, xmm2, xmm0" },
	{ "0fc6c144", "shufps xmm0, xmm1, 0x44" },
	{ "660f3a0bc103", "roundsd xmm0, xmm1, 0x3" },
	{ "660f3817c1", "ptest xmm0, xmm1" },
	{ "660f3a63071a", "pcmpistri xmm0, oword [rdi], 0x1a" },
	{ "0f6ec0", "movd mm0, eax" },
	{ "0ffdca", "paddw mm1, mm2" },
	{ "0fdb07", "pand mm0, qword [rdi]" },
	{ "0f77", "emms" },
	{ "c5f45807", "vaddps ymm0, ymm1, yword [rdi]" },
	{ "c5f25807", "vaddss xmm0, xmm1, dword [rdi]" },
	{ "c4417c100401", "vmovups ymm8, yword [r9+rax]" },
	{ "c5f97f0c24", "vmovdqa oword [rsp], xmm1" },
	{ "c5f96ec0", "vmovd xmm0, eax" },
	{ "c4e1f97ec0", "vmovq rax, xmm0" },
	{ "c5f857c0", "vxorps xmm0, xmm0, xmm0" },
	{ "c5f5fec2", "vpaddd ymm0, ymm1, ymm2" },
	{ "c4e2750007", "vpshufb ymm0, ymm1, yword [rdi]" },
	{ "c4e3fd00c1d8", "vpermq ymm0, ymm1, 0xd8" },
	{ "c4e37d39c801", "vextracti128 xmm0, ymm1, 0x1" },
	{ "c4e37538c201", "vinserti128 ymm0, ymm1, xmm2, 0x1" },
	{ "c4e27d78c1", "vpbroadcastb ymm0, xmm1" },
	{ "c4e27d18c1", "vbroadcastss ymm0, xmm1" },
	{ "c4e27d1807", "vbroadcastss ymm0, dword [rdi]" },
	{ "c4e275b8c2", "vfmadd231ps ymm0, ymm1, ymm2" },
	{ "c4e2f19907", "vfmadd132sd xmm0, xmm1, qword [rdi]" },
	{ "c4e3714ac230", "vblendvps xmm0, xmm1, xmm2, xmm3" },
	{ "c4e26d900488", "vpgatherdd ymm0, [rax+ymm1*4], ymm2" },
	{ "c4e2ed9244c810", "vgatherdpd ymm0, [rax+xmm1*8+0x10], ymm2" },
	{ "c5fc5ac1", "vcvtps2pd ymm0, xmm1" },
	{ "c5fd5ac1", "vcvtpd2ps xmm0, ymm1" },
	{ "c4e27d13c1", "vcvtph2ps ymm0, xmm1" },
	{ "c4e27d3007", "vpmovzxbw ymm0, oword [rdi]" },
	{ "c5fdd7c0", "vpmovmskb eax, ymm0" },
	{ "c4e27d17c1", "vptest ymm0, ymm1" },
	{ "c4e27d1ec1", "vpabsd ymm0, ymm1" },
	{ "62f1744858c2", "vaddps zmm0, zmm1, zmm2" },
	{ "62617cc1587f01", "vaddps zmm31{k1}{z}, zmm16, zword [rdi+0x40]" },
	{ "62f1ed3a5808", "vaddpd ymm1{k2}, ymm2, qword [rax]{1to4}" },
	{ "62f16c785ccb", "vsubps zmm1, zmm2, zmm3, {rz-sae}" },
	{ "62e1ef185fc3", "vmaxsd xmm16, xmm2, xmm3, {sae}" },
	{ "62f17fcb6f06", "vmovdqu8 zmm0{k3}{z}, zword [rsi]" },
	{ "62e1fd4d7f4c2440", "vmovdqa64 zword [rsp+0x1000]{k5}, zmm17" },
	{ "62e17e09116002", "vmovss dword [rax+0x8]{k1}, xmm20" },
	{ "62f37d013e1701", "vpcmpub k2{k1}, xmm16, oword [rdi], 0x1" },
	{ "62f1f518c2fa11", "vcmppd k7, zmm1, zmm2, {sae}, 0x11" },
	{ "62e2f520b44601", "vpmadd52luq ymm16, ymm17, yword [rsi+0x20]" },
	{ "62f37558250796", "vpternlogd zmm0, zmm1, dword [rdi]{1to16}, 0x96" },
	{ "62e1fd185ac1", "vcvtpd2ps ymm16, zmm1, {rn-sae}" },
	{ "62e17c485ac1", "vcvtps2pd zmm16, ymm1" },
	{ "62b1ff0878c0", "vcvttsd2usi rax, xmm16" },
	{ "62e1f6302ac0", "vcvtsi2ss xmm16, xmm17, {rd-sae}, rax" },
	{ "62f27e49321f", "vpmovqb qword [rdi]{k1}, zmm3" },
	{ "62e27d483106", "vpmovzxbd zmm16, oword [rsi]" },
	{ "62b37d4939c803", "vextracti32x4 xmm16{k1}, zmm1, 0x3" },
	{ "62e3f5481a0701", "vinsertf64x4 zmm16, zmm1, yword [rdi], 0x1" },
	{ "62f27d481a07", "vbroadcastf32x4 zmm0, oword [rdi]" },
	{ "62f27d497ac0", "vpbroadcastb zmm0{k1}, eax" },
	{ "62f27d41900c80", "vpgatherdd zmm1{k1}, [rax+zmm16*4]" },
	{ "62f27d49934cd804", "vgatherqps ymm1{k1}, [rax+zmm3*8+0x10]" },
	{ "62f2fd4aa00cd8", "vpscatterdq [rax+ymm3*8]{k2}, zmm1" },
	{ "62f27d09631f", "vpcompressb oword [rdi]{k1}, xmm3" },
	{ "62b2ed487dcb", "vpermt2w zmm1, zmm2, zmm19" },
	{ "62f1fd4072c905", "vprolq zmm16, zmm1, 0x5" },
	{ "62f27e4828cb", "vpmovm2b zmm1, k3" },
	{ "62b2fe2829c8", "vpmovw2m k1, ymm16" },
	{ "c5f892c8", "kmovw k1, eax" },
	{ "c4e1fb93c7", "kmovq rax, k7" },
	{ "c5f99017", "kmovb k2, byte [rdi]" },
	{ "c4e1ec42cb", "kandnq k1, k2, k3" },
	{ "c4e1f998ca", "kortestd k1, k2" },
	{ "c4e3f930ca08", "kshiftrw k1, k2, 0x8" },
	{ "c4e1ec4bcb", "kunpckdq k1, k2, k3" },
	{ "c5f877", "vzeroupper" },
	{ "c5fc77", "vzeroall" },
	{ "c5f8ae17", "vldmxcsr dword [rdi]" },
	{ "0fae1424", "ldmxcsr dword [rsp]" },
	{ "0fae1c24", "stmxcsr dword [rsp]" },
	{ "0fae07", "fxsave [rdi]" },
	{ "480fae07", "fxsave64 [rdi]" },
	{ "480fae27", "xsave64 [rdi]" },
	{ "0fae2f", "xrstor [rdi]" },
	{ "d900", "fld dword [rax]" },
	{ "dd03", "fld qword [rbx]" },
	{ "db2c24", "fld tword [rsp]" },
	{ "d9c3", "fld st3" },
	{ "ddd9", "fstp st1" },
	{ "dd17", "fst qword [rdi]" },
	{ "db3f", "fstp tword [rdi]" },
	{ "df2e", "fild qword [rsi]" },
	{ "df1e", "fistp word [rsi]" },
	{ "d800", "fadd dword [rax]" },
	{ "d8c3", "fadd st0, st3" },
	{ "dec1", "faddp st1, st0" },
	{ "dcca", "fmul st2, st0" },
	{ "dc2f", "fsubr qword [rdi]" },
	{ "d9c9", "fxch st0, st1" },
	{ "dbf1", "fcomi st0, st1" },
	{ "dfea", "fucomip st0, st2" },
	{ "dac1", "fcmovb st0, st1" },
	{ "d9e0", "fchs" },
	{ "d9e1", "fabs" },
	{ "d9e8", "fld1" },
	{ "d9ee", "fldz" },
	{ "d9fa", "fsqrt" },
	{ "d9f8", "fprem" },
	{ "d93c24", "fnstcw word [rsp]" },
	{ "d92c24", "fldcw word [rsp]" },
	{ "dfe0", "fnstsw ax" },
	{ "dbe2", "fnclex" },
	{ "dbe3", "fninit" },
	{ "9b", "fwait" },
};

/* At 10000000h. */
static const struct line lines32[] = {
	{ "06", "push es" },
	{ "1f", "pop ds" },
	{ "60", "pushad" },
	{ "61", "popad" },
	{ "9c", "pushfd" },
	{ "9d", "popfd" },
	{ "40", "inc eax" },
	{ "4f", "dec edi" },
	{ "a178563412", "mov eax, dword [0x12345678]" },
	{ "a100100000", "mov eax, dword [0x1000]" },
	{ "a200800b00", "mov byte [0xb8000], al" },
	{ "66678b4010", "mov ax, word [bx+si+0x10]" },
	{ "8b4508", "mov eax, dword [ebp+0x8]" },
	{ "268b07", "mov eax, dword [es:edi]" },
	{ "368b00", "mov eax, dword [ss:eax]" },
	{ "2ea310000000", "mov dword [cs:0x10], eax" },
	{ "8d04b6", "lea eax, [esi+esi*4]" },
	{ "c403", "les eax, [ebx]" },
	{ "0fb22500100000", "lss esp, [0x1000]" },
	{ "9a785634121000", "call 0x10:0x12345678" },
	{ "ea000001000800", "jmp 0x8:0x10000" },
	{ "ff2d00100000", "jmp dword far [0x1000]" },
	{ "66ff2b", "jmp word far [ebx]" },
	{ "67e30d", "jcxz 0x10000010" },
	{ "e30e", "jecxz 0x10000010" },
	{ "c3", "ret" },
	{ "cb", "retfd" },
	{ "66cb", "retfw" },
	{ "cf", "iretd" },
	{ "66cf", "iretw" },
	{ "d40a", "aam 0xa" },
	{ "27", "daa" },
	{ "ce", "into" },
	{ "6201", "bound eax, qword [ecx]" },
	{ "6308", "arpl word [eax], cx" },
	{ "c8100001", "enter 0x10, 0x1" },
	{ "a5", "movsd" },
	{ "f3a5", "rep movsd" },
	{ "26ad", "es lodsd" },
	{ "0f34", "sysenter" },
	{ "0f35", "sysexit" },
	{ "0fc70e", "cmpxchg8b qword [esi]" },
	{ "6878563412", "push 0x12345678" },
	{ "66ff30", "push word [eax]" },
	{ "6693", "xchg bx, ax" },
	{ "c5f45800", "vaddps ymm0, ymm1, yword [eax]" },
	{ "660f6ec0", "movd xmm0, eax" },
	{ "660f01e0", "smsw ax" },
};

/* At 0. */
static const struct line lines16[] = {
	{ "89d8", "mov ax, bx" },
	{ "6689d8", "mov eax, ebx" },
	{ "8b41fe", "mov ax, word [bx+di-0x2]" },
	{ "a0007c", "mov al, byte [0x7c00]" },
	{ "368b07", "mov ax, word [ss:bx]" },
	{ "66678b4010", "mov eax, dword [eax+0x10]" },
	{ "0f22c0", "mov cr0, eax" },
	{ "bc007c", "mov sp, 0x7c00" },
	{ "83460401", "add word [bp+0x4], 0x1" },
	{ "ff34", "push word [si]" },
	{ "66ff34", "push dword [si]" },
	{ "60", "pushaw" },
	{ "9c", "pushfw" },
	{ "669d", "popfd" },
	{ "e8fd0f", "call 0x1000" },
	{ "eaf0ff00f0", "jmp 0xf000:0xfff0" },
	{ "66ea000010000800", "jmp 0x8:0x100000" },
	{ "cd13", "int 0x13" },
	{ "cf", "iretw" },
	{ "f3a5", "rep movsw" },
	{ "ac", "lodsb" },
	{ "99", "cwd" },
	{ "6698", "cwde" },
	{ "0f0116007c", "lgdt [0x7c00]" },
	{ "e31e", "jcxz 0x20" },
	{ "e2fe", "loop 0x0" },
	{ "ef", "out dx, ax" },
};

static unsigned int bytes_of(const char *hex, u8 *bytes)
{
	unsigned int n = 0, b;

	for (; sscanf(hex, "%2x", &b) == 1; hex += 2)
		bytes[n++] = (u8)b;
	return n;
}

/* The number of lines that differ, each shown. */
static unsigned int lines_differ(
	const struct line *lines, unsigned int n, unsigned int code, u64 rip)
{
	unsigned int bad = 0;

	for (unsigned int k = 0; k < n; k++) {
		char text[100] = "cannot be decoded";
		u8 bytes[16];
		unsigned int len = bytes_of(lines[k].bytes, bytes);
		struct insn i;

		if (insn_decode(bytes, len, code, &i) == DECODE_OK && i.len == len)
			insn_format(text, sizeof(text), &i, rip);
		if (!strcmp(text, lines[k].text))
			continue;
		print_error("%s: \"%s\", expected \"%s\"\n", lines[k].bytes, text, lines[k].text);
		bad++;
	}
	return bad;
}

static void test_64(void **state)
{
	assert_int_equal(lines_differ(lines64, ARRAY_SIZE(lines64), 8, 0x10000000), 0);
}

static void test_32(void **state)
{
	assert_int_equal(lines_differ(lines32, ARRAY_SIZE(lines32), 4, 0x10000000), 0);
}

static void test_16(void **state)
{
	assert_int_equal(lines_differ(lines16, ARRAY_SIZE(lines16), 2, 0), 0);
}

/* A buffer of any size, down to none at all: cut, terminated, and the whole length returned. */
static void test_short_buffers(void **state)
{
	static const char want[] = "mov qword [rsp-0x8], r15";
	static const u8 bytes[] = { 0x4c, 0x89, 0x7c, 0x24, 0xf8 };
	struct insn i;

	assert_int_equal(insn_decode(bytes, sizeof(bytes), 8, &i), DECODE_OK);
	for (size_t n = 0; n <= sizeof(want); n++) {
		char buf[sizeof(want) + 1];

		memset(buf, '#', sizeof(buf));
		assert_int_equal(insn_format(buf, n, &i, 0), strlen(want));
		assert_int_equal(buf[n], '#');
		if (n) {
			assert_int_equal(strlen(buf), MIN(n - 1, strlen(want)));
			assert_memory_equal(buf, want, strlen(buf));
		}
	}
}

/* Targets wrap where the instruction pointer does. */
static void test_targets(void **state)
{
	static const struct { u8 code; u64 rip; const char *bytes, *text; } at[] = {
		{ 8, 0xfffffffffffffffe, "ebfe", "jmp 0xfffffffffffffffe" },
		{ 8, 0xfffffffffffffffe, "eb02", "jmp 0x2" },
		{ 8, 0xffffffff81000000, "e8fbffffff", "call 0xffffffff81000000" },
		{ 8, 0xffffffff81000000, "488b05f9ffffff", "mov rax, qword [rel 0xffffffff81000000]" },
		{ 8, 0x12345678, "67488b05f9ffffff", "mov rax, qword [rel 0x12345679]" },
		{ 4, 0xfffffffe, "eb02", "jmp 0x2" },
		{ 2, 0xfffe, "eb02", "jmp 0x2" },
	};

	for (unsigned int k = 0; k < ARRAY_SIZE(at); k++) {
		struct line line = { at[k].bytes, at[k].text };

		assert_int_equal(lines_differ(&line, 1, at[k].code, at[k].rip), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_64),
		cmocka_unit_test(test_32),
		cmocka_unit_test(test_16),
		cmocka_unit_test(test_short_buffers),
		cmocka_unit_test(test_targets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

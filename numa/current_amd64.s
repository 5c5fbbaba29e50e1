#include "textflag.h"

// func rdpid() uint64
TEXT ·rdpid(SB), NOSPLIT, $0-8
	BYTE $0xF3; BYTE $0x0F; BYTE $0xC7; BYTE $0xF8 // RDPID AX, unknown to the assembler
	MOVQ AX, ret+0(FP)
	RET

// func lsl() uint64
TEXT ·lsl(SB), NOSPLIT, $0-8
	MOVQ $-1, AX
	MOVL $0x7B, CX                      // __CPUNODE_SEG: entry 15 of the GDT, privilege level 3
	BYTE $0x0F; BYTE $0x03; BYTE $0xC1  // LSL CX, AX; leaves AX alone where the segment is bad
	MOVQ AX, ret+0(FP)
	RET

// func cpuid7() uint32
TEXT ·cpuid7(SB), NOSPLIT, $0-4
	XORL AX, AX
	CPUID
	XORL DX, DX
	CMPL AX, $7
	JLT  done
	MOVL $7, AX
	XORL CX, CX
	CPUID
	MOVL CX, DX
done:
	MOVL DX, ret+0(FP)
	RET

/* A guest of 512 bytes that dirties memory at a set rate: for machines whose KVM boots no Linux.
 *
 * It writes one word into each page of a range, over and over, one page a period of the time stamp
 * counter. What it is late it catches up only up to LATE: a guest that was held back does less work.
 * And where the host emulates the guest's code, a burst overruns KVM's dirty ring, which is full for
 * ever then. How many pages it has written is in ESI, for whoever wants to know how fast it really
 * was, and nowhere in memory: such a ring has an entry for each write, and not for each page. The
 * builder sets PERIOD, LATE, BEGIN and END.
 */
        .code16
        .globl _start
_start: cli
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl table
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $flat

        .code32
flat:   movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        xorl %esi, %esi
        movl $BEGIN, %edi
        rdtsc
        movl %eax, %ebx                 /* when the next page is due: %ecx:%ebx */
        movl %edx, %ecx
again:  rdtsc
        cmpl %ecx, %edx
        jb again
        ja due
        cmpl %ebx, %eax
        jb again
due:    addl $PERIOD, %ebx
        adcl $0, %ecx
        subl %ebx, %eax                 /* how late that is already: %edx:%eax, signed */
        sbbl %ecx, %edx
        js write
        jnz forget
        cmpl $LATE, %eax
        jb write
forget: addl %eax, %ebx                 /* due now */
        adcl %edx, %ecx
write:  movl %esi, (%edi)
        addl $4096, %edi
        cmpl $END, %edi
        jb count
        movl $BEGIN, %edi
count:  incl %esi
        jmp again

        .p2align 3
flats:  .quad 0
        .quad 0x00cf9a000000ffff        /* code and data, 4 GiB from 0 */
        .quad 0x00cf92000000ffff
table:  .word . - flats - 1
        .long flats

        .org 510
        .word 0xaa55

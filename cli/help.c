/* The help texts: examples first, then everything there is. */
#include "cli/help.h"
#include "cli/options.h"

void help_main(FILE *out)
{
	fputs("Qumra runs virtual machines, with or without hardware virtualization.\n"
	      "\n"
	      "Usage: qumra COMMAND [OPTION...]\n"
	      "\n"
	      "Commands:\n"
	      "  run        start a virtual machine from a kernel file or with firmware\n"
	      "  control    say something to a machine that runs\n"
	      "  help       show this help, or that of a command: qumra help run\n"
	      "  version    show the version\n"
	      "\n"
	      "Example: boot a kernel with its RAM disk, console on this terminal\n"
	      "  qumra run --kernel vmlinuz --initrd initrd.img --append console=ttyS0\n",
	      out);
}

static const char run_head[] =
	"Usage: qumra run --kernel FILE [OPTION...]\n"
	"       qumra run --firmware NAME [OPTION...]\n"
	"\n"
	"Starts a virtual machine and stays with it until it ends.\n"
	"\n"
	"Options (--option VALUE or --option=VALUE):\n";

static const char run_tail[] =
	"\n"
	"Keys, while the serial port is on a terminal:\n"
	"  Ctrl-A x       end the virtual machine\n"
	"  Ctrl-A b       send a break (Linux: magic SysRq)\n"
	"  Ctrl-A s       take the screenshot of --screenshot\n"
	"  Ctrl-A Ctrl-A  send Ctrl-A\n"
	"  Ctrl-A h       show these keys\n"
	"\n"
	"Exit status:\n"
	"  0  the guest powered off, rebooted under --no-reboot, or you left with Ctrl-A x\n"
	"  1  something failed outside the guest\n"
	"  2  wrong usage\n"
	"  3  the guest crashed: triple fault, or a reboot under --no-reboot after a panic\n"
	"\n"
	"Examples:\n"
	"  A Linux kernel with a RAM disk, console on this terminal:\n"
	"    qumra run --kernel vmlinuz --initrd initrd.img --append console=ttyS0\n"
	"  The same for a script: console into a file, over when the guest is:\n"
	"    qumra run --kernel vmlinuz --initrd initrd.img --append \"console=ttyS0 panic=-1\" "
	"\\\n"
	"        --serial file:console.log --no-reboot\n"
	"  The UEFI shell on this terminal:\n"
	"    qumra run --firmware uefi\n"
	"  Debian from its disk, by UEFI; its SSH server is the host's port 2222:\n"
	"    qumra run --firmware uefi --disk debian.qcow2 --net user,forward=tcp:2222:22 --cpus 2 "
	"\\\n"
	"        --memory 1G\n"
	"  A CD and an empty disk to install to:\n"
	"    qumra run --firmware bios --cdrom installer.iso --disk new.qcow2 --memory 1G\n"
	"  The console on a socket, with more memory, never on /dev/kvm:\n"
	"    qumra run --kernel vmlinuz --memory 2G --serial unix:console.sock --accel soft\n"
	"\n"
	"What runs the guest: \"auto\" takes /dev/kvm where the CPU has hardware virtualization, "
	"and\n"
	"Qumra's own hypervisor everywhere else. One line on standard error says which and why.\n";

void help_run(FILE *out)
{
	char line[400];

	fputs(run_head, out);
	for (unsigned i = 0; run_option_help(i, line, sizeof(line)); i++)
		fprintf(out, "%s\n", line);
	fputs(run_tail, out);
}

void help_control(FILE *out)
{
	fputs("Usage: qumra control SOCKET COMMAND [NAME=VALUE...]\n"
	      "\n"
	      "Gives one command to a machine that was started with --control SOCKET, and prints what it\n"
	      "answers, as JSON. The socket speaks QEMU's QMP; its tools may be used as well.\n"
	      "\n"
	      "Commands:\n"
	      "  query-status                is it running or paused?\n"
	      "  stop, cont                  let it stand still, and go on\n"
	      "  system_powerdown            press the power button\n"
	      "  system_reset                press the reset button\n"
	      "  inject-nmi                  a non-maskable interrupt to every CPU\n"
	      "  quit                        end it, now\n"
	      "  balloon value=BYTES         the guest is to do with so much memory (--device balloon)\n"
	      "  query-balloon               how much it has\n"
	      "  screendump filename=FILE    the screen as a PNG (--display vnc, --device vga)\n"
	      "  block_resize device=disk0 size=BYTES\n"
	      "                              make a disk and its image larger\n"
	      "  blockdev-change-medium device=cdrom0 filename=FILE, eject device=cdrom0\n"
	      "                              put another CD in; take it out\n"
	      "  x-qumra-measure-disks       look whether images have become larger\n"
	      "  query-commands              all there are\n"
	      "\n"
	      "Example:\n"
	      "  qumra run --firmware uefi --disk debian.qcow2 --control vm.sock\n"
	      "  qumra control vm.sock system_powerdown\n",
	      out);
}

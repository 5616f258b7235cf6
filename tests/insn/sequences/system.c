#include "tests/insn/sequences/sequences.h"
bool system_compare(u64 seed) { (void)seed; return true; }
void system_show(u64 seed) { (void)seed; }

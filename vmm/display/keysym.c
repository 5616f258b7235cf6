/*
 * X keysyms, in which VNC names keys, to keys of a US keyboard. Keysyms below 0x100 are Latin-1, the
 * others are those of <X11/keysymdef.h>. Shift and its like come as keys of their own.
 */
#include <linux/input-event-codes.h>

#include "vmm/display/input.h"

/* From ' ' to '~'. */
static const u8 latin[] = {
	KEY_SPACE, KEY_1, KEY_APOSTROPHE, KEY_3, KEY_4, KEY_5, KEY_7, KEY_APOSTROPHE,
	KEY_9, KEY_0, KEY_8, KEY_EQUAL, KEY_COMMA, KEY_MINUS, KEY_DOT, KEY_SLASH,
	KEY_0, KEY_1, KEY_2, KEY_3, KEY_4, KEY_5, KEY_6, KEY_7,
	KEY_8, KEY_9, KEY_SEMICOLON, KEY_SEMICOLON, KEY_COMMA, KEY_EQUAL, KEY_DOT, KEY_SLASH,
	KEY_2, KEY_A, KEY_B, KEY_C, KEY_D, KEY_E, KEY_F, KEY_G,
	KEY_H, KEY_I, KEY_J, KEY_K, KEY_L, KEY_M, KEY_N, KEY_O,
	KEY_P, KEY_Q, KEY_R, KEY_S, KEY_T, KEY_U, KEY_V, KEY_W,
	KEY_X, KEY_Y, KEY_Z, KEY_LEFTBRACE, KEY_BACKSLASH, KEY_RIGHTBRACE, KEY_6, KEY_MINUS,
	KEY_GRAVE, KEY_A, KEY_B, KEY_C, KEY_D, KEY_E, KEY_F, KEY_G,
	KEY_H, KEY_I, KEY_J, KEY_K, KEY_L, KEY_M, KEY_N, KEY_O,
	KEY_P, KEY_Q, KEY_R, KEY_S, KEY_T, KEY_U, KEY_V, KEY_W,
	KEY_X, KEY_Y, KEY_Z, KEY_LEFTBRACE, KEY_BACKSLASH, KEY_RIGHTBRACE, KEY_GRAVE,
};
_Static_assert(sizeof(latin) == 0x7F - 0x20, "a key for each character");

static const struct { u16 keysym; u8 key; } others[] = {
	{ 0xFF08, KEY_BACKSPACE }, { 0xFF09, KEY_TAB }, { 0xFE20, KEY_TAB }, { 0xFF0D, KEY_ENTER },
	{ 0xFF13, KEY_PAUSE }, { 0xFF14, KEY_SCROLLLOCK }, { 0xFF15, KEY_SYSRQ },
	{ 0xFF1B, KEY_ESC }, { 0xFFFF, KEY_DELETE },
	{ 0xFF50, KEY_HOME }, { 0xFF51, KEY_LEFT }, { 0xFF52, KEY_UP }, { 0xFF53, KEY_RIGHT },
	{ 0xFF54, KEY_DOWN }, { 0xFF55, KEY_PAGEUP }, { 0xFF56, KEY_PAGEDOWN }, { 0xFF57, KEY_END },
	{ 0xFF61, KEY_SYSRQ }, { 0xFF63, KEY_INSERT }, { 0xFF67, KEY_COMPOSE }, { 0xFF6B, KEY_PAUSE },
	{ 0xFF7F, KEY_NUMLOCK },
	/* The keypad, with its numbers and without. */
	{ 0xFF8D, KEY_KPENTER }, { 0xFF95, KEY_KP7 }, { 0xFF96, KEY_KP4 }, { 0xFF97, KEY_KP8 },
	{ 0xFF98, KEY_KP6 }, { 0xFF99, KEY_KP2 }, { 0xFF9A, KEY_KP9 }, { 0xFF9B, KEY_KP3 },
	{ 0xFF9C, KEY_KP1 }, { 0xFF9D, KEY_KP5 }, { 0xFF9E, KEY_KP0 }, { 0xFF9F, KEY_KPDOT },
	{ 0xFFAA, KEY_KPASTERISK }, { 0xFFAB, KEY_KPPLUS }, { 0xFFAD, KEY_KPMINUS },
	{ 0xFFAE, KEY_KPDOT }, { 0xFFAF, KEY_KPSLASH }, { 0xFFB0, KEY_KP0 }, { 0xFFB1, KEY_KP1 },
	{ 0xFFB2, KEY_KP2 }, { 0xFFB3, KEY_KP3 }, { 0xFFB4, KEY_KP4 }, { 0xFFB5, KEY_KP5 },
	{ 0xFFB6, KEY_KP6 }, { 0xFFB7, KEY_KP7 }, { 0xFFB8, KEY_KP8 }, { 0xFFB9, KEY_KP9 },
	{ 0xFFBE, KEY_F1 }, { 0xFFBF, KEY_F2 }, { 0xFFC0, KEY_F3 }, { 0xFFC1, KEY_F4 },
	{ 0xFFC2, KEY_F5 }, { 0xFFC3, KEY_F6 }, { 0xFFC4, KEY_F7 }, { 0xFFC5, KEY_F8 },
	{ 0xFFC6, KEY_F9 }, { 0xFFC7, KEY_F10 }, { 0xFFC8, KEY_F11 }, { 0xFFC9, KEY_F12 },
	{ 0xFFE1, KEY_LEFTSHIFT }, { 0xFFE2, KEY_RIGHTSHIFT }, { 0xFFE3, KEY_LEFTCTRL },
	{ 0xFFE4, KEY_RIGHTCTRL }, { 0xFFE5, KEY_CAPSLOCK }, { 0xFFE7, KEY_LEFTMETA },
	{ 0xFFE8, KEY_RIGHTMETA }, { 0xFFE9, KEY_LEFTALT }, { 0xFFEA, KEY_RIGHTALT },
	{ 0xFFEB, KEY_LEFTMETA }, { 0xFFEC, KEY_RIGHTMETA }, { 0xFE03, KEY_RIGHTALT },
};

unsigned keysym_to_key(u32 keysym)
{
	if (keysym >= 0x20 && keysym < 0x7F)
		return latin[keysym - 0x20];
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (others[i].keysym == keysym)
			return others[i].key;
	return 0;
}

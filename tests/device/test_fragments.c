/* A guest's IPv4 fragments on their way to libslirp: whole datagrams come out, or nothing. */
#include "tests/device/fixture.h"
#include "vmm/net/fragments.h"

#define ETH	14
#define MORE	0x2000

static struct net_fragments fragments;
static u8 frame[NET_FRAME_MAX];

static void put16(u8 *p, u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}

/* n bytes of a datagram from `at` on; each byte of it says where it is. options: words behind the header. */
static size_t send_part(u16 id, u32 at, u32 n, bool more, unsigned options)
{
	u8 *ip = frame + ETH;
	u32 head = 20 + 4 * options;
	u16 sum;

	memset(frame, 0, ETH + head);
	put16(frame + 12, 0x0800);
	ip[0] = 0x45 + options;
	put16(ip + 2, head + n);
	put16(ip + 4, id);
	put16(ip + 6, at / 8 | (more ? MORE : 0));
	ip[8] = 64;
	ip[9] = 17;
	memcpy(ip + 12, "\x0A\0\2\x0F\x0A\0\2\2", 8);
	memset(ip + 20, 1, 4 * options);
	sum = ~net_sum(ip, head);
	memcpy(ip + 10, &sum, 2);
	for (u32 i = 0; i < n; i++)
		ip[head + i] = (at + i) * 7 + id;
	/* An Ethernet frame may be padded. */
	return net_reassemble(&fragments, frame, ETH + head + n + 3);
}

static void check_whole(size_t len, u16 id, u32 n, unsigned options)
{
	const u8 *ip = frame + ETH;
	u32 head = 20 + 4 * options;

	assert_int_equal(len, ETH + head + n);
	assert_int_equal(ip[2] << 8 | ip[3], head + n);
	assert_int_equal(ip[6] | ip[7], 0);
	assert_int_equal(net_sum(ip, head), 0xFFFF);
	for (u32 i = 0; i < n; i++)
		assert_int_equal(ip[head + i], (u8)(i * 7 + id));
}

static void test_in_order(void **state)
{
	u32 at = 0;

	(void)state;
	assert_int_equal(send_part(1, 0, 100, false, 0), ETH + 120 + 3);	/* whole: as it is */
	assert_int_equal(send_part(1, 0, 1480, true, 1), 0);
	assert_int_equal(send_part(2, 0, 800, true, 0), 0);
	assert_int_equal(send_part(1, 1480, 1480, true, 0), 0);
	check_whole(send_part(2, 800, 1, false, 2), 2, 801, 0);
	check_whole(send_part(1, 2960, 40, false, 0), 1, 3000, 1);
	/* Nothing is left of them, and one that begins anew does. */
	assert_int_equal(send_part(1, 2960, 40, false, 0), 0);
	assert_int_equal(send_part(3, 0, 1480, true, 0), 0);
	assert_int_equal(send_part(3, 0, 8, true, 0), 0);
	check_whole(send_part(3, 8, 8, false, 0), 3, 16, 0);
	/* As large as can be. */
	for (; at + 1480 < 65515; at += 1480)
		assert_int_equal(send_part(4, at, 1480, true, 0), 0);
	check_whole(send_part(4, at, 65515 - at, false, 0), 4, 65515, 0);
}

/* Alone, twice, with a gap, too long, of wrong lengths, of wrong headers: nothing ever comes out. */
static void test_bad(void **state)
{
	u32 at;

	(void)state;
	assert_int_equal(send_part(1, 376, 37, false, 0), 0);
	assert_int_equal(send_part(1, 8, 64, true, 0), 0);
	assert_int_equal(send_part(1, 0, 64, true, 0), 0);
	assert_int_equal(send_part(1, 72, 8, false, 0), 0);	/* a gap */
	assert_int_equal(send_part(1, 64, 8, false, 0), 0);
	assert_int_equal(send_part(1, 0, 64, true, 0), 0);
	assert_int_equal(send_part(1, 56, 64, false, 0), 0);	/* over it */
	assert_int_equal(send_part(1, 0, 63, true, 0), 0);
	assert_int_equal(send_part(1, 63, 8, false, 0), 0);
	assert_int_equal(send_part(1, 0, 0, true, 0), 0);
	for (at = 0; at + 1480 <= 65528; at += 1480)
		assert_int_equal(send_part(5, at, 1480, true, 0), 0);
	assert_int_equal(send_part(5, at, 1480, false, 0), 0);
	/* The longest header with the most data: the offset goes to 65528, the frame's end does not. */
	for (at = 0; at < 65520; at += 8)
		assert_int_equal(send_part(6, at, 8, true, 10), 0);
	assert_int_equal(send_part(6, at, 8, false, 10), 0);
	/* More datagrams at once than there are places: the first ones give way. */
	for (unsigned id = 10; id < 10 + NET_DATAGRAMS + 1; id++)
		assert_int_equal(send_part(id, 0, 8, true, 0), 0);
	assert_int_equal(send_part(10, 8, 8, false, 0), 0);
	check_whole(send_part(10 + NET_DATAGRAMS, 8, 8, false, 0), 10 + NET_DATAGRAMS, 16, 0);
	/* Wrong sum; more than the frame has; too short for a header. */
	send_part(1, 0, 8, true, 0);
	frame[ETH + 8]--;
	assert_int_equal(net_reassemble(&fragments, frame, ETH + 28), 0);
	frame[ETH + 8]++;
	assert_int_equal(net_reassemble(&fragments, frame, ETH + 27), 0);
	frame[ETH] = 0x44;
	assert_int_equal(net_reassemble(&fragments, frame, ETH + 28), 0);
	assert_int_equal(net_reassemble(&fragments, frame, ETH + 19), ETH + 19);
	assert_int_equal(net_reassemble(&fragments, frame, 3), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

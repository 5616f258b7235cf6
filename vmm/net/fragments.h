/* A guest's IPv4 fragments, put together. Under the lock of who sends. */
#ifndef QUMRA_VMM_NET_FRAGMENTS_H
#define QUMRA_VMM_NET_FRAGMENTS_H

#include "vmm/net/net.h"

#define NET_DATAGRAMS 4

/* Zeroed: nothing is there. */
struct net_fragments {
	struct net_datagram {
		size_t have;		/* bytes of the frame so far; 0: free */
		u8 frame[NET_FRAME_MAX];
	} datagram[NET_DATAGRAMS];
	unsigned next;			/* to give way */
};

/*
 * What is to be sent on in place of a frame of len bytes, in a buffer of NET_FRAME_MAX: the same, if it is no
 * fragment; the whole datagram, if it completes one. Returns its length; 0: nothing.
 */
size_t net_reassemble(struct net_fragments *f, u8 *frame, size_t len);

#endif

/* The four calls of qkvm.h: descriptors, their objects' references, and the way of an ioctl to its
 * row. */
#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"

/* ---- handles ------------------------------------------------------------------------------ */

void handle_hold(void *obj)
{
	struct handle *h = obj;

	__atomic_fetch_add(&h->refs, 1, __ATOMIC_RELAXED);
}

/* Its vCPUs' descriptors keep the VM, but not what is signalled from outside. */
static void vm_closed(struct vm *vm)
{
	os_mutex_lock(&vm->lock);
	irqfds_free(vm);
	os_mutex_unlock(&vm->lock);
}

void handle_release(struct handle *h)
{
	if (__atomic_sub_fetch(&h->refs, 1, __ATOMIC_ACQ_REL))
		return;
	if (h->kind == HANDLE_VM && !h->foreign)
		vm_closed(h->vm);
	if (h->vm && !h->foreign)
		vm_put(h->vm);
	os_free(h);
}

int handle_open(enum handle_kind kind, const char *name, struct vm *vm, size_t size, void **mem,
	struct handle **out)
{
	struct handle *h = os_alloc(sizeof(*h));
	int fd;

	if (!h)
		return -ENOMEM;
	h->refs = 1;
	h->kind = kind;
	fd = os_fd_create(name, h, size, mem);
	if (fd < 0) {
		os_free(h);
		return fd;
	}
	if (vm)
		vm_get(vm);
	h->vm = vm;
	if (out)
		*out = h;
	return fd;
}

int handle_close(int fd)
{
	struct handle *h = os_fd_close(fd);

	if (!h)
		return -EBADF;
	handle_release(h);
	return 0;
}

/* ---- ioctl -------------------------------------------------------------------------------- */

const struct ioctl_class *const ioctl_classes[NR_HANDLE_KINDS] = {
	[HANDLE_SYSTEM] = &system_ioctls,
	[HANDLE_VM] = &vm_ioctls,
	[HANDLE_VCPU] = &vcpu_ioctls,
};

static const struct ioctl_row *row_find(const struct ioctl_class *class, u32 request)
{
	u32 i;

	for (i = 0; i < class->n; i++)
		if (class->rows[i].request == request)
			return &class->rows[i];
	return NULL;
}

static long call_locked(const struct ioctl_row *row, struct call *c)
{
	struct vcpu *v = c->v;
	long ret;

	if (!v)
		return row->fn(c);
	os_mutex_lock(&v->mutex);
	vcpu_enter(v);
	ret = row->fn(c);
	vcpu_leave(v);
	os_mutex_unlock(&v->mutex);
	return ret;
}

#define SMALL_ARG 512

static long call_copied(const struct ioctl_row *row, struct call *c)
{
	u8 small[SMALL_ARG] __attribute__((aligned(64)));
	u32 size = MAX(row->in, row->out);
	void *data = size <= sizeof(small) ? small : os_alloc(size);
	long ret;

	if (!data)
		return -ENOMEM;
	memset(data, 0, size);
	c->data = data;
	ret = os_user_read(data, c->arg, row->in);
	if (!ret)
		ret = call_locked(row, c);
	if (ret >= 0 && row->out && os_user_write(c->arg, data, row->out))
		ret = -EFAULT;
	if (data != small)
		os_free(data);
	return ret;
}

static long handle_ioctl(struct handle *h, unsigned long request, unsigned long arg)
{
	const struct ioctl_class *class = ioctl_classes[h->kind];
	/* The system call takes the request as an unsigned int. */
	const struct ioctl_row *row = row_find(class, (u32)request);
	struct call c = { .vm = h->vm, .v = load_acquire(&h->vcpu), .arg = arg, .handle = h };

	if (h->foreign)
		return -EIO;
	if (h->kind == HANDLE_VCPU && !c.v)
		return -EBADF;
	if (c.vm && load_acquire(&c.vm->dead))
		return -EIO;
	if (!row)
		return class->unknown;
	return row->in || row->out ? call_copied(row, &c) : call_locked(row, &c);
}

/* ---- the way in --------------------------------------------------------------------------- */

int qkvm_open(void)
{
	return handle_open(HANDLE_SYSTEM, "kvm", NULL, 0, NULL, NULL);
}

long qkvm_ioctl(int fd, unsigned long request, unsigned long arg)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	long ret;

	if (!h)
		return -EBADF;
	ret = handle_ioctl(h, request, arg);
	handle_release(h);
	return ret;
}

#define RING_OFFSET	(COALESCED_PAGE * 4096UL)

/* One page of each vCPU's mapping is the VM's. */
static int vcpu_map(struct handle *h, int fd, unsigned long size, void **addr)
{
	int ret = os_fd_map(fd, size, addr);

	if (ret || size <= RING_OFFSET)
		return ret;
	ret = os_pages_alias(h->vm->coalesced.ring, 4096, (char *)*addr + RING_OFFSET);
	if (ret)
		os_fd_unmap(*addr, size);
	return ret;
}

int qkvm_mmap(int fd, unsigned long size, void **addr)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	int ret = -EINVAL;

	if (!h)
		return -EBADF;
	if (h->kind != HANDLE_VCPU)
		ret = -ENODEV;
	else if (size && size <= VCPU_MMAP_SIZE)
		ret = vcpu_map(h, fd, size, addr);
	handle_release(h);
	return ret;
}

int qkvm_mapped(int fd, void *addr, unsigned long size, unsigned long offset)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	bool ring = offset <= RING_OFFSET && size > RING_OFFSET - offset;
	int ret = 0;

	if (!h)
		return -EBADF;
	if (h->kind != HANDLE_VCPU)
		ret = -ENODEV;
	else if (ring && !h->foreign)
		ret = os_pages_alias(h->vm->coalesced.ring, 4096,
			(char *)addr + (RING_OFFSET - offset));
	handle_release(h);
	return ret;
}

int qkvm_close(int fd)
{
	return handle_close(fd);
}

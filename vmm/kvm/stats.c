/* Reading and adding up a vCPU's counters: see stats.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/kvm/stats.h"

#define STATS_MAX	1024u	/* more than any hypervisor has: what it says is not trusted */
#define NAME_MAX_SIZE	256u

static int read_at(int fd, void *buf, size_t size, off_t at)
{
	ssize_t n = pread(fd, buf, size, at);

	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EPROTO;
}

static struct kvm_stat *stats_append(struct kvm_stats *s, const char *name)
{
	struct kvm_stat *grown = reallocarray(s->stat, s->n + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	s->stat = grown;
	grown += s->n++;
	grown->value = 0;
	snprintf(grown->name, sizeof(grown->name), "%s", name);
	return grown;
}

static bool is_scalar(const struct kvm_stats_desc *desc)
{
	u32 type = desc->flags & KVM_STATS_TYPE_MASK;

	return desc->size == 1 && (type == KVM_STATS_TYPE_CUMULATIVE ||
		type == KVM_STATS_TYPE_INSTANT || type == KVM_STATS_TYPE_PEAK);
}

static int stats_read_one(struct kvm_stats *s, int fd, const struct kvm_stats_header *h, u32 index)
{
	struct {
		struct kvm_stats_desc fixed;
		char name[NAME_MAX_SIZE];
	} desc = { 0 };
	size_t size = sizeof(desc.fixed) + h->name_size;
	struct kvm_stat *stat;
	u64 value;
	int ret = read_at(fd, &desc, size, h->desc_offset + index * size);

	if (ret || !is_scalar(&desc.fixed))
		return ret;
	ret = read_at(fd, &value, sizeof(value), (off_t)h->data_offset + desc.fixed.offset);
	if (ret)
		return ret;
	desc.name[NAME_MAX_SIZE - 1] = 0;
	stat = stats_append(s, desc.name);
	if (!stat)
		return -ENOMEM;
	stat->value = value;
	return 0;
}

static int stats_read_all(struct kvm_stats *s, int fd)
{
	struct kvm_stats_header h;
	int ret = read_at(fd, &h, sizeof(h), 0);

	if (!ret && (h.name_size > NAME_MAX_SIZE || h.num_desc > STATS_MAX))
		ret = -EPROTO;
	for (u32 i = 0; !ret && i < h.num_desc; i++)
		ret = stats_read_one(s, fd, &h, i);
	return ret;
}

int kvm_stats_read(const struct kvm *kvm, int fd, struct kvm_stats *s)
{
	long file = kvm_ioctl_num(kvm, fd, KVM_GET_STATS_FD, 0);
	int ret;

	*s = (struct kvm_stats){ 0 };
	if (file < 0)
		return file;
	ret = stats_read_all(s, file);
	close(file);
	if (ret)
		kvm_stats_free(s);
	return ret;
}

static struct kvm_stat *stats_find(const struct kvm_stats *s, const char *name)
{
	for (unsigned i = 0; i < s->n; i++)
		if (!strcmp(s->stat[i].name, name))
			return &s->stat[i];
	return NULL;
}

int kvm_stats_add(struct kvm_stats *sum, const struct kvm_stats *from)
{
	for (unsigned i = 0; i < from->n; i++) {
		struct kvm_stat *to = stats_find(sum, from->stat[i].name);

		if (!to)
			to = stats_append(sum, from->stat[i].name);
		if (!to)
			return -ENOMEM;
		to->value += from->stat[i].value;
	}
	return 0;
}

void kvm_stats_free(struct kvm_stats *s)
{
	free(s->stat);
	*s = (struct kvm_stats){ 0 };
}

/*
 * RSA with 2048 bits by OpenSSL's library. `openssl speed` works for a fixed time and `openssl pkeyutl`
 * signs once a process, so the library is loaded here; its functions have the types of its manual.
 */
#include <dlfcn.h>
#include <stdio.h>

#include "work.h"

#define KEY_FILE "/bench/rsa.pem"

enum { SIGNATURES = 150, VERIFICATIONS = 2000, DIGEST_SIZE = 32, SIGNATURE_SIZE = 256 };

static void *library;
static void *sign_context, *verify_context;

static void *symbol(const char *name)
{
	void *p = dlsym(library, name);

	if (!p) {
		fprintf(stderr, "work: %s\n", dlerror());
		die(name);
	}
	return p;
}

static void *key_read(void)
{
	void *(*read_key)(FILE *, void **, void *, void *) = symbol("PEM_read_PrivateKey");
	FILE *f = fopen(KEY_FILE, "r");
	void *key = f ? read_key(f, NULL, NULL, NULL) : NULL;

	if (!key)
		die(KEY_FILE);
	fclose(f);
	return key;
}

static void rsa_setup(void)
{
	void *(*context_new)(void *, void *), *key;
	int (*init)(void *);

	library = dlopen("libcrypto.so.3", RTLD_NOW);
	if (!library)
		die("libcrypto.so.3");
	key = key_read();
	context_new = symbol("EVP_PKEY_CTX_new");
	sign_context = context_new(key, NULL);
	verify_context = context_new(key, NULL);
	init = symbol("EVP_PKEY_sign_init");
	if (init(sign_context) <= 0)
		die("EVP_PKEY_sign_init");
	init = symbol("EVP_PKEY_verify_init");
	if (init(verify_context) <= 0)
		die("EVP_PKEY_verify_init");
}

static u64 rsa_run(void)
{
	int (*sign)(void *, unsigned char *, size_t *, const unsigned char *, size_t) =
		symbol("EVP_PKEY_sign");
	int (*verify)(void *, const unsigned char *, size_t, const unsigned char *, size_t) =
		symbol("EVP_PKEY_verify");
	unsigned char digest[DIGEST_SIZE] = {0}, signature[SIGNATURE_SIZE];
	size_t size = 0;
	u64 good = 0;

	for (int i = 0; i < SIGNATURES; i++) {
		digest[0] = i;
		size = sizeof(signature);
		if (sign(sign_context, signature, &size, digest, sizeof(digest)) <= 0)
			die("EVP_PKEY_sign");
	}
	for (int i = 0; i < VERIFICATIONS; i++)
		good += verify(verify_context, signature, size, digest, sizeof(digest)) == 1;
	return hash_bytes(good, signature, 8);
}

const struct workload rsa_workloads[] = {
	{"openssl-rsa2048", rsa_setup, rsa_run},
	{NULL, NULL, NULL},
};

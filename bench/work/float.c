/* Floating point: scalar double, vectors of float (SSE, as every x86-64 has), x87. */
#include <string.h>

#include "work.h"

enum {
	BODIES = 5, STEPS = 600000,
	SIDE = 256, PRODUCTS = 30,
	TERMS = 6000000,
};

static u64 bits(double x)
{
	u64 u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static inline double root(double x)
{
	asm("sqrtsd %0, %0" : "+x"(x));
	return x;
}

struct body {
	double x[3], v[3], mass;
};

static struct body bodies[BODIES];

static void bodies_setup(void)
{
	for (int i = 0; i < BODIES; i++)
		bodies[i] = (struct body){
			.x = {i * 1.5, i * i * .25 - 1, .1 * i},
			.v = {.1 * i, .3 - .1 * i, .02},
			.mass = 1. / (1 + i),
		};
}

static void bodies_pull(struct body *a, struct body *b, double dt)
{
	double d[3], square = 1e-3, pull;

	for (int k = 0; k < 3; k++) {
		d[k] = a->x[k] - b->x[k];
		square += d[k] * d[k];
	}
	pull = dt / (square * root(square));
	for (int k = 0; k < 3; k++) {
		a->v[k] -= d[k] * b->mass * pull;
		b->v[k] += d[k] * a->mass * pull;
	}
}

/* Bodies that attract each other. */
static __attribute__((optimize("no-tree-vectorize"))) u64 double_run(void)
{
	for (int step = 0; step < STEPS; step++) {
		for (int i = 0; i < BODIES; i++) {
			for (int j = i + 1; j < BODIES; j++)
				bodies_pull(&bodies[i], &bodies[j], 1e-4);
		}
		for (int i = 0; i < BODIES; i++) {
			for (int k = 0; k < 3; k++)
				bodies[i].x[k] += 1e-4 * bodies[i].v[k];
		}
	}
	return bits(bodies[0].x[0]) ^ bits(bodies[4].x[1]);
}

typedef float vec __attribute__((vector_size(16)));

static vec (*a)[SIDE / 4], (*b)[SIDE / 4], (*c)[SIDE / 4];

static void vector_setup(void)
{
	a = buffer_make(SIDE * SIDE * 4);
	b = buffer_make(SIDE * SIDE * 4);
	c = buffer_make(SIDE * SIDE * 4);
	for (int i = 0; i < SIDE * SIDE; i++) {
		((float *)a)[i] = (i * 7 % 31) * .03125f;
		((float *)b)[i] = (i * 11 % 37) * .0625f - 1;
	}
}

/* A row of the product: c = a * b * 0.01 + c * 0.5. */
static void vector_row(int i)
{
	for (int j = 0; j < SIDE / 4; j += 4) {
		vec s0 = c[i][j] * .5f, s1 = c[i][j + 1] * .5f;
		vec s2 = c[i][j + 2] * .5f, s3 = c[i][j + 3] * .5f;

		for (int k = 0; k < SIDE; k++) {
			float x = ((float *)a[i])[k] * .01f;
			vec f = {x, x, x, x};

			s0 += f * b[k][j];
			s1 += f * b[k][j + 1];
			s2 += f * b[k][j + 2];
			s3 += f * b[k][j + 3];
		}
		c[i][j] = s0;
		c[i][j + 1] = s1;
		c[i][j + 2] = s2;
		c[i][j + 3] = s3;
	}
}

static u64 vector_run(void)
{
	for (int n = 0; n < PRODUCTS; n++) {
		for (int i = 0; i < SIDE; i++)
			vector_row(i);
	}
	return hash_bytes(0, c, SIDE * SIDE * 4);
}

/* A logarithm's series and a continued fraction, in 80 bits. */
static u64 x87_run(void)
{
	long double sum = 0, sign = 1, fraction = 1;
	u64 u;

	for (u32 n = 1; n <= TERMS; n++) {
		sum += sign / n;
		sign = -sign;
		fraction = 1 + 1 / (1 + fraction * .5L);
	}
	sum += fraction;
	memcpy(&u, &sum, sizeof(u));
	return u;
}

const struct workload float_workloads[] = {
	{"double", bodies_setup, double_run},
	{"vector", vector_setup, vector_run},
	{"x87", NULL, x87_run},
	{NULL, NULL, NULL},
};

/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What drives a fuzzer without libFuzzer: each file named, or each in a folder
 * named, is an input.  It says which one is under way, so that a crash tells.
 */

#include <sys/stat.h>

#include <err.h>
#include <limits.h>
#include <unistd.h>

#include "t/fuzz/fuzz.h"

/* A fuzzer that hangs is as wrong as one that crashes. */
#define SECONDS_EACH	20

static unsigned int ninputs;

static void
run_file(const char *path)
{
	static uint8_t buf[1 << 20];
	uint8_t *exact;
	size_t len;
	FILE *fp;

	if ((fp = fopen(path, "r")) == NULL)
		err(2, "%s", path);
	len = fread(buf, 1, sizeof(buf), fp);
	if (ferror(fp))
		err(2, "%s", path);
	fclose(fp);
	if ((exact = malloc(len + 1)) == NULL)
		err(2, "malloc");
	memcpy(exact, buf, len);
	printf("%s\n", path);
	fflush(stdout);
	alarm(SECONDS_EACH);
	LLVMFuzzerTestOneInput(exact, len);
	alarm(0);
	free(exact);
	ninputs++;
}

int
main(int argc, char *argv[])
{
	char path[PATH_MAX];
	struct dirent *e;
	struct stat st;
	DIR *d;
	int i;

	for (i = 1; i < argc; i++) {
		if (stat(argv[i], &st) == -1)
			err(2, "%s", argv[i]);
		if (!S_ISDIR(st.st_mode)) {
			run_file(argv[i]);
			continue;
		}
		if ((d = opendir(argv[i])) == NULL)
			err(2, "%s", argv[i]);
		while ((e = readdir(d)) != NULL) {
			if (e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%s", argv[i],
			    e->d_name);
			run_file(path);
		}
		closedir(d);
	}
	printf("%u inputs\n", ninputs);
	return (ninputs == 0);
}

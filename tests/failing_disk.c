/* A disk that takes what is written and fails to confirm it: preloaded, fsync and fdatasync of SQLite's log fail with
 * EIO for as long as the file named by FAILING_DISK is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], path[4096];
    const char *flag = getenv("FAILING_DISK");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!flag || length < 4 || access(flag, F_OK) != 0) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, "-wal") == 0;
}

int fsync(int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

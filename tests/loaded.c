/* A program that uses what a loader does: says "loaded" where all of it was done well, or the line where it was not. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <dlfcn.h>
#include <link.h>
#endif

#define SEE(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); exit(1); } } while (0)

static char zeros[64 << 20];
static __thread char own_zeros[1 << 20];
static __thread int own = 42;
static int constructed;

__attribute__((constructor)) static void construct(void) { constructed = 1; }
__attribute__((destructor)) static void destruct(void) { puts("loaded"); }

static void *thread(void *n) {
  for (size_t i = 0; i < sizeof own_zeros; i++) SEE(own_zeros[i] == 0);
  memset(own_zeros, 1, sizeof own_zeros);
  own += (int)(long)n;
  return (void *)(long)own;
}

int main(void) {
  SEE(constructed);
  SEE(open("/dev/null", O_RDONLY) == 3); /* nothing was left open */
  for (size_t i = 0; i < sizeof zeros; i += 512) { SEE(zeros[i] == 0); zeros[i] = 1; }

  pthread_t threads[8];
  for (long n = 0; n < 8; n++) SEE(!pthread_create(&threads[n], NULL, thread, (void *)n));
  for (long n = 0; n < 8; n++) { void *got; SEE(!pthread_join(threads[n], &got)); SEE((long)got == 42 + n); }

  void *block = calloc(1, 32 << 20);
  SEE(block && ((char *)block)[20 << 20] == 0);
  for (int n = 1; n < 3000; n++) { char *small = calloc(1, n); for (int i = 0; i < n; i++) SEE(small[i] == 0); }

#if defined(__GLIBC__) && !defined(STATIC)
  SEE(_r_debug.r_ldbase == getauxval(AT_BASE)); /* the loader, not the shim */
  void *library = dlopen("libm.so.6", RTLD_NOW);
  SEE(library && dlsym(library, "sqrt"));
#endif

  pid_t child = vfork();
  if (child == 0) { execl("/bin/true", "true", (char *)NULL); _exit(9); }
  int status;
  SEE(waitpid(child, &status, 0) == child && status == 0);
  return 0;
}

/* A library that says that it was loaded, by whatever door. */
#include <unistd.h>

__attribute__((constructor)) static void loaded(void) { write(1, "code was loaded\n", 16); }
unsigned la_version(unsigned version) { return version; }

/* confined PATH... -- PROGRAM ARGUMENT...: Landlock lets these files alone be executed, then the program is.
   Ends with the errno of what failed. Static, so that it needs no loader itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what) {
  int error = errno;
  fprintf(stderr, "%s: %s\n", what, strerror(error));
  return error;
}

int main(int count, char **words) {
  struct landlock_ruleset_attr handled = {.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE};
  int rules = syscall(SYS_landlock_create_ruleset, &handled, sizeof handled.handled_access_fs, 0);
  if (rules < 0) return fail("landlock_create_ruleset");
  int at = 1;
  for (; at < count && strcmp(words[at], "--"); at++) {
    struct landlock_path_beneath_attr rule = {.allowed_access = LANDLOCK_ACCESS_FS_EXECUTE};
    rule.parent_fd = open(words[at], O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0) return fail(words[at]);
    if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0)) return fail("landlock_add_rule");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return fail("no_new_privs");
  if (syscall(SYS_landlock_restrict_self, rules, 0)) return fail("landlock_restrict_self");
  close(rules);
  execv(words[at + 1], words + at + 1);
  return fail(words[at + 1]);
}

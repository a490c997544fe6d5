/* Forbidden acts and their allowed twins, one by name. Exit 0: the act worked. Exit 1: it was refused, the error is
 * printed. Killed by SIGSYS: the filter killed it. Built by the tests, run inside the walls. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int done(long r) {
  if (r != -1) return 0;
  printf("%s\n", strerrorname_np(errno));
  return 1;
}

static int child(void *unused) { (void)unused; return 0; }
static char stack[65536];

static long clone_with(int flags) {
  int pid = clone(child, stack + sizeof stack, flags | SIGCHLD, NULL);
  if (pid == -1) return -1;
  int status;
  waitpid(pid, &status, 0);
  return 0;
}

static long connect_to(const char *ip, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, ip, &a.sin_addr);
  int s = socket(AF_INET, SOCK_STREAM, 0);
  if (s == -1) return -1;
  return connect(s, (struct sockaddr *)&a, sizeof a);
}

static long send_udp(const char *ip, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, ip, &a.sin_addr);
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  if (s == -1) return -1;
  return sendto(s, "x", 1, 0, (struct sockaddr *)&a, sizeof a);
}

static long abstract(const char *name) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path + 1, name, sizeof a.sun_path - 2);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  return connect(s, (struct sockaddr *)&a, sizeof(sa_family_t) + 1 + strlen(name));
}

static long own_loopback(void) {
  struct sockaddr_in a = {.sin_family = AF_INET};
  socklen_t n = sizeof a;
  inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
  int l = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 1) || getsockname(l, (struct sockaddr *)&a, &n)) return -1;
  int c = socket(AF_INET, SOCK_STREAM, 0);
  return connect(c, (struct sockaddr *)&a, sizeof a);
}

/* A datagram to a path over a socket that was made as one of a pair. */
static long send_to_path(const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  int s[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, s)) return -1;
  return sendto(s[0], "x", 1, 0, (struct sockaddr *)&a, sizeof a);
}

/* The same by a change of where a connected pair leads. */
static long connect_pair(int type, const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  int s[2];
  if (socketpair(AF_UNIX, type, 0, s)) return -1;
  return connect(s[0], (struct sockaddr *)&a, sizeof a);
}

static long bind_pair(const char *name) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path + 1, name, sizeof a.sun_path - 2);
  int s[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) return -1;
  return bind(s[0], (struct sockaddr *)&a, sizeof(sa_family_t) + 1 + strlen(name));
}

/* Has the kernel send a signal when something can be read. */
static long signal_by_pipe(int pid) {
  int p[2];
  if (pipe(p) || fcntl(p[0], F_SETOWN, pid) || fcntl(p[0], F_SETSIG, SIGTERM)) return -1;
  if (fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK)) return -1;
  return write(p[1], "x", 1) == 1 ? 0 : -1;
}

/* Counts in a file of the working folder for as long as it runs. */
static long count(void) {
  int f = open("count", O_CREAT | O_RDWR | O_TRUNC, 0644);
  char text[32];
  for (unsigned long n = 1;; n++) if (n % 1000 == 0) pwrite(f, text, snprintf(text, sizeof text, "%lu\n", n / 1000), 0);
}

static void nothing(int signal) { (void)signal; }

/* Has the kernel let this process go on whenever it was stopped: after a while, or when there is input. */
static long go_on_by_timer(void) {
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGCONT};
  struct itimerspec every = {{0, 20000000}, {0, 20000000}};
  timer_t timer;
  signal(SIGCONT, nothing);
  if (!timer_create(CLOCK_MONOTONIC, &e, &timer)) timer_settime(timer, 0, &every, NULL);
  return count();
}

static long go_on_by_input(void) {
  signal(SIGCONT, nothing);
  fcntl(0, F_SETOWN, getpid());
  fcntl(0, F_SETSIG, SIGCONT);
  fcntl(0, F_SETFL, O_ASYNC);
  return count();
}

static long pidfd_signal(int pid) {
  int f = syscall(SYS_pidfd_open, pid, 0);
  return f == -1 ? -1 : syscall(SYS_pidfd_send_signal, f, 0, NULL, 0);
}

static long set_flags(const char *path) {
  int f = open(path, O_RDONLY | O_NONBLOCK), flags = 0;
  if (f == -1 || ioctl(f, FS_IOC_GETFLAGS, &flags)) return -1;
  flags ^= FS_NODUMP_FL;
  return ioctl(f, FS_IOC_SETFLAGS, &flags);
}

/* Generations, each of which has gone before anybody can have seen it: in sessions of their own, for a minute. */
static long flee(const char *mark) {
  if (fork()) return 0;
  for (long i = 0; i < 1000000; i++) {
    setsid();
    int pid = fork();
    if (pid > 0) _exit(0);
    if (pid == -1) usleep(100);
  }
  execlp("sleep", "sleep", mark, NULL);
  _exit(1);
}

static long x32_getpid(void) {
#ifdef __x86_64__
  return syscall(0x40000000 | SYS_getpid);
#else
  raise(SIGSYS);
  return -1;
#endif
}

static long compat_getpid(void) {
#ifdef __x86_64__
  long r;
  __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
  return r > 0 ? r : -1;
#else
  raise(SIGSYS);
  return -1;
#endif
}

/* Executes what is open here, with nothing but its name. Comes back where that is refused. */
static long execute_open(int f) {
  char *argv[] = {"x", NULL}, *env[] = {NULL};
  return f == -1 ? -1 : syscall(SYS_execveat, f, "", argv, env, AT_EMPTY_PATH);
}

static long execute(const char *path) {
  char *argv[] = {(char *)path, NULL}, *env[] = {NULL};
  return execve(path, argv, env);
}

static const char *by_number(int f) {
  static char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", f);
  return path;
}

/* Ends the process with 2 where it cannot even copy: then the act has not been tried. */
static int copy(const char *from, int to) {
  char block[65536];
  int f = open(from, O_RDONLY);
  ssize_t n;
  while ((n = read(f, block, sizeof block)) > 0) if (write(to, block, n) != n) _exit(2);
  if (f == -1 || n == -1) _exit(2);
  close(f);
  fchmod(to, 0755);
  return to;
}

static const char *copy_to(const char *from, const char *to) {
  unlink(to);
  int f = open(to, O_CREAT | O_WRONLY | O_EXCL, 0755);
  if (f == -1) { perror(to); _exit(2); }
  close(copy(from, f));
  return to;
}

/* A file in memory that is a copy; flags in hex. */
static int memory_copy(const char *from, const char *flags) {
  int f = memfd_create("x", strtol(flags, NULL, 16));
  return f == -1 ? -1 : copy(from, f);
}

/* Reopened for reading: what is open for writing is not executed by anybody (ETXTBSY). */
static int unnamed_copy(const char *from, const char *folder) {
  int f = open(folder, O_TMPFILE | O_RDWR, 0700);
  if (f == -1) _exit(2);
  int again = open(by_number(copy(from, f)), O_RDONLY);
  close(f);
  return again;
}

static long map_as_code(const char *path, int first, int later) {
  int f = open(path, O_RDONLY);
  if (f == -1) _exit(2);
  void *m = mmap(NULL, 4096, first, MAP_PRIVATE, f, 0);
  if (m == MAP_FAILED) return -1;
  return later ? mprotect(m, 4096, later) : 0;
}

static long execute_pipe(const char *from) {
  int ends[2];
  char block[4096];
  if (pipe(ends)) _exit(2);
  int f = open(from, O_RDONLY);
  if (write(ends[1], block, read(f, block, sizeof block)) <= 0) _exit(2);
  close(ends[1]);
  return execute_open(ends[0]);
}

int main(int argc, char **argv) {
  const char *act = argc > 1 ? argv[1] : "";
  const char *arg = argc > 2 ? argv[2] : "";
#define IS(name) (!strcmp(act, name))
  /* the walls themselves */
  if (IS("mount")) return done(mount("none", "/tmp", "tmpfs", 0, NULL));
  if (IS("umount")) return done(umount2("/workspace", MNT_DETACH));
  if (IS("remount")) return done(mount("none", "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
  if (IS("mount-on")) return done(mount("/tmp", arg, NULL, MS_BIND, NULL));
  if (IS("umount-of")) return done(umount2(arg, MNT_DETACH));
  if (IS("remount-of")) return done(mount("none", arg, NULL, MS_REMOUNT | MS_BIND, NULL));
  if (IS("fsopen")) return done(syscall(SYS_fsopen, "tmpfs", 0));
  if (IS("open_tree")) return done(syscall(SYS_open_tree, AT_FDCWD, "/", 1));
  if (IS("pivot_root")) return done(syscall(SYS_pivot_root, "/tmp", "/tmp"));
  if (IS("chroot")) return done(chroot("/tmp"));
  if (IS("unshare-user")) return done(unshare(CLONE_NEWUSER));
  if (IS("unshare-mount")) return done(unshare(CLONE_NEWNS));
  if (IS("clone-user")) return done(clone_with(CLONE_NEWUSER));
  if (IS("clone-net")) return done(clone_with(CLONE_NEWNET));
  if (IS("clone-plain")) return done(clone_with(0));
  if (IS("clone3")) { char args[88] = {0}; return done(syscall(SYS_clone3, args, sizeof args)); }
  if (IS("setns")) { int f = open("/proc/1/ns/mnt", O_RDONLY); return done(f == -1 ? -1 : setns(f, 0)); }
  /* other processes */
  if (IS("ptrace-init")) return done(ptrace(PTRACE_ATTACH, 1, 0, 0));
  if (IS("ptrace-child")) {
    int pid = fork();
    if (!pid) { pause(); _exit(0); }
    long r = ptrace(PTRACE_SEIZE, pid, 0, 0);
    int e = errno;
    kill(pid, SIGKILL);
    errno = e;
    return done(r);
  }
  if (IS("read-init-memory")) {
    char b[8];
    struct iovec l = {b, 8}, r = {(void *)0x400000, 8};
    return done(process_vm_readv(1, &l, 1, &r, 1, 0));
  }
  if (IS("open-init-memory")) return done(open("/proc/1/mem", O_RDWR));
  if (IS("kill")) return done(kill(atoi(arg), 0));
  if (IS("kill-self")) return done(kill(getpid(), 0));
  if (IS("kill-with")) return done(kill(atoi(arg), atoi(argv[3])));
  if (IS("tgkill")) return done(syscall(SYS_tgkill, atoi(arg), atoi(arg), 0));
  if (IS("sigqueue")) { siginfo_t i = {.si_code = SI_QUEUE}; return done(syscall(SYS_rt_sigqueueinfo, atoi(arg), 0, &i)); }
  if (IS("timer")) { timer_t t; return done(timer_create(CLOCK_MONOTONIC, NULL, &t)); }
  if (IS("signal-of-input")) return done(fcntl(0, F_SETSIG, atoi(arg)));
  if (IS("go-on-by-timer")) return done(go_on_by_timer());
  if (IS("go-on-by-input")) return done(go_on_by_input());
  if (IS("pidfd-signal")) return done(pidfd_signal(atoi(arg)));
  if (IS("signal-by-pipe")) return done(signal_by_pipe(atoi(arg)));
  if (IS("join-group")) return done(setpgid(0, atoi(arg)));
  if (IS("limits-of")) { struct rlimit l; return done(prlimit(atoi(arg), RLIMIT_NOFILE, NULL, &l)); }
  if (IS("affinity-of")) { cpu_set_t c; CPU_ZERO(&c); CPU_SET(0, &c); return done(sched_setaffinity(atoi(arg), sizeof c, &c)); }
  if (IS("idle")) { struct sched_param p = {0}; return done(sched_setscheduler(atoi(arg), SCHED_IDLE, &p)); }
  if (IS("nice")) return done(setpriority(PRIO_PROCESS, atoi(arg), 10));
  if (IS("nice-user")) return done(setpriority(PRIO_USER, atoi(arg), 10));
  if (IS("nice-group")) return done(setpriority(PRIO_PGRP, atoi(arg), 10));
  if (IS("ionice")) return done(syscall(SYS_ioprio_set, 1, atoi(arg), 2 << 13 | 7));
  if (IS("ionice-user")) return done(syscall(SYS_ioprio_set, 3, atoi(arg), 2 << 13 | 7));
  if (IS("flee")) return done(flee(arg));
  /* kernel surface */
  if (IS("io_uring")) { char p[120] = {0}; return done(syscall(SYS_io_uring_setup, 4, p)); }
  if (IS("bpf")) { char a[128] = {0}; return done(syscall(SYS_bpf, 0, a, sizeof a)); }
  if (IS("perf")) { char a[128] = {0}; return done(syscall(SYS_perf_event_open, a, 0, -1, -1, 0)); }
  if (IS("userfaultfd")) return done(syscall(SYS_userfaultfd, 1));
  if (IS("keyctl")) return done(syscall(SYS_keyctl, 0, -3, 1));
  if (IS("add_key")) return done(syscall(SYS_add_key, "user", "x", "y", 1, -3));
  if (IS("name_to_handle")) { char h[64] = {8}; int id; return done(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", h, &id, 0)); }
  if (IS("open_by_handle")) { char h[64] = {8}; return done(syscall(SYS_open_by_handle_at, AT_FDCWD, h, 0)); }
  if (IS("sethostname")) return done(sethostname("x", 1));
  if (IS("reboot")) return done(syscall(SYS_reboot, 0, 0, 0, 0));
  if (IS("x32")) return done(x32_getpid());
  if (IS("int80")) return done(compat_getpid());
  if (IS("unknown-call")) return done(syscall(9999));
  if (IS("memfd")) return done(memfd_create("x", 0));
  if (IS("personality")) return done(syscall(SYS_personality, 0x0400000));
  /* sockets */
  if (IS("socket-inet")) return done(socket(AF_INET, SOCK_STREAM, 0));
  if (IS("socket-udp")) return done(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (IS("dccp")) return done(socket(AF_INET, 6, 0));
  if (IS("dccp6")) return done(socket(AF_INET6, 6 | SOCK_CLOEXEC, 0));
  if (IS("internet-packets")) return done(socket(AF_INET, SOCK_SEQPACKET, 0));
  if (IS("unix-packets")) return done(socket(AF_UNIX, SOCK_SEQPACKET, 0));
  if (IS("socket-unix")) return done(socket(AF_UNIX, SOCK_STREAM, 0));
  if (IS("socket-route")) return done(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
  if (IS("socket-audit")) return done(socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT));
  if (IS("socket-packet")) return done(socket(AF_PACKET, SOCK_RAW, 0));
  if (IS("socket-alg")) return done(socket(AF_ALG, SOCK_SEQPACKET, 0));
  if (IS("socket-vsock")) return done(socket(AF_VSOCK, SOCK_STREAM, 0));
  if (IS("socket-raw")) return done(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
  if (IS("send-to-path")) return done(send_to_path(arg));
  if (IS("connect-pair")) return done(connect_pair(SOCK_STREAM, arg));
  if (IS("connect-packets")) return done(connect_pair(SOCK_SEQPACKET, arg));
  if (IS("connect-datagrams")) return done(connect_pair(SOCK_DGRAM, arg));
  if (IS("bind-pair")) return done(bind_pair(arg));
  if (IS("socketpair")) { int s[2]; return done(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s)); }
  if (IS("shared-memory")) return done(syscall(SYS_shmget, 0, 4096, 0600));
  if (IS("message-queue")) return done(syscall(SYS_mq_open, "x", O_RDONLY, 0, NULL));
  if (IS("connect")) return done(connect_to(arg, argc > 3 ? atoi(argv[3]) : 80));
  if (IS("udp")) return done(send_udp(arg, 53));
  if (IS("abstract")) return done(abstract(arg));
  if (IS("own-loopback")) return done(own_loopback());
  /* terminals */
  if (IS("tiocsti")) return done(ioctl(0, TIOCSTI, "x"));
  if (IS("tioclinux")) { char c = 2; return done(ioctl(0, 0x541c, &c)); }
  if (IS("line-discipline")) { int n = 27; return done(ioctl(0, TIOCSETD, &n)); }
  /* privileges */
  if (IS("setuid-root")) return done(setuid(0));
  if (IS("setgid-root")) return done(setgid(0));
  if (IS("setgroups")) { gid_t g = 0; return done(setgroups(1, &g)); }
  if (IS("setuid-self")) return done(setuid(getuid()));
  if (IS("chmod-suid")) return done(chmod(arg, 04755));
  if (IS("chmod")) return done(chmod(arg, 0755));
  if (IS("open-suid")) return done(open(arg, O_CREAT | O_WRONLY, 04755));
  if (IS("tmpfile-sgid")) return done(open(arg, O_TMPFILE | O_RDWR, 02707));
  if (IS("tmpfile")) return done(open(arg, O_TMPFILE | O_RDWR, 0600));
  if (IS("creat-suid")) return done(creat(arg, 04755));
  if (IS("mknod-suid")) return done(mknod(arg, S_IFREG | 04755, 0));
  if (IS("io_setup")) { long c = 0; return done(syscall(SYS_io_setup, 1, &c)); }
  if (IS("huge-mmap")) return done(mmap(NULL, 2 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) == MAP_FAILED ? -1 : 0);
  if (IS("huge-memfd")) return done(memfd_create("x", MFD_HUGETLB));
  if (IS("sctp")) return done(socket(AF_INET, SOCK_STREAM, 132));
  if (IS("mknod-device")) return done(mknod(arg, S_IFCHR | 0666, 0x103));
  if (IS("mknod-fifo")) return done(mknod(arg, S_IFIFO | 0666, 0));
  /* code: what is executed has its own exit code and output */
  if (IS("exec")) return done(execute(arg));
  if (IS("exec-argv0")) { char *as[] = {argv[3], NULL}; return done(execv(arg, as)); }
  if (IS("exec-open")) return done(execute_open(open(arg, O_RDONLY | O_CLOEXEC)));
  if (IS("exec-path-only")) return done(execute_open(open(arg, O_PATH)));
  if (IS("exec-by-number")) return done(execute(by_number(open(arg, O_RDONLY))));
  if (IS("exec-at")) { char *as[] = {"x", NULL}; return done(syscall(SYS_execveat, open("/usr", O_PATH), arg, as, environ, 0)); }
  if (IS("exec-thread")) { if (!vfork()) { execute(arg); _exit(1); } int s; wait(&s); errno = EACCES; return done(s ? -1 : 0); }
  if (IS("exec-copy")) return done(execute(copy_to(arg, argv[3])));
  if (IS("exec-hard-link")) { copy_to(arg, argv[3]); unlink(argv[4]); if (link(argv[3], argv[4])) return 2; return done(execute(argv[4])); }
  if (IS("exec-renamed")) { copy_to(arg, argv[3]); if (rename(argv[3], argv[4])) return 2; return done(execute(argv[4])); }
  if (IS("exec-deleted")) { int f = open(copy_to(arg, argv[3]), O_RDONLY); unlink(argv[3]); return done(execute_open(f)); }
  if (IS("exec-memory")) return done(execute_open(memory_copy(arg, argv[3])));
  if (IS("exec-memory-by-number")) { int f = memory_copy(arg, argv[3]); return done(f == -1 ? -1 : execute(by_number(f))); }
  if (IS("memory")) return done(memfd_create("x", strtol(arg, NULL, 16)));
  if (IS("exec-unnamed")) return done(execute_open(unnamed_copy(arg, argv[3])));
  if (IS("exec-unnamed-by-number")) return done(execute(by_number(unnamed_copy(arg, argv[3]))));
  if (IS("exec-pipe")) return done(execute_pipe(arg));
  if (IS("map-as-code")) return done(map_as_code(arg, PROT_READ | PROT_EXEC, 0));
  if (IS("turn-into-code")) return done(map_as_code(arg, PROT_READ, PROT_READ | PROT_EXEC));
  if (IS("write-self")) return done(open("/proc/self/mem", O_RDWR));
  if (IS("ping")) return done(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
  /* files */
  if (IS("truncate")) return done(truncate(arg, 0));
  if (IS("unlink")) return done(unlink(arg));
  if (IS("mkdir")) return done(mkdir(arg, 0755));
  if (IS("rename")) return done(rename(arg, argv[3]));
  if (IS("link")) return done(link(arg, argv[3]));
  if (IS("write")) return done(open(arg, O_CREAT | O_WRONLY, 0644));
  if (IS("read")) return done(open(arg, O_RDONLY));
  if (IS("list")) return done(open(arg, O_RDONLY | O_DIRECTORY));
  if (IS("write-handle")) { char p[64]; int f = open(arg, O_PATH); sprintf(p, "/proc/self/fd/%d", f); return done(f == -1 ? -1 : open(p, O_WRONLY)); }
  if (IS("exchange")) return done(syscall(SYS_renameat2, AT_FDCWD, arg, AT_FDCWD, argv[3], RENAME_EXCHANGE));
  if (IS("link-handle")) { char p[64]; int f = open(arg, O_PATH); sprintf(p, "/proc/self/fd/%d", f); return done(f == -1 ? -1 : linkat(AT_FDCWD, p, AT_FDCWD, argv[3], AT_SYMLINK_FOLLOW)); }
  /* what is open for reading alone */
  if (IS("chmod-open")) { int f = open(arg, O_RDONLY); return done(f == -1 ? -1 : fchmod(f, 0700)); }
  if (IS("chmod-handle")) { int f = open(arg, O_PATH); return done(f == -1 ? -1 : fchmod(f, 0700)); }
  if (IS("chmod-empty")) { int f = open(arg, O_PATH); return done(f == -1 ? -1 : syscall(452, f, "", 0700, AT_EMPTY_PATH)); }
  if (IS("chmod-by-proc")) { char p[64]; int f = open(arg, O_PATH); sprintf(p, "/proc/self/fd/%d", f); return done(f == -1 ? -1 : chmod(p, 0700)); }
  if (IS("chown")) return done(chown(arg, -1, getgid()));
  if (IS("chown-open")) { int f = open(arg, O_RDONLY); return done(f == -1 ? -1 : fchown(f, -1, getgid())); }
  if (IS("touch")) return done(utimensat(AT_FDCWD, arg, NULL, 0));
  if (IS("touch-open")) { int f = open(arg, O_RDONLY); return done(f == -1 ? -1 : futimens(f, NULL)); }
  if (IS("utime")) return done(syscall(SYS_utimensat, AT_FDCWD, arg, (struct timespec[]){{1, 2}, {3, 4}}, 0));
  if (IS("set-attribute")) return done(setxattr(arg, "user.x", "y", 1, 0));
  if (IS("set-attribute-open")) { int f = open(arg, O_RDONLY); return done(f == -1 ? -1 : fsetxattr(f, "user.x", "y", 1, 0)); }
  if (IS("read-attribute")) { char b[64]; return done(getxattr(arg, argv[3], b, sizeof b) == -1 ? -1 : 0); }
  if (IS("set-flags")) return done(set_flags(arg));
  if (IS("lease")) { int f = open(arg, O_RDONLY); return done(f == -1 ? -1 : fcntl(f, F_SETLEASE, F_RDLCK)); }
  if (IS("watch")) { int i = syscall(SYS_inotify_init1, 0); return done(i == -1 ? -1 : syscall(SYS_inotify_add_watch, i, arg, 2)); }
  if (IS("map-exec-tmp")) {
    int f = open("/tmp/code", O_CREAT | O_RDWR, 0755);
    if (f == -1 || ftruncate(f, 4096)) return 2;
    return done(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, f, 0) == MAP_FAILED ? -1 : 0);
  }
  fprintf(stderr, "no such act: %s\n", act);
  return 3;
}

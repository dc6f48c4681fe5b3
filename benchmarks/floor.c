// The floor under cellwall's fresh container: the same kernel work in C, without options, images, state or messages.
//
//   cc -O2 -o floor floor.c && ./floor ROOTFS [+]GROUP[:FILE=VALUE]...
//
// Makes each control group GROUP with its limits (+: version 2, the child is cloned into it), clones into seven new namespaces with
// an id range of its own, mounts an id-mapped overlay with a tmpfs above, /dev, /proc, /sys and the rest, pivots, masks, drops
// capabilities, loads a seccomp filter, runs /bin/true of ROOTFS, waits for it, removes the groups. Prints two numbers in
// nanoseconds: until the end of /bin/true was seen, and until the groups were gone. Root only; Linux 6.15 or newer, for overlays of
// detached mounts.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BASE = 0x70000000, COUNT = 65536, MOST = 16, FILTER = 226 };
// cellwall's fourteen capabilities, as bits.
static const uint32_t KEPT = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 10 | 1u << 13 |
                             1u << 18 | 1u << 27 | 1u << 29 | 1u << 31;

static void die(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  _exit(97);
}
static long must(long result, const char *what) {
  if (result < 0) die(what);
  return result;
}
static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void put(const char *path, const char *text) {
  int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
  must(write(fd, text, strlen(text)), path);
  close(fd);
}

// -- mounts

static int make(const char *filesystem, const char *const *options, unsigned attributes) {
  int context = must(syscall(SYS_fsopen, filesystem, FSOPEN_CLOEXEC), filesystem);
  for (; options && *options; options += 2)
    must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[0], options[1], 0), options[0]);
  must(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0), filesystem);
  int fd = must(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes), filesystem);
  close(context);
  return fd;
}
static void attach(int fd, int dirfd, const char *path) {
  must(syscall(SYS_move_mount, fd, "", dirfd, path, MOVE_MOUNT_F_EMPTY_PATH), path);
}
static int tree(int dirfd, const char *path, unsigned flags) {
  return syscall(SYS_open_tree, dirfd, path, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}
static void set(int fd, unsigned attributes, int userns) {
  struct mount_attr a = {.attr_set = attributes, .userns_fd = userns};
  must(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a), "mount_setattr");
}
static void own(int dirfd, const char *name) { must(fchownat(dirfd, name, BASE, BASE, AT_SYMLINK_NOFOLLOW), name); }

static int make_overlay(const char *rootfs, int userns) {
  char lower[32], upper[40], work[40];
  int layer = must(tree(AT_FDCWD, rootfs, 0), rootfs);
  set(layer, MOUNT_ATTR_IDMAP, userns);
  int above = make("tmpfs", (const char *[]){"mode", "0700", "size", "10g", 0}, 0);
  mkdirat(above, "u", 0755), own(above, "u");
  mkdirat(above, "w", 0755), own(above, "w");
  snprintf(lower, sizeof lower, "/proc/self/fd/%d", layer);
  snprintf(upper, sizeof upper, "/proc/self/fd/%d/u", above);
  snprintf(work, sizeof work, "/proc/self/fd/%d/w", above);
  // Without the secure bit another file-system user would cost the capabilities over files.
  prctl(PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP);
  setfsuid(BASE), setfsgid(BASE);
  int fd = make("overlay", (const char *[]){"source", "overlay", "lowerdir+", lower, "upperdir", upper, "workdir", work, 0},
                MOUNT_ATTR_NODEV);
  setfsuid(0), setfsgid(0);
  close(layer), close(above);
  return fd;
}
static int make_dev(void) {
  static const struct { const char *name; int major, minor; } nodes[] = {
      {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
  static const char *links[] = {"fd", "/proc/self/fd", "stdin", "/proc/self/fd/0", "stdout", "/proc/self/fd/1",
                                "stderr", "/proc/self/fd/2", "ptmx", "pts/ptmx", "core", "/proc/kcore", 0};
  static const char *folders[] = {"pts", "shm", "mqueue", "cell"};
  char id[16];
  snprintf(id, sizeof id, "%d", BASE);
  int fd = make("tmpfs", (const char *[]){"mode", "0755", "size", "65536k", "uid", id, "gid", id, 0},
                MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  for (int i = 0; i < 6; i++) {
    must(mknodat(fd, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
    own(fd, nodes[i].name);
  }
  for (const char **l = links; *l; l += 2) symlinkat(l[1], fd, l[0]), own(fd, l[0]);
  for (int i = 0; i < 4; i++) mkdirat(fd, folders[i], 0755), own(fd, folders[i]);
  return fd;
}
static int make_files(void) {
  int fd = make("tmpfs", (const char *[]){"mode", "0755", "size", "1m", 0}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
  for (int i = 0; i < 2; i++) {
    int file = must(openat(fd, i ? "1" : "0", O_WRONLY | O_CREAT | O_CLOEXEC, 0644), "file");
    must(write(file, "127.0.0.1 localhost\n", 20), "file");
    must(fchown(file, BASE, BASE), "file");
    close(file);
  }
  return fd;
}

// -- the child

static int ready_to_join, ready_to_attach, joins[MOST], join_count;
// Filled in by the parent while the child waits: memory that both have.
static volatile struct { int root, dev, files; } *made;

static void attach_all(void) {
  attach(made->root, AT_FDCWD, "/proc");
  const unsigned none = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  attach(make("proc", 0, none), made->root, "proc");
  attach(made->dev, made->root, "dev");
  attach(make("devpts", (const char *[]){"ptmxmode", "0666", "mode", "0620", "gid", "5", 0}, none & ~MOUNT_ATTR_NODEV), made->root,
         "dev/pts");
  attach(make("tmpfs", (const char *[]){"mode", "1777", "size", "64m", 0}, none), made->root, "dev/shm");
  attach(make("mqueue", 0, none), made->root, "dev/mqueue");
  attach(make("sysfs", 0, none | MOUNT_ATTR_RDONLY), made->root, "sys");
  attach(made->files, AT_FDCWD, "/dev");
  for (int i = 0; i < 2; i++) {
    const char *target = i ? "etc/hostname" : "etc/hosts";
    close(must(openat(made->root, target, O_CREAT | O_CLOEXEC, 0644), target));
    attach(must(tree(AT_FDCWD, i ? "/dev/1" : "/dev/0", 0), "file"), made->root, target);
  }
}
static void hide(void) {
  static const char *shown[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", 0};
  static const char *hidden[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                                 "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                                 "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware", 0};
  for (const char **path = shown; *path; path++) {
    int fd = tree(AT_FDCWD, *path, 0);
    if (fd < 0) continue;
    set(fd, MOUNT_ATTR_RDONLY, 0);
    attach(fd, AT_FDCWD, *path);
    close(fd);
  }
  for (const char **path = hidden; *path; path++) {
    struct stat s;
    if (lstat(*path, &s)) continue;
    if (S_ISDIR(s.st_mode)) attach(make("tmpfs", (const char *[]){"size", "0", "mode", "0555", 0}, MOUNT_ATTR_RDONLY), AT_FDCWD, *path);
    else must(mount("/dev/null", *path, 0, MS_BIND, 0), *path);
  }
}
static void confine(void) {
  for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
    if (capability > 31 || !(KEPT >> capability & 1)) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{KEPT, KEPT, 0}, {0, 0, 0}};
  must(syscall(SYS_capset, &header, data), "capset");
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  // As long as the default profile's, and it lets everything through: loading is what costs.
  static struct sock_filter filter[FILTER];
  for (int i = 0; i < FILTER - 1; i++) filter[i] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
  filter[FILTER - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {FILTER, filter};
  must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
}
static void child(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  uint64_t count;
  must(read(ready_to_join, &count, 8), "wait");
  for (int i = 0; i < join_count; i++) must(write(joins[i], "0", 1), "join");
  must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
  must(read(ready_to_attach, &count, 8), "wait");
  must(setresgid(0, 0, 0), "setresgid"), must(setgroups(0, 0), "setgroups"), must(setresuid(0, 0, 0), "setresuid");
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  must(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "private");
  int control = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
  struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
  must(ioctl(control, SIOCSIFFLAGS, &lo), "lo");
  attach_all();
  must(fchdir(made->root), "root");
  must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
  must(umount2(".", MNT_DETACH), "old root");
  must(chdir("/"), "/");
  must(sethostname("floor", 5), "hostname");
  hide();
  must(setsid(), "setsid");
  confine();
  execl("/bin/true", "true", (char *)0);
  die("/bin/true");
}

// -- the parent

static int make_group(char *words, char **folder) {
  int clone_into = *words == '+';
  char path[512];
  *folder = strtok(words + clone_into, ":");
  must(mkdir(*folder, 0755), *folder);
  for (char *word; (word = strtok(0, ":"));) {
    char *value = strchr(word, '=');
    *value++ = 0;
    snprintf(path, sizeof path, "%s/%s", *folder, word);
    put(path, value);
  }
  if (clone_into) return must(open(*folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), *folder);
  snprintf(path, sizeof path, "%s/tasks", *folder);
  joins[join_count++] = must(open(path, O_WRONLY | O_CLOEXEC), path);
  return -1;
}
int main(int count, char **words) {
  if (count < 2 || count > MOST) return fprintf(stderr, "usage: floor ROOTFS [+]GROUP[:FILE=VALUE]...\n"), 2;
  char *folders[MOST], path[64], map[64];
  int into = -1, pidfd = -1, status;
  uint64_t one = 1, begin = now();
  for (int i = 2; i < count; i++) {
    int fd = make_group(words[i], &folders[i]);
    if (fd >= 0) into = fd;
  }
  made = mmap(0, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ready_to_join = must(eventfd(0, EFD_CLOEXEC), "eventfd"), ready_to_attach = must(eventfd(0, EFD_CLOEXEC), "eventfd");
  // CLONE_FILES: the child finds the mounts in the table that it shares until its exec.
  struct clone_args a = {.flags = CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_FILES |
                                  CLONE_PIDFD | (into >= 0 ? CLONE_INTO_CGROUP : 0),
                         .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD, .cgroup = into < 0 ? 0 : into};
  pid_t pid = must(syscall(SYS_clone3, &a, sizeof a), "clone3");
  if (!pid) child();
  snprintf(map, sizeof map, "0 %d %d\n", BASE, COUNT);
  snprintf(path, sizeof path, "/proc/%d/uid_map", pid), put(path, map);
  snprintf(path, sizeof path, "/proc/%d/gid_map", pid), put(path, map);
  must(write(ready_to_join, &one, 8), "go");
  snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
  int userns = must(open(path, O_RDONLY | O_CLOEXEC), path);
  made->root = make_overlay(words[1], userns), made->dev = make_dev(), made->files = make_files();
  must(write(ready_to_attach, &one, 8), "go");
  must(waitpid(pid, &status, 0), "wait");
  uint64_t ended = now();
  close(made->root), close(made->dev), close(made->files);
  for (int i = 2; i < count; i++) must(rmdir(folders[i]), folders[i]);
  printf("%llu %llu\n", (unsigned long long)(ended - begin), (unsigned long long)(now() - begin));
  return status ? 3 : 0;
}

/*
 * The system calls that are left to the process of a clip: memory, time, and the end.
 *
 * A decoder needs no more: its input and its output are mapped before it sees a byte. Everything else is
 * refused with EPERM, which a library that tries (to write a remark, to look for a locale) takes as any
 * failure; what only an attack would try ends the process at once and shows in the log as SIGSYS. Refusing
 * and ending are equally safe; ending at every unforeseen call was rejected, because the next version of a C
 * library may make one, and no MP3 would be read any more. Memory can be had, but never to execute.
 *
 * libseccomp writes the program: it knows the numbers of the calls on every architecture and what the kernel
 * must check before comparing them. By hand that is a table of numbers for each architecture and a page of
 * jumps that nobody reads twice. It is compiled once, when the decoder starts, and only loaded for a clip,
 * which takes a few microseconds.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/decode/internal.h"

struct vampd_filter {
  struct sock_fprog program;
  struct sock_filter instructions[];
};

static const int ALLOWED[] = {
    SCMP_SYS(brk),           SCMP_SYS(munmap),       SCMP_SYS(mremap),          SCMP_SYS(madvise),
    SCMP_SYS(futex),         SCMP_SYS(exit),         SCMP_SYS(exit_group),      SCMP_SYS(rt_sigreturn),
    SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
    SCMP_SYS(getrandom),     SCMP_SYS(getpid),       SCMP_SYS(gettid),          SCMP_SYS(sigaltstack),
};

/* Allowed where the third argument asks for no right to execute. */
static const int ALLOWED_WITHOUT_EXEC[] = {SCMP_SYS(mmap), SCMP_SYS(mprotect)};

static const int FATAL[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(clone),
    SCMP_SYS(clone3),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(socket),
    SCMP_SYS(connect),
    SCMP_SYS(kill),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(mount),
    SCMP_SYS(unshare),
    SCMP_SYS(setns),
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(keyctl),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup),
};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

/* 0, or a negative errno. A call that the architecture does not have needs no rule. */
static int add_rules(scmp_filter_ctx context) {
  int status = 0;
  for (size_t i = 0; i < COUNT(ALLOWED) && status == 0; i++) {
    status = seccomp_rule_add(context, SCMP_ACT_ALLOW, ALLOWED[i], 0);
  }
  for (size_t i = 0; i < COUNT(ALLOWED_WITHOUT_EXEC) && status == 0; i++) {
    status = seccomp_rule_add(context, SCMP_ACT_ALLOW, ALLOWED_WITHOUT_EXEC[i], 1,
                              SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  }
  for (size_t i = 0; i < COUNT(FATAL) && status == 0; i++) {
    status = seccomp_rule_add(context, SCMP_ACT_KILL_PROCESS, FATAL[i], 0);
  }
  return status;
}

/* Reads the program back: libseccomp hands it out into a file only. 0, or a negative errno. */
static int export(scmp_filter_ctx context, struct vampd_filter **filter) {
  struct vampd_filter *made = NULL;
  struct stat file;
  int status = 0;
  int descriptor = memfd_create("filter", MFD_CLOEXEC);
  if (descriptor < 0) {
    return -errno;
  }
  status = seccomp_export_bpf(context, descriptor);
  if (status == 0 && fstat(descriptor, &file) != 0) {
    status = -errno;
  }
  if (status != 0) {
    goto err;
  }
  size_t size = (size_t)file.st_size;
  made = malloc(sizeof *made + size);
  if (!made) {
    status = -ENOMEM;
    goto err;
  }
  if (pread(descriptor, made->instructions, size, 0) != (ssize_t)size) {
    status = -EIO;
    goto err;
  }
  made->program =
      (struct sock_fprog){(unsigned short)(size / sizeof made->instructions[0]), made->instructions};
  close(descriptor);
  *filter = made;
  return 0;
err:
  free(made);
  close(descriptor);
  return status;
}

struct vampd_filter *vampd_filter_create(int *reason) {
  struct vampd_filter *filter = NULL;
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  int status = context ? add_rules(context) : -ENOMEM;
  if (status == 0) {
    status = export(context, &filter);
  }
  seccomp_release(context);
  *reason = -status;
  return filter;
}

void vampd_filter_free(struct vampd_filter *filter) {
  free(filter);
}

int vampd_filter_install(const struct vampd_filter *filter) {
  /* Without this only root may install a filter: a program with more rights could be fooled by one. */
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return errno;
  }
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter->program) == 0 ? 0 : errno;
}

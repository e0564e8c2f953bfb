/*
 * Requests on their way: from the daemon to the decoder, and from there to the process of the clip.
 *
 * Both ways are sockets of whole messages (SOCK_SEQPACKET) with descriptors in tow (SCM_RIGHTS); on the
 * second one fewer go along, for the pipe stays with the decoder. A message that is not what it should be is
 * nobody's: its descriptors are closed, for whoever took it would leak them.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/decode/internal.h"

union control {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int) * VAMPD_REQUEST_DESCRIPTORS)];
};

bool vampd_request_send(int socket, const struct vampd_decoder_request *request, const int *descriptors,
                        size_t count) {
  union control control = {0};
  struct iovec body = {(void *)(uintptr_t)request, sizeof *request};
  struct msghdr message = {.msg_iov = &body,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = CMSG_SPACE(count * sizeof(int))};
  struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  *part = (struct cmsghdr){
      .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
  memcpy(CMSG_DATA(part), descriptors, count * sizeof(int));
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == (ssize_t)sizeof *request;
}

/* Takes the descriptors of a message; true where they are as many as there should be, else they are closed.
 */
static bool take_descriptors(struct msghdr *message, bool good, int *descriptors, size_t count) {
  int taken[VAMPD_REQUEST_DESCRIPTORS];
  size_t number = 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS && number == 0) {
      number = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      memcpy(taken, CMSG_DATA(part), number * sizeof(int));
    }
  }
  good = good && number == count && (message->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  for (size_t i = 0; i < number; i++) {
    if (good) {
      descriptors[i] = taken[i];
    } else {
      close(taken[i]);
    }
  }
  return good;
}

int vampd_request_receive(int socket, int flags, struct vampd_decoder_request *request, int *descriptors,
                          size_t count) {
  union control control;
  struct iovec body = {request, sizeof *request};
  struct msghdr message = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
  }
  if (got == 0) {
    return -1;
  }
  return take_descriptors(&message, got == (ssize_t)sizeof *request, descriptors, count);
}
